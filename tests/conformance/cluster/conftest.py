"""One operator and one namespace for all rows; an installed operator rests meanwhile."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conformance.cluster.operating import Operator, grant, manifest, wait_observed
from tests.support.alone import no_installed_operator
from tests.support.audit import AuditMark
from tests.support.kubectl import ROOT, Kubectl

CRD = ROOT / "crds" / "agentoperator.dev_agentdeployments.yaml"
CRD_NAME = "agentdeployments.agentoperator.dev"


@pytest.fixture(scope="session")
def crd() -> Iterator[Kubectl]:
    """kubectl where the committed CRD is served; taken away again if nobody else uses it."""
    kubectl = Kubectl("default")
    apply = ("apply", "--server-side", "--field-manager=conformance-tests", "-f", str(CRD))
    installed = kubectl.get("crd", CRD_NAME)
    if installed is None:
        kubectl.run(*apply)
        kubectl.run("wait", "--for=condition=Established", f"crd/{CRD_NAME}", "--timeout=60s")
    else:
        wanted = json.loads(kubectl.run(*apply, "--force-conflicts", "--dry-run=server", "-o", "json"))
        if installed["spec"] != wanted["spec"]:
            pytest.exit(f"the CRD on the server is not {CRD.name}: install the chart of this checkout", 2)
    yield kubectl
    if installed is None and not kubectl.run("get", "agd", "-A", "-o", "name").strip():
        kubectl.run("delete", "crd", CRD_NAME, "--timeout=120s", timeout=130)


@pytest.fixture(scope="session")
def alone(crd: Kubectl) -> Iterator[None]:
    """No installed operator: it would work on the same agents."""
    with no_installed_operator():
        yield


@pytest.fixture(scope="session")
def kubectl(crd: Kubectl, alone: None) -> Iterator[Kubectl]:
    """A namespace of the tests' own that enforces the restricted Pod Security Standard."""
    bound = Kubectl(f"conformance-{uuid.uuid4().hex[:6]}")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": bound.namespace, "labels": labels}
    crd.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    yield bound
    bound.run("delete", "agd", "--all", "--timeout=60s")
    crd.run("delete", "namespace", bound.namespace, "--wait=false")


@pytest.fixture(scope="session")
def operator(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The operator, running."""
    grant(kubectl)
    process = Operator(kubectl, tmp_path_factory.mktemp("operator"))
    try:
        process.start()
        yield process
    except BaseException:
        print("\n".join(process.lines()[-20:]))
        raise
    finally:
        process.stop()


@pytest.fixture
def agent(kubectl: Kubectl, operator: Operator) -> Iterator[Callable[..., dict[str, Any]]]:
    """Creates agents and, unless told not to, waits until they and their operator are at rest.

    They go with the test.
    """
    made: list[str] = []

    def create(name: str, *, rest: bool = True, **spec: Any) -> dict[str, Any]:
        made.append(name)
        mark = AuditMark()
        kubectl.apply(manifest(name, **spec))
        wait_observed(kubectl, name)
        if rest:
            operator.settle(mark)
        return wait_observed(kubectl, name)

    yield create
    for name in made:
        kubectl.run("delete", "agd", name, "--ignore-not-found", "--timeout=30s")
