"""Two operators that stand for election in a namespace of the tests' own, and somebody who edits."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.fault_cluster.churn import Churn, Server
from tests.fault_cluster.network import Network
from tests.fault_cluster.processes import Operator, cluster_of_kubeconfig, token_of
from tests.support.alone import no_installed_operator
from tests.support.kubectl import ROOT, Kubectl

CRD = "agentdeployments.agentoperator.dev"
AGENTS = ("one", "two", "three", "four", "five", "six")

Pair = Callable[..., tuple[Operator, Operator]]


@pytest.fixture(scope="session")
def kubectl() -> Iterator[Kubectl]:
    """kubectl bound to a namespace that lives as long as the tests."""
    bound = Kubectl(f"fault-{uuid.uuid4().hex[:6]}")
    installed = bound.get("crd", CRD)
    if installed is None:
        bound.run("apply", "--server-side", "-f", str(ROOT / "crds"))
        bound.run("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=60s")
    with no_installed_operator():
        bound.run("create", "namespace", bound.namespace)
        yield bound
        bound.run("delete", "namespace", bound.namespace, "--wait=false")
    if installed is None:
        bound.run("delete", "crd", CRD, "--timeout=60s")


@pytest.fixture(scope="session")
def churn(kubectl: Kubectl) -> Churn:
    """Agents without pods, and their editor."""
    items = [
        {
            "apiVersion": "agentoperator.dev/v1alpha1",
            "kind": "AgentDeployment",
            "metadata": {"name": name},
            "spec": {"suspend": True, "model": {"uri": "oci://localhost/none:1"}},
        }
        for name in AGENTS
    ]
    kubectl.apply({"apiVersion": "v1", "kind": "List", "items": items})
    cluster = cluster_of_kubeconfig()
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    return Churn(Server(cluster["server"], authority, token_of(kubectl, "editor")), kubectl, AGENTS)


@pytest.fixture(scope="session")
def tokens(kubectl: Kubectl) -> dict[str, str]:
    return {name: token_of(kubectl, name) for name in ("first", "second")}


@pytest.fixture
def pair(
    kubectl: Kubectl, tokens: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Pair]:
    """Starts two operators with default timing: the first leads, the second waits."""
    made: list[Operator] = []

    def start(server: str = "", fake_clocks: bool = False) -> tuple[Operator, Operator]:
        lease = f"fault-{uuid.uuid4().hex[:6]}"
        for name, way in (("first", server), ("second", "")):
            operator = Operator(
                kubectl.namespace, name, tokens[name], tmp_path, lease, server=way, fake_clock=fake_clocks
            )
            made.append(operator)
            operator.start()
            if name == "first":
                operator.wait_leading()
        return made[0], made[1]

    yield start
    for operator in made:
        operator.end()


@pytest.fixture
def network() -> Iterator[Network]:
    """A way to the API server that can be cut."""
    place = urlsplit(cluster_of_kubeconfig()["server"])
    with Network(place.hostname or "", place.port or 443) as way:
        yield way
