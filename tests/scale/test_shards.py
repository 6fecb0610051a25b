"""Two operators share a cluster by the shard label: each works on its own agents, under its own Lease."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.fleet import scenarios, trail
from bench.fleet.experiment import namespace
from bench.fleet.nodes import simulated
from bench.fleet.sides import OURS, prepare, running, shard
from tests.support.audit import AuditMark
from tests.support.kubectl import Kubectl, wait_for
from tests.support.processes import free_port

A, B = shard("a"), shard("b")
SHARD = "agentoperator.dev/shard"
PER_SHARD = 5


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kubectl, AuditMark]]:
    """Both operators and five agents of each shard, ready; the mark stands before the first agent."""
    folder: Path = tmp_path_factory.mktemp("shards")
    prepare((A, B), folder)
    with (
        simulated(2, folder, heartbeats=True),
        namespace("shards") as space,
        running(A, space, free_port(), folder),
        running(B, space, free_port(), folder),
    ):
        kubectl, mark = Kubectl(space), AuditMark()
        agents = [labelled(number, "a" if number < PER_SHARD else "b") for number in range(2 * PER_SHARD)]
        kubectl.apply({"apiVersion": "v1", "kind": "List", "items": agents})
        for agent in agents:
            kubectl.wait_ready(agent["metadata"]["name"], timeout=60)
        yield kubectl, mark
        scenarios.remove(A, space)


def labelled(number: int, label: str | None) -> dict[str, Any]:
    agent = OURS.manifest(scenarios.name(number), 1)
    agent["metadata"]["labels"] = {SHARD: label} if label else {}
    return agent


def writers(kubectl: Kubectl, mark: AuditMark, agent: str) -> set[str]:
    """Which of the two operators wrote anything of an agent since the mark."""
    about = [r for r in mark.requests(kubectl.namespace) if trail.agent_of(r) == agent]
    return {side.name for side in (A, B) if trail.by(side.user, about)}


def test_both_operators_lead_at_once_each_under_a_lease_of_its_own(fleet: tuple[Kubectl, AuditMark]) -> None:
    kubectl, _ = fleet
    leases = {lease["metadata"]["name"]: lease["spec"]["holderIdentity"] for lease in kubectl.list("leases")}
    assert leases.keys() == {"agent-operator-a", "agent-operator-b"}
    assert all(leases.values())
    assert len(set(leases.values())) == 2


def test_every_agent_is_written_by_the_operator_of_its_shard_alone(
    fleet: tuple[Kubectl, AuditMark],
) -> None:
    kubectl, mark = fleet
    for number in range(2 * PER_SHARD):
        side = A if number < PER_SHARD else B
        assert writers(kubectl, mark, scenarios.name(number)) == {side.name}


def test_an_agent_without_the_label_is_nobodys_here(fleet: tuple[Kubectl, AuditMark]) -> None:
    kubectl, _ = fleet
    mark, name = AuditMark(), scenarios.name(90)
    kubectl.apply(labelled(90, None))
    scenarios.settle(mark, A, kubectl.namespace)
    assert writers(kubectl, mark, name) == set()
    assert (kubectl.get("agd", name) or {})["status"] == {"observedGeneration": -1}


def test_an_agent_that_moves_to_the_other_shard_keeps_its_pods(fleet: tuple[Kubectl, AuditMark]) -> None:
    kubectl, _ = fleet
    name = scenarios.name(0)
    of_agent = f"agentoperator.dev/agent={name}"
    pods = {pod["metadata"]["uid"] for pod in kubectl.list("pods", of_agent)}
    mark = AuditMark()
    kubectl.run("label", "agd", name, f"{SHARD}=b", "--overwrite")

    def moved() -> bool:
        children = kubectl.list("deployments,services,configmaps", of_agent)
        return len(children) == 3 and all(c["metadata"]["labels"].get(SHARD) == "b" for c in children)

    wait_for("the children to carry the other label", moved, 30)
    kubectl.run("patch", "agd", name, "--type=merge", "-p", '{"spec":{"replicas":2}}')
    wait_for("the new operator to scale it", lambda: ready(kubectl, name) == "2/2", 30)
    scenarios.settle(mark, B, kubectl.namespace)
    assert writers(kubectl, mark, name) == {B.name}
    assert pods <= {pod["metadata"]["uid"] for pod in kubectl.list("pods", of_agent)}


def ready(kubectl: Kubectl, name: str) -> str:
    return str((kubectl.get("agd", name) or {}).get("status", {}).get("ready"))
