"""One operator and one namespace for all rows; an installed operator rests meanwhile."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conformance.cluster.operating import Operator, manifest, wait_observed
from tests.support.accounts import grant_as_the_chart
from tests.support.alone import no_installed_operator
from tests.support.audit import AuditMark
from tests.support.crd import ensure_committed_crd, remove_crd
from tests.support.kubectl import Kubectl


@pytest.fixture(scope="session")
def crd() -> Iterator[Kubectl]:
    """kubectl where the committed CRD is served; taken away again if nobody else uses it."""
    kubectl = Kubectl("default")
    installed_here = ensure_committed_crd(kubectl)
    yield kubectl
    if installed_here and not kubectl.run("get", "agd", "-A", "-o", "name").strip():
        remove_crd(kubectl)


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
    grant_as_the_chart(kubectl)
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
