"""The committed CRD on a real API server, and a namespace of the tests' own.

Where the CRD is installed already (by the chart), it must be the committed one: the tests never change what
another owner installed. Where it is not, they install it and take it away again.
"""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.crd import ensure_committed_crd, remove_crd
from tests.support.kubectl import Kubectl, kubeconfig

Manifest = dict[str, Any]


def merge(base: Any, patch: Any) -> Any:
    """RFC 7386 merge patch, except that null stays null, because a user may write it."""
    if not (isinstance(base, dict) and isinstance(patch, dict)):
        return patch
    return base | {key: merge(base.get(key), value) for key, value in patch.items()}


@pytest.fixture(scope="session")
def crd() -> Iterator[Kubectl]:
    """kubectl against a server that has the committed CRD."""
    kubectl = Kubectl("default")
    installed_here = ensure_committed_crd(kubectl)
    yield kubectl
    if installed_here:
        remove_crd(kubectl)


@pytest.fixture(scope="session")
def kubectl(crd: Kubectl) -> Iterator[Kubectl]:
    """kubectl bound to a namespace that lives as long as the tests."""
    bound = Kubectl(f"contract-{uuid.uuid4().hex[:6]}")
    crd.run("create", "namespace", bound.namespace)
    yield bound
    # A bare API server has no controller that empties namespaces: the tests clean up what they made.
    bound.run("delete", "agentdeployments", "--all", "--timeout=60s")
    crd.run("delete", "namespace", bound.namespace, "--wait=false")


@pytest.fixture(scope="session")
def manifest() -> Callable[..., Manifest]:
    """Builds an AgentDeployment: the smallest valid one, with a patch on its spec."""

    def build(patch: Manifest | None = None, name: str = "geography") -> Manifest:
        spec = merge({"model": {"uri": "hf://example/geography"}}, patch or {})
        return {
            "apiVersion": "agentoperator.dev/v1alpha1",
            "kind": "AgentDeployment",
            # Paused and suspended: an operator in the same cluster creates nothing for these.
            "metadata": {"name": name, "annotations": {"agentoperator.dev/paused": "true"}},
            "spec": spec,
        }

    return build


@pytest.fixture(scope="session")
def dry_create(kubectl: Kubectl) -> Callable[[Manifest], subprocess.CompletedProcess[str]]:
    """What `kubectl create --dry-run=server` answers: all of validation, nothing stored."""

    def create(document: Manifest) -> subprocess.CompletedProcess[str]:
        command = ["create", "--dry-run=server", "-o", "json", "-f", "-"]
        return subprocess.run(
            ["kubectl", "--kubeconfig", kubeconfig(), "-n", kubectl.namespace, *command],
            input=json.dumps(document),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return create
