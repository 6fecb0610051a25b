"""Who owns which field and which object: server-side apply, autoscalers, garbage collection."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.cluster.operating import Operator, references, selector, wait_observed
from tests.support.audit import AuditMark
from tests.support.children import EVERYTHING, MADE
from tests.support.kubectl import Kubectl, wait_for

Create = Callable[..., dict[str, Any]]
MANAGER = "agent-operator"


def managed(kubectl: Kubectl, kind: str, name: str) -> list[dict[str, Any]]:
    """Who wrote what of an object."""
    found = json.loads(kubectl.run("get", kind, name, "-o", "json", "--show-managed-fields"))
    return list(found["metadata"]["managedFields"])


def of_operator(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in entries if entry["manager"] == MANAGER]


def test_every_child_is_applied_by_one_manager_and_of_the_agent_only_the_status(
    agent: Create, kubectl: Kubectl
) -> None:
    agent("managed", replicas=2)

    children = references(kubectl, MADE, "managed")
    assert {child.split("/")[0].split(".")[0] for child in children} == {
        "deployment", "service", "configmap", "poddisruptionbudget",
    }  # fmt: skip
    for child in children:
        entries = of_operator(managed(kubectl, *child.split("/")))
        assert [(e["operation"], e.get("subresource")) for e in entries] == [("Apply", None)], child
    entries = of_operator(managed(kubectl, "agd", "managed"))
    assert {e.get("subresource") for e in entries} == {"status"}
    assert all("f:spec" not in entry["fieldsV1"] for entry in entries)


def test_what_others_add_to_a_child_stays_theirs(agent: Create, kubectl: Kubectl, operator: Operator) -> None:
    agent("shared", replicas=0)
    mark = AuditMark()
    added = json.dumps({"metadata": {"annotations": {"example.com/owner": "team-a"}}})

    kubectl.run("patch", "service", "shared", "--type=merge", "-p", added, "--field-manager=team-a")

    assert operator.settle(mark) == {}
    service = kubectl.get("service", "shared") or {}
    assert service["metadata"]["annotations"]["example.com/owner"] == "team-a"


def test_the_operator_forces_only_what_it_owns_and_a_strangers_object_is_left_alone(
    agent: Create, kubectl: Kubectl
) -> None:
    stranger = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken"}}
    kubectl.apply(stranger | {"spec": {"ports": [{"port": 1234}]}})
    before = kubectl.get("service", "taken")

    agent("taken", replicas=0)

    kubectl.wait_reason("taken", "ChildNameTaken", 30)
    assert kubectl.get("service", "taken") == before
    kubectl.run("delete", "service", "taken")


def scaler(name: str, low: int, high: int) -> dict[str, Any]:
    target = {"apiVersion": "agentoperator.dev/v1alpha1", "kind": "AgentDeployment", "name": name}
    cpu = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {"scaleTargetRef": target, "minReplicas": low, "maxReplicas": high, "metrics": [cpu]},
    }


def test_a_horizontal_pod_autoscaler_scales_the_agent_and_the_operator_does_not_argue(
    agent: Create, kubectl: Kubectl, operator: Operator
) -> None:
    agent("scaled", resources={"requests": {"cpu": "10m"}})
    kubectl.apply(scaler("scaled", 3, 5))

    def deployment() -> int:
        (found,) = kubectl.list("deployments", selector("scaled"))
        return int(found["spec"]["replicas"])

    wait_for("the autoscaler to ask for its minimum", lambda: deployment() == 3, 60)
    operator.settle(AuditMark())  # the status tells of the new number
    mark = AuditMark()
    hpa = kubectl.get("hpa", "scaled") or {}
    assert {c["type"]: c["status"] for c in hpa["status"]["conditions"]}["AbleToScale"] == "True"
    assert operator.settle(mark) == {}
    found = wait_observed(kubectl, "scaled")
    assert found["spec"]["replicas"] == found["status"]["replicas"] == 3
    owners = [
        e for e in managed(kubectl, "agd", "scaled") if "f:replicas" in str(e["fieldsV1"].get("f:spec"))
    ]
    assert [(e.get("subresource"), e["manager"]) for e in owners if e.get("subresource")] == [
        ("scale", "kube-controller-manager")
    ]
    kubectl.run("delete", "hpa", "scaled")


def test_kubectl_scale_is_kept_when_the_operator_starts_again(
    agent: Create, kubectl: Kubectl, operator: Operator
) -> None:
    agent("kept", suspend=True)
    kubectl.run("scale", "agd", "kept", "--replicas=4")
    wait_observed(kubectl, "kept")
    operator.stop()
    operator.start()

    assert (wait_observed(kubectl, "kept"))["spec"]["replicas"] == 4


@pytest.mark.parametrize("running", [True, False], ids=["operator running", "operator down"])
def test_deleting_an_agent_removes_every_child(
    running: bool, agent: Create, kubectl: Kubectl, operator: Operator
) -> None:
    name = "collected"
    created = agent(name, replicas=2)
    assert created["metadata"].get("finalizers", []) == []
    children = [kubectl.get(*child.split("/")) or {} for child in references(kubectl, MADE, name)]
    assert len(children) == 4
    for child in children:
        (owner,) = child["metadata"]["ownerReferences"]
        assert owner["uid"] == created["metadata"]["uid"]
        assert owner["controller"] is owner["blockOwnerDeletion"] is True
    if not running:
        operator.stop()
    try:
        kubectl.run("delete", "agd", name, "--timeout=10s")
        wait_for("the children to go", lambda: not references(kubectl, EVERYTHING, name), 60)
    finally:
        if not running:
            operator.start()


def test_foreground_deletion_waits_for_the_children(agent: Create, kubectl: Kubectl) -> None:
    agent("foreground", suspend=True)

    kubectl.run("delete", "agd", "foreground", "--cascade=foreground", "--timeout=60s")

    assert references(kubectl, MADE, "foreground") == []
