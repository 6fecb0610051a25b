"""The API as its users' tools see it: documentation, waiting, restricted namespaces, devices."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conformance.cluster.operating import (
    NODE_LABEL,
    Operator,
    manifest,
    observed,
    play_kubelet,
    references,
    selector,
    wait_observed,
)
from tests.conformance.kstatus import Verdict, compute
from tests.support.kubectl import Kubectl, KubectlError, wait_for

Create = Callable[..., dict[str, Any]]
GROUP = "agentoperator.dev/v1alpha1"


def undescribed(schema: dict[str, Any], path: str) -> Iterator[str]:
    """Paths of fields that `kubectl explain` would print without a word."""
    for name, child in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        if not child.get("description") and not child.get("allOf"):
            yield here
        yield from undescribed(child, here)
    if "items" in schema:
        yield from undescribed(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from undescribed(schema["additionalProperties"], f"{path}{{}}")


def test_the_published_schema_that_kubectl_explain_reads_describes_every_field(crd: Kubectl) -> None:
    def published() -> dict[str, Any] | None:  # some seconds after the definition was created
        try:
            document = json.loads(crd.run("get", "--raw", f"/openapi/v3/apis/{GROUP}"))
        except KubectlError:
            return None
        schemas = document["components"]["schemas"].items()
        return next((s for name, s in schemas if name.endswith("v1alpha1.AgentDeployment")), None)

    schema = wait_for("the schema to be published", published, 60)
    fields = {name: schema["properties"][name] for name in ("spec", "status")}

    assert len(json.dumps(fields)) > 10_000
    assert list(undescribed({"properties": fields}, "")) == []


def test_kubectl_wait_works_on_each_condition_there_and_back(agent: Create, kubectl: Kubectl) -> None:
    agent("waits", replicas=0)
    assert "condition met" in kubectl.run("wait", "--for=condition=Ready=false", "agd/waits", "--timeout=5s")

    kubectl.run("scale", "agd", "waits", "--replicas=1")
    play_kubelet(kubectl, "waits")

    assert "condition met" in kubectl.run("wait", "--for=condition=Ready", "agd/waits", "--timeout=30s")
    done = ("wait", "--for=condition=Reconciling=false", "agd/waits", "--timeout=30s")
    assert "condition met" in kubectl.run(*done)
    with pytest.raises(KubectlError, match="timed out"):
        kubectl.run("wait", "--for=condition=Stalled", "agd/waits", "--timeout=1s")


def test_an_object_that_no_operator_has_seen_is_in_progress_for_kstatus(operator: Operator) -> None:
    unwatched = Kubectl("default")
    unwatched.apply(manifest("unseen"))
    found = unwatched.get("agd", "unseen") or {}
    unwatched.run("delete", "agd", "unseen")
    assert found["status"] == {"observedGeneration": -1}
    assert compute(found) == Verdict.IN_PROGRESS


def test_kstatus_follows_an_agent_from_creation_over_a_mistake_to_rest(
    agent: Create, kubectl: Kubectl
) -> None:
    def becomes(verdict: Verdict) -> None:
        wait_for(
            f"kstatus to say {verdict}", lambda: compute(kubectl.get("agd", "judged") or {}) == verdict, 30
        )

    assert compute(agent("judged")) == Verdict.IN_PROGRESS
    play_kubelet(kubectl, "judged")
    becomes(Verdict.CURRENT)
    kubectl.run("patch", "agd", "judged", "--type=merge", "-p", '{"spec":{"tuning":{"mode":"Auto"}}}')
    becomes(Verdict.FAILED)
    kubectl.run("patch", "agd", "judged", "--type=merge", "-p", '{"spec":{"tuning":null}}')
    becomes(Verdict.CURRENT)


def test_a_namespace_that_enforces_the_restricted_standard_admits_the_pods(
    agent: Create, kubectl: Kubectl
) -> None:
    name = "restricted"
    agent(name, resources={"gpu": {"count": 1}}, agent={"systemPrompt": "Be brief."})

    wait_for("a pod", lambda: kubectl.list("pods", selector(name)), 30)

    (replica_set,) = kubectl.list("replicasets", selector(name))
    failures = [c for c in replica_set["status"].get("conditions", ()) if c["type"] == "ReplicaFailure"]
    assert failures == []


def test_overrides_of_the_pod_template_are_merged_by_key_and_accepted(
    agent: Create, kubectl: Kubectl
) -> None:
    sidecar = {
        "name": "sidecar",
        "image": "localhost/none:1",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    runtime = {"name": "runtime", "env": [{"name": "OWN", "value": "yes"}]}
    spec = {"nodeSelector": {NODE_LABEL: "none"}, "containers": [runtime, sidecar]}

    agent("overridden", template={"metadata": {"annotations": {"own": "yes"}}, "spec": spec})

    (deployment,) = kubectl.list("deployments", selector("overridden"))
    template = deployment["spec"]["template"]
    containers = {c["name"]: c for c in template["spec"]["containers"]}
    assert list(containers) == ["runtime", "sidecar"]
    assert {"name": "OWN", "value": "yes"} in containers["runtime"]["env"]
    assert containers["runtime"]["readinessProbe"]
    assert template["metadata"]["annotations"]["own"] == "yes"
    wait_for("a pod with both containers", lambda: kubectl.list("pods", selector("overridden")), 30)


@pytest.fixture
def gpu_node(kubectl: Kubectl) -> Iterator[str]:
    """A node with two devices and nothing behind them, tainted as GPU nodes usually are."""
    name = f"{kubectl.namespace}-gpu"
    taint = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {NODE_LABEL: name, "kubernetes.io/hostname": name}},
        "spec": {"taints": [taint]},
    }
    kubectl.apply(node)
    amounts = {"cpu": "8", "memory": "64Gi", "pods": "20", "nvidia.com/gpu": "2"}
    ready = {"type": "Ready", "status": "True", "reason": "Test", "message": ""}
    status = {"capacity": amounts, "allocatable": amounts, "conditions": [ready]}
    kubectl.run("patch", "node", name, "--subresource=status", "-p", json.dumps({"status": status}))
    yield name
    bound = [p for p in kubectl.list("pods") if p["spec"].get("nodeName") == name]
    for pod in bound:  # no kubelet will confirm their end
        kubectl.run("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0")
    kubectl.run("delete", "node", name)


def test_the_scheduler_places_agents_by_devices_taints_and_labels(
    agent: Create, kubectl: Kubectl, gpu_node: str
) -> None:
    there = {"spec": {"nodeSelector": {NODE_LABEL: gpu_node}}}

    def bound(name: str) -> list[str]:
        return [p["spec"].get("nodeName", "") for p in kubectl.list("pods", selector(name))]

    agent("fits", resources={"gpu": {"count": 2}}, template=there)
    wait_for("the pod to get the node", lambda: bound("fits") == [gpu_node], 30)

    agent("waiting", resources={"gpu": {"count": 1}}, template=there)
    agent("untolerating", template=there)
    kubectl.wait_reason("waiting", "InsufficientGPU", 30)
    kubectl.wait_reason("untolerating", "Unschedulable", 30)
    assert bound("waiting") == bound("untolerating") == [""]

    kubectl.run("patch", "agd", "fits", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    wait_observed(kubectl, "fits")
    for pod in references(kubectl, "pods", "fits"):
        kubectl.run("delete", pod, "--force", "--grace-period=0", "--ignore-not-found")
    wait_for("the freed device to be given on", lambda: bound("waiting") == [gpu_node], 60)


def test_an_agent_says_in_its_status_what_generation_it_is_about(
    agent: Create, kubectl: Kubectl, operator: Operator
) -> None:
    created = agent("generations", suspend=True)
    assert created["status"]["observedGeneration"] == created["metadata"]["generation"] == 1
    operator.stop()
    try:
        kubectl.run("scale", "agd", "generations", "--replicas=3")
        assert observed(kubectl, "generations") is None, "nobody can have seen the change"
    finally:
        operator.start()

    seen = wait_observed(kubectl, "generations")

    assert seen["status"]["observedGeneration"] == 2
    assert {c["observedGeneration"] for c in seen["status"]["conditions"]} == {2}
