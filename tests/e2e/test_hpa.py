"""Provider HPA on the real node: the cluster's own autoscaler raises spec.replicas, the operator follows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.support import local_cluster
from tests.support.kubectl import Kubectl, KubectlError, wait_for

NAME = "busy"
SELECTOR = f"agentoperator.dev/agent={NAME}"
SCALING = {
    "provider": "HPA",
    "minReplicas": 1,
    "maxReplicas": 2,
    "targetCPUUtilizationPercent": 50,
    "scaleDownDelaySeconds": 0,
}
LOAD = """
import json, sys, threading, time, urllib.request
url, model = sys.argv[1:]
body = {"model": model, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
def ask():
    while True:
        request = urllib.request.Request(
            url + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            urllib.request.urlopen(request, timeout=30).read()
        except OSError as error:  # a replica that starts or ends; the load goes on
            print(error, flush=True)
            time.sleep(1)
for _ in range(3):
    threading.Thread(target=ask).start()
"""


@pytest.fixture(scope="module", autouse=True)
def metrics(operator: Kubectl) -> Iterator[None]:
    """metrics-server: the embedded cluster gets one for the time of these tests, others must have one."""

    def served() -> bool:
        try:
            return bool(operator.run("top", "node", "--no-headers").strip())
        except KubectlError:
            return False

    there = served()
    if not there:
        done = local_cluster("metrics-server")
        assert done.returncode == 0, done.stdout + done.stderr
        wait_for("kubectl top to answer: the cluster needs metrics-server", served, 120)
    yield
    if not there:
        local_cluster("no-metrics-server")


def load_pod(image: str, url: str) -> dict[str, Any]:
    """A restricted pod that asks without a pause until it is deleted."""
    container = {
        "name": "load",
        "image": image,
        "command": ["python", "-c", LOAD, url, NAME],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "load"},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": security,
            "containers": [container],
        },
    }


@pytest.fixture(scope="module")
def scaled(cluster: Kubectl, references: dict[str, str]) -> Iterator[Kubectl]:
    """A namespace with one Ready agent that the autoscaler is to scale."""
    resources = {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}
    spec = {
        "model": {"uri": f"oci://{references['geography']}"},
        "resources": resources,
        "autoscaling": SCALING,
    }
    manifest = {"apiVersion": "agentoperator.dev/v1alpha1", "kind": "AgentDeployment"}
    cluster.apply({**manifest, "metadata": {"name": NAME}, "spec": spec})
    cluster.wait_ready(NAME)
    yield cluster
    cluster.run("delete", "agentdeployment", NAME, "--wait=true")


def agent(kubectl: Kubectl) -> dict[str, Any]:
    return json.loads(kubectl.run("get", "agd", NAME, "-o", "json", "--show-managed-fields"))  # type: ignore[no-any-return]


def replicas(kubectl: Kubectl) -> int:
    return int(agent(kubectl)["spec"]["replicas"])


def deployment(kubectl: Kubectl) -> dict[str, Any]:
    (found,) = kubectl.list("deployments", SELECTOR)
    return found


def writers_of_replicas(kubectl: Kubectl) -> set[tuple[str, str]]:
    """(manager, subresource) of everybody who owns spec.replicas of the agent."""
    return {
        (entry["manager"], entry.get("subresource", ""))
        for entry in agent(kubectl)["metadata"]["managedFields"]
        if "f:replicas" in (entry["fieldsV1"].get("f:spec") or {})
    }


def explained(kubectl: Kubectl) -> Callable[[], str]:
    return lambda: kubectl.run("describe", "hpa", NAME) + kubectl.explain(NAME)


def test_the_autoscaler_measures_the_agent_and_the_status_says_who_decides(scaled: Kubectl) -> None:
    def active() -> bool:
        found = scaled.condition(NAME, "ScalingActive")
        return (found.get("status"), found.get("reason")) == ("True", "ExternalScaler")

    wait_for("ScalingActive", active, 180, explained(scaled))

    def measured() -> bool:
        found = scaled.get("hpa", NAME) or {}
        conditions = found.get("status", {}).get("conditions", [])
        return {c["type"]: c["status"] for c in conditions}.get("ScalingActive") == "True"

    wait_for("the autoscaler's first figures", measured, 180, explained(scaled))
    assert f"HorizontalPodAutoscaler {NAME}" in scaled.condition(NAME, "ScalingActive")["message"]


def test_under_load_the_autoscaler_asks_for_more_and_without_it_for_less(
    scaled: Kubectl, references: dict[str, str]
) -> None:
    assert replicas(scaled) == 1
    scaled.apply(load_pod(references["operator"], agent(scaled)["status"]["url"]))
    try:
        wait_for("two replicas asked for", lambda: replicas(scaled) == 2, 240, explained(scaled))
        wait_for("the operator to follow", lambda: deployment(scaled)["spec"]["replicas"] == 2, 30)
        wait_for(
            "both replicas to be ready",
            lambda: agent(scaled)["status"].get("ready") == "2/2",
            240,
            explained(scaled),
        )
        writers = writers_of_replicas(scaled)
        assert {writer for writer in writers if writer[1]} == {("kube-controller-manager", "scale")}
        assert "agent-operator" not in {manager for manager, _ in writers}
        assert scaled.condition(NAME, "ScalingActive")["reason"] == "ExternalScaler"
    finally:
        scaled.run("delete", "pod", "load", "--wait=true")

    wait_for("one replica asked for again", lambda: replicas(scaled) == 1, 240, explained(scaled))
    wait_for("the operator to follow", lambda: deployment(scaled)["spec"]["replicas"] == 1, 30)
    assert "agent-operator" not in {manager for manager, _ in writers_of_replicas(scaled)}


def test_without_autoscaling_the_autoscaler_goes_and_the_number_stays(scaled: Kubectl) -> None:
    before = replicas(scaled)

    scaled.run("patch", "agd", NAME, "--type=json", "-p", '[{"op": "remove", "path": "/spec/autoscaling"}]')

    wait_for("the autoscaler to go", lambda: scaled.get("hpa", NAME) is None, 60)
    assert replicas(scaled) == before
    wait_for(
        "the status to say so",
        lambda: scaled.condition(NAME, "ScalingActive").get("reason") == "FixedReplicas",
        60,
    )
