"""The committed CRD on the server the tests use. Layer: tests.

The one idea: where somebody installed it already, it must be the committed one, and is never changed; where
nobody did, a test may install it, and decides itself whether it goes again.
"""

from __future__ import annotations

import json

import pytest

from tests.support.kubectl import ROOT, Kubectl

CRD = ROOT / "crds" / "agentoperator.dev_agentdeployments.yaml"
CRD_NAME = "agentdeployments.agentoperator.dev"


def ensure_committed_crd(kubectl: Kubectl) -> bool:
    """Installs the CRD where there is none; True if it did. Another one than the committed ends the tests."""
    apply = ("apply", "--server-side", "--field-manager=contract-tests", "-f", str(CRD))
    installed = kubectl.get("crd", CRD_NAME)
    if installed is None:
        kubectl.run(*apply)
        kubectl.run("wait", "--for=condition=Established", f"crd/{CRD_NAME}", "--timeout=60s")
        return True
    wanted = json.loads(kubectl.run(*apply, "--force-conflicts", "--dry-run=server", "-o", "json"))
    if installed["spec"] != wanted["spec"]:
        pytest.exit(f"the CRD on the server is not {CRD.name}: install the chart of this checkout", 2)
    return False


def remove_crd(kubectl: Kubectl) -> None:
    """Takes it away again, with every AgentDeployment."""
    kubectl.run("delete", "crd", CRD_NAME, "--timeout=120s", timeout=130)
