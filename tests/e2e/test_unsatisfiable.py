"""Well-formed manifests that cannot work: a condition says why and how to mend; nothing else moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.support.kubectl import Kubectl, wait_for

Build = Callable[..., dict[str, Any]]


@pytest.fixture
def apply(cluster: Kubectl) -> Iterator[Callable[[dict[str, Any]], str]]:
    """Applies a manifest and deletes it after the test; returns its name."""
    names: list[str] = []

    def do(manifest: dict[str, Any]) -> str:
        cluster.apply(manifest)
        names.append(manifest["metadata"]["name"])
        return names[-1]

    yield do
    for name in names:
        cluster.run("delete", "agd", name, "--wait=true", "--ignore-not-found")
    wait_for("the pods to go", lambda: not cluster.list("pods"), 120)


def small(**gpu: Any) -> dict[str, Any]:
    return {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}, **gpu}


def test_more_gpus_than_the_node_has_is_told_with_the_schedulers_words(
    cluster: Kubectl, apply: Callable[[dict[str, Any]], str], agent: Build
) -> None:
    name = apply(agent("greedy", resources=small(gpu={"count": 3})))
    condition = cluster.wait_reason(name, "InsufficientGPU")
    assert "nvidia.com/gpu" in condition["message"]
    assert "3" in condition["message"]
    assert "InsufficientGPU" in cluster.run("get", "agents", name)


def test_a_wrong_model_path_is_named_within_15_seconds_of_the_failure(
    cluster: Kubectl, apply: Callable[[dict[str, Any]], str], agent: Build
) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "manual",
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"models-{cluster.namespace}"},
        "spec": {
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "manual",
            "hostPath": {"path": f"/var/tmp/{cluster.namespace}", "type": "DirectoryOrCreate"},
            "claimRef": {"namespace": cluster.namespace, "name": "models"},
        },
    }
    cluster.apply(volume)
    cluster.apply(claim)
    try:
        name = apply(agent("lost", model={"uri": "pvc://models/no/such/model"}, resources=small()))
        condition = cluster.wait_reason(name, "ModelNotFound")
        assert "no/such/model" in condition["message"]
        pod = cluster.list("pods", f"agentoperator.dev/agent={name}")[0]
        state = pod["status"]["containerStatuses"][0]
        ended = (state["state"].get("terminated") or state["lastState"]["terminated"])["finishedAt"]
        told = condition["lastTransitionTime"]
        first = datetime.fromisoformat(ended)
        assert (datetime.fromisoformat(told) - first).total_seconds() <= 15
        diagnosis = (cluster.get("agd", name) or {})["status"]["diagnoses"][0]
        assert diagnosis["reason"] == "ModelNotFound"
        assert diagnosis["remedy"]
    finally:
        cluster.run("delete", "agd", "lost", "--wait=true", "--ignore-not-found")
        cluster.run("delete", "pvc", "models", "--wait=false")
        cluster.run("delete", "pv", f"models-{cluster.namespace}", "--wait=false")


def test_a_model_image_that_does_not_exist_is_named(
    cluster: Kubectl, apply: Callable[[dict[str, Any]], str], agent: Build, references: dict[str, str]
) -> None:
    reference = references["geography"].rsplit(":", 1)[0] + ":no-such-tag"
    name = apply(agent("noimage", model={"uri": f"oci://{reference}"}, resources=small()))
    condition = cluster.wait_reason(name, "ModelImagePullFailed")
    assert reference in condition["message"]


def test_a_runtime_image_that_does_not_exist_is_named(
    cluster: Kubectl, apply: Callable[[dict[str, Any]], str], agent: Build, references: dict[str, str]
) -> None:
    reference = references["runtime"].rsplit(":", 1)[0] + ":no-such-tag"
    name = apply(agent("noruntime", runtime={"image": reference}, resources=small()))
    condition = cluster.wait_reason(name, "ImagePullFailed")
    assert reference in condition["message"]


def test_a_missing_token_secret_is_named(
    cluster: Kubectl, apply: Callable[[dict[str, Any]], str], agent: Build
) -> None:
    model = {"uri": "hf://google/flan-t5-xl", "tokenSecretRef": {"name": "hub-token", "key": "token"}}
    name = apply(agent("gated", model=model, resources=small()))
    condition = cluster.wait_reason(name, "SecretNotFound")
    assert "hub-token" in condition["message"]


def test_a_missing_volume_claim_is_named(
    cluster: Kubectl, apply: Callable[[dict[str, Any]], str], agent: Build
) -> None:
    name = apply(agent("novolume", model={"uri": "pvc://nowhere/model"}, resources=small()))
    assert "nowhere" in cluster.wait_reason(name, "VolumeNotFound")["message"]


def test_an_exceeded_quota_is_told(
    cluster: Kubectl, apply: Callable[[dict[str, Any]], str], agent: Build
) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "nothing"},
        "spec": {"hard": {"pods": "0"}},
    }
    cluster.apply(quota)
    try:
        name = apply(agent("poor", resources=small()))
        assert "quota" in cluster.wait_reason(name, "QuotaExceeded")["message"]
    finally:
        cluster.run("delete", "resourcequota", "nothing")


def test_a_strangers_service_of_the_same_name_is_never_taken_over(
    cluster: Kubectl, apply: Callable[[dict[str, Any]], str], agent: Build
) -> None:
    cluster.run("create", "service", "clusterip", "taken", "--tcp=80:80")
    try:
        before = cluster.get("service", "taken")
        name = apply(agent("taken", resources=small()))
        assert "Service" in cluster.wait_reason(name, "ChildNameTaken")["message"]
        assert cluster.get("service", "taken") == before
    finally:
        cluster.run("delete", "agd", "taken", "--wait=true")
        cluster.run("delete", "service", "taken")


def test_a_feature_not_built_yet_is_refused_by_name_and_nothing_is_created(
    cluster: Kubectl, apply: Callable[[dict[str, Any]], str], agent: Build
) -> None:
    name = apply(agent("future", tuning={"mode": "Auto"}, resources=small()))
    assert "spec.tuning" in cluster.wait_reason(name, "FeatureNotSupported")["message"]
    assert cluster.names("deployments,configmaps", f"agentoperator.dev/agent={name}") == []


def test_what_runs_is_not_touched_by_an_update_that_cannot_work(
    cluster: Kubectl,
    apply: Callable[[dict[str, Any]], str],
    agent: Build,
    references: dict[str, str],
    ask: Callable[[Kubectl, str, str], str],
) -> None:
    name = apply(agent("steady", resources=small(gpu={"count": 1})))
    cluster.wait_ready(name)
    pods = {p["metadata"]["uid"] for p in cluster.list("pods", f"agentoperator.dev/agent={name}")}
    cluster.apply(
        agent(name, model={"uri": f"oci://{references['geography']}-gone"}, resources=small(gpu={"count": 1}))
    )
    cluster.wait_reason(name, "ModelImagePullFailed")
    assert "Paris" in ask(cluster, name, "What is the capital of France?")
    alive = {p["metadata"]["uid"] for p in cluster.list("pods", f"agentoperator.dev/agent={name}")}
    assert pods <= alive
    cluster.apply(agent(name, tuning={"mode": "Auto"}, resources=small(gpu={"count": 1})))
    cluster.wait_reason(name, "FeatureNotSupported")
    assert "Paris" in ask(cluster, name, "What is the capital of France?")
    assert pods <= {p["metadata"]["uid"] for p in cluster.list("pods", f"agentoperator.dev/agent={name}")}
