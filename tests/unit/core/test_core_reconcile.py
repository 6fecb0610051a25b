"""The product in scenes: what is written, what is told, what is left alone."""

from __future__ import annotations

from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest

from agent_operator.core.plan import Apply, Delete
from agent_operator.core.reconcile import reconcile
from agent_operator.core.snapshot import ApplyFailure, Snapshot
from agent_runtime.contract import FailureCode, RuntimeConfig, TerminationReport
from tests.property.world import (
    World,
    agent,
    kinds,
    mount_failure,
    ready_world,
    set_container,
    set_creating,
    set_ready,
    set_unschedulable,
    terminated,
)

CHILDREN = ["ConfigMap", "Deployment", "Service"]
NEW_MODEL = {"uri": "oci://registry.example.com/models/geography:v2"}
NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: none"


def told(world: World, kind: str = "Ready") -> tuple[str, str]:
    condition = world.condition(kind)
    return condition["status"], condition["reason"]


def gpu_world() -> World:
    return ready_world(agent(resources={"gpu": {"count": 1}}))


def rolling(world: World) -> World:
    """The world after the model was changed: the new pod exists and is not ready."""
    world.change(model=NEW_MODEL)
    world.settle()
    world.run_controllers()
    world.settle()
    return world


def new_pod(world: World) -> dict[str, Any]:
    return next(
        p for p in world.pods if world.agent["status"]["updateRevision"] in str(p["metadata"]["labels"])
    )


# Creation.


def test_creation_costs_one_write_for_each_child_and_two_of_status() -> None:
    world = World()
    first = world.step()
    assert kinds(first.writes) == CHILDREN
    assert all(isinstance(w, Apply) and w.uid is None for w in first.writes)
    assert told(world) == ("False", "Progressing")
    for state in ("ContainerCreating", "PodInitializing"):
        world.run_controllers()
        for pod in world.pods:
            set_container(pod, state={"waiting": {"reason": state}})
        assert (world.step().writes, world.status_writes) == ((), 1)
    world.all_ready()
    plan = world.step()
    assert plan.writes == ()
    assert (first.events, plan.events) == ((), ())
    assert (first.urgent, plan.urgent) == (False, True)
    assert world.status_writes == 2


def test_a_ready_agent_says_so_in_every_field() -> None:
    world = gpu_world()
    status = world.agent["status"]
    revision = world.deployments()[0]["metadata"]["name"][-8:]
    assert {k: v for k, v in status.items() if k != "conditions"} == {
        "observedGeneration": 1,
        "replicas": 1,
        "readyReplicas": 1,
        "ready": "1/1",
        "selector": "agentoperator.dev/agent=geography",
        "model": "geography:v1",
        "gpu": "1",
        "url": "http://geography.default.svc",
        "currentRevision": revision,
        "updateRevision": revision,
    }
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "Degraded": "False",
        "Validated": "Unknown",
        "ScalingActive": "False",
    }


def test_the_runtime_is_told_what_the_spec_says() -> None:
    world = ready_world(agent(agent={"systemPrompt": "Be brief."}, health={"stallSeconds": 90}))
    (data,) = (o["data"] for (kind, _), o in world.objects.items() if kind == "ConfigMap")
    config = RuntimeConfig.model_validate_json(data["config.json"])
    assert (config.name, config.namespace) == ("geography", "default")
    assert config.revision == world.agent["status"]["currentRevision"]
    assert (config.model.path, config.model.served_name) == ("/models/model", "geography")
    assert (config.agent.system_prompt, config.stall_seconds) == ("Be brief.", 90.0)


def test_a_volume_claim_is_mounted_whole_and_the_runtime_told_the_path() -> None:
    world = ready_world(agent(model={"uri": "pvc://models/some/where"}))
    (data,) = (o["data"] for (kind, _), o in world.objects.items() if kind == "ConfigMap")
    assert RuntimeConfig.model_validate_json(data["config.json"]).model.path == "/models/model/some/where"
    pod = world.deployments()[0]["spec"]["template"]["spec"]
    claim = next(v for v in pod["volumes"] if v["name"] == "model")["persistentVolumeClaim"]
    assert claim == {"claimName": "models", "readOnly": True}
    mount = next(m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "model")
    assert (mount["readOnly"], mount.get("subPath")) == (True, None)


def test_a_remote_model_is_shown_by_its_name_and_needs_no_volume() -> None:
    remote = {"baseUrl": "https://llm.example.com/v1", "model": "large-chat"}
    world = ready_world(agent(model={"remote": remote}))
    assert (world.agent["status"]["model"], world.agent["status"]["gpu"]) == ("large-chat", "-")
    assert told(world) == ("True", "Ready")
    pod = world.deployments()[0]["spec"]["template"]["spec"]
    assert [v["name"] for v in pod["volumes"]] == ["config", "cache", "tmp"]


def test_sessions_in_memory_with_several_replicas_work_and_the_status_says_what_that_means() -> None:
    world = ready_world(agent(agent={"sessions": {}}, replicas=2))
    assert told(world) == ("True", "Ready")
    message = world.condition("Ready")["message"]
    assert "memory of one replica" in message
    assert "spec.agent.sessions.store Redis" in message
    assert world.condition("Reconciling")["message"] == ""
    world.change(replicas=1)
    world.settle()
    world.run_controllers()
    world.settle()
    assert "memory" not in world.condition("Ready")["message"]


@pytest.mark.parametrize(
    "uri", ["pvc://models/../etc", "pvc://models//x", "pvc://models/.hidden", "pvc:///x"]
)
def test_a_path_out_of_the_volume_is_refused(uri: str) -> None:
    world = World(agent(model={"uri": uri}))
    assert world.step().writes == ()
    assert told(world) == ("False", "InvalidSpec")
    assert "spec.model.uri" in world.condition("Ready")["message"]


# Rest and repair.


def test_a_ready_agent_costs_nothing_even_after_a_restart_or_upgrade_of_the_operator() -> None:
    world = gpu_world()
    world.now += timedelta(days=1)
    world.image = "registry.example.com/runtime:2"
    plan = world.plan()
    assert (plan.writes, plan.status, plan.events, plan.requeue_after) == ((), None, (), None)


def test_a_new_rendering_of_the_pod_restarts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = gpu_world()
    monkeypatch.setattr("agent_operator.core.children.pod.PRE_STOP_SECONDS", 7)
    assert world.plan().writes == ()


@pytest.mark.parametrize("kind", CHILDREN)
def test_a_deleted_child_is_made_again(kind: str) -> None:
    world = gpu_world()
    name = next(name for k, name in world.objects if k == kind)
    world.remove(kind, name)
    assert [(w.object["kind"], w.object["metadata"]["name"]) for w in world.step().writes] == [(kind, name)]


def test_an_edited_child_is_put_back_by_uid() -> None:
    world = gpu_world()
    service = world.objects["Service", "geography"]
    service["spec"]["selector"]["agentoperator.dev/revision"] = "elsewhere"
    (write,) = world.step().writes
    assert write.uid == service["metadata"]["uid"]
    assert world.selected == world.agent["status"]["currentRevision"]


def test_an_image_edited_into_the_deployment_is_put_back_although_the_operator_was_upgraded() -> None:
    world = gpu_world()
    world.image = "registry.example.com/runtime:2"
    container = world.deployments()[0]["spec"]["template"]["spec"]["containers"][0]
    container["image"] = "registry.example.com/hijacked:1"
    assert kinds(world.step().writes) == ["Deployment"]
    (deployment,) = world.deployments()
    assert (
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example.com/runtime:1"
    )


def test_the_serving_revision_is_repaired_and_scaled_although_the_spec_has_moved_on() -> None:
    world = rolling(gpu_world())
    serving = next(d for d in world.deployments() if world.selected in d["metadata"]["name"])
    serving["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example.com/hijacked:1"
    world.change(replicas=2)
    world.settle()
    serving = next(d for d in world.deployments() if world.selected in d["metadata"]["name"])
    assert serving["spec"]["replicas"] == 2
    assert serving["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example.com/runtime:1"


def test_a_child_that_is_being_deleted_is_waited_for() -> None:
    world = gpu_world()
    service = world.objects["Service", "geography"]
    service["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    service["spec"]["selector"] = {}
    assert world.plan().writes == ()


def test_an_object_of_somebody_else_is_neither_changed_nor_deleted() -> None:
    world = gpu_world()
    stranger = deepcopy(world.deployments()[0])
    stranger["metadata"] |= {"name": "geography-bcdfghjk", "uid": "x", "ownerReferences": []}
    world.objects["Deployment", "geography-bcdfghjk"] = stranger
    assert world.plan().writes == ()


def test_an_agent_that_is_being_deleted_is_left_to_the_garbage_collector() -> None:
    world = gpu_world()
    world.agent["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    plan = world.plan()
    assert (plan.writes, plan.status, plan.events) == ((), None, ())


# Refused specifications.


def test_a_feature_that_is_not_built_is_refused_by_name_and_what_runs_is_left_alone() -> None:
    world = gpu_world()
    before = deepcopy(world.objects)
    world.change(tuning={"mode": "Auto"}, model=NEW_MODEL)
    plan = world.step()
    assert plan.writes == ()
    assert world.objects == before
    assert told(world) == ("False", "FeatureNotSupported")
    assert told(world, "Stalled") == ("True", "FeatureNotSupported")
    assert told(world, "Reconciling")[0] == "False"
    message = world.condition("Ready")["message"]
    assert "spec.tuning" in message
    assert "use Disabled" in message
    assert f"Revision {world.selected} keeps running" in message
    assert (world.agent["status"]["readyReplicas"], world.agent["status"]["observedGeneration"]) == (1, 2)
    assert [(e.type, e.reason) for e in plan.events] == [("Warning", "FeatureNotSupported")]
    assert world.plan().status is None


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"replicas": "three"}, "spec.replicas"),
        ({"modle": {}}, "spec.modle"),
        ({"model": {"uri": "ftp://x"}}, "spec.model.uri"),
        ({"model": {}}, "spec.model"),
        (
            {"model": {"uri": "hf://a/b", "remote": {"baseUrl": "https://x/v1", "model": "y"}}},
            "spec.model",
        ),
        ({"agent": {"decision": {"temperature": "0"}}}, "spec.agent.decision.temperature"),
        ({"runtime": {"logging": {"path": "/etc/agent/agent.log"}}}, "spec.runtime.logging.path"),
        ({"resources": {"gpu": {"count": -1}}}, "spec.resources.gpu.count"),
    ],
)
def test_a_spec_that_the_schema_would_have_refused_is_told_by_path(spec: dict[str, Any], path: str) -> None:
    world = World(agent(**spec))
    assert world.step().writes == ()
    assert told(world) == ("False", "InvalidSpec")
    assert path in world.condition("Stalled")["message"]


def test_a_spec_made_good_again_goes_on() -> None:
    world = gpu_world()
    world.change(tuning={"mode": "Auto"})
    world.settle()
    world.change(tuning=None)
    world.settle()
    assert told(world) == ("True", "Ready")
    assert told(world, "Stalled") == ("False", "AsExpected")


# Rolling to another revision.


def test_the_service_moves_when_the_new_revision_is_ready_and_the_old_one_goes_after_that() -> None:
    world = rolling(gpu_world())
    old, new = world.selected, world.agent["status"]["updateRevision"]
    assert old == world.agent["status"]["currentRevision"] != new
    assert told(world) == ("True", "Progressing")
    assert told(world, "Reconciling") == ("True", "Progressing")

    world.all_ready()
    moved = world.step()
    assert kinds(moved.writes) == ["Service"]
    assert world.selected == world.agent["status"]["currentRevision"] == new
    assert [e.reason for e in moved.events] == ["RevisionPromoted"]

    removed = world.step()
    assert kinds(removed.writes) == ["-Deployment", "-ConfigMap"]
    assert all(isinstance(w, Delete) and w.name == f"geography-{old}" and w.uid for w in removed.writes)
    assert world.settle()[0].writes == ()
    assert told(world) == ("True", "Ready")
    assert told(world, "Reconciling") == ("False", "AsExpected")


def test_counts_of_an_older_generation_of_the_deployment_promote_nothing() -> None:
    world = rolling(gpu_world())
    old = world.selected
    world.all_ready()
    new = next(d for d in world.deployments() if old not in d["metadata"]["name"])
    new["metadata"]["generation"] += 1
    assert world.step().writes == ()
    assert world.selected == old


def test_a_rollout_costs_three_status_writes_at_most() -> None:
    world = gpu_world()
    before = world.status_writes
    rolling(world)
    world.all_ready()
    world.settle()
    assert world.status_writes - before <= 3


def test_a_spec_changed_back_uses_the_revision_that_still_serves() -> None:
    world = gpu_world()
    first = deepcopy(world.agent["spec"]["model"])
    rolling(world)
    world.change(model=first)
    plan = world.step()
    assert kinds(plan.writes) == ["-Deployment", "-ConfigMap"]
    world.settle()
    assert told(world) == ("True", "Ready")


def test_superseded_attempts_are_removed_at_once_and_the_healthy_one_kept() -> None:
    world = rolling(gpu_world())
    serving = world.selected
    for version in ("v3", "v4"):
        world.change(model={"uri": f"oci://registry.example.com/models/geography:{version}"})
        world.settle()
        world.run_controllers()
    assert {d["metadata"]["name"][-8:] for d in world.deployments()} == {
        serving,
        world.agent["status"]["updateRevision"],
    }


def test_a_broken_first_attempt_gives_its_gpu_to_the_next_one() -> None:
    world = World(agent(resources={"gpu": {"count": 1}}))
    world.settle()
    world.run_controllers()
    world.change(model=NEW_MODEL)
    plan = world.step()
    assert "-Deployment" in kinds(plan.writes)
    assert len(world.deployments()) == 1


def test_without_a_gpu_for_the_new_revision_the_old_one_serves_and_the_status_says_why() -> None:
    world = rolling(gpu_world())
    set_unschedulable(new_pod(world), NO_GPU)
    plan = world.step()
    assert told(world) == ("True", "InsufficientGPU")
    assert told(world, "Reconciling") == ("True", "InsufficientGPU")
    assert told(world, "Degraded") == ("True", "InsufficientGPU")
    assert told(world, "Stalled")[0] == "False"
    (diagnosis,) = world.agent["status"]["diagnoses"]
    assert "asks for 1 nvidia.com/gpu" in diagnosis["evidence"]
    assert f"revision {world.selected} keeps serving" in diagnosis["remedy"]
    assert [(e.type, e.reason) for e in plan.events] == [("Warning", "InsufficientGPU")]
    assert world.plan().status is None


def test_a_passed_deadline_needs_somebody() -> None:
    world = rolling(gpu_world())
    set_unschedulable(new_pod(world), NO_GPU)
    late = next(d for d in world.deployments() if world.selected not in d["metadata"]["name"])
    condition = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    late["status"]["conditions"] = [condition]
    world.step()
    assert told(world, "Stalled") == ("True", "InsufficientGPU")
    assert told(world, "Reconciling")[0] == "False"
    late["status"]["conditions"].append({"type": "Available", "status": "False"})
    new_pod(world)["status"] = {"phase": "Pending"}
    world.step()
    assert told(world, "Stalled") == ("True", "ProgressDeadlineExceeded")


# Faults.


def test_a_wrong_model_path_is_told_with_path_and_remedy_before_it_ever_was_ready() -> None:
    world = World(agent(model={"uri": "pvc://models/lost"}))
    world.settle()
    world.run_controllers()
    report = TerminationReport(
        code=FailureCode.MODEL_NOT_FOUND,
        message="/models/model/lost does not exist",
        remedy="correct the URI",
    )
    set_container(world.pods[0], state=terminated(world.now, 1, report.encode()))
    plan = world.step()
    assert told(world) == ("False", "ModelNotFound")
    message = world.condition("Ready")["message"]
    assert "/models/model/lost does not exist" in message
    assert "correct the URI" in message
    assert told(world, "Stalled")[0] == "False"
    assert [(e.type, e.reason) for e in plan.events] == [("Warning", "ModelNotFound")]


GATED = {"uri": "hf://organisation/model", "tokenSecretRef": {"name": "hub"}}
NO_SECRET = 'MountVolume.SetUp failed for volume "runtime-secrets" : secret "hub" not found'


def creating(seconds: float) -> World:
    """A world whose only pod has waited so long for its volumes."""
    world = World(agent(model=GATED))
    world.settle()
    world.run_controllers()
    set_creating(world.pods[0], world.now - timedelta(seconds=seconds))
    return world


def test_a_pod_that_has_just_got_its_node_is_looked_at_again_when_mounting_takes_too_long() -> None:
    plan = creating(1).plan()
    assert (plan.inspect, plan.requeue_after) == ((), 4.0)
    assert plan.status is None


def test_the_events_of_a_pod_that_waits_are_asked_for_ever_more_rarely() -> None:
    for waited, again in ((5, 5), (10, 10), (80, 80), (600, 120)):
        world = creating(waited)
        plan = world.plan()
        assert [pod.uid for pod in plan.inspect] == [world.pods[0]["metadata"]["uid"]]
        assert plan.requeue_after == again


def test_a_missing_secret_is_told_with_its_name_and_the_field_that_asks_for_it() -> None:
    world = creating(6)
    world.warnings = [mount_failure(world.pods[0], NO_SECRET, world.now)]
    plan = world.step()
    assert told(world) == ("False", "SecretNotFound")
    message = world.condition("Ready")["message"]
    assert 'secret "hub" not found' in message
    assert (
        "create Secret hub with key token in this namespace, or correct spec.model.tokenSecretRef" in message
    )
    assert told(world, "Reconciling") == ("True", "SecretNotFound")
    assert told(world, "Stalled")[0] == "False"
    assert [(e.type, e.reason) for e in plan.events] == [("Warning", "SecretNotFound")]
    world.now += timedelta(seconds=30)
    world.warnings = [mount_failure(world.pods[0], NO_SECRET, world.now)]
    assert world.plan().status is None


def test_a_secret_that_was_created_is_not_told_missing_any_more() -> None:
    world = creating(6)
    world.warnings = [mount_failure(world.pods[0], NO_SECRET, world.now)]
    world.step()
    set_container(world.pods[0], state={"running": {}})
    world.step()
    assert told(world) == ("False", "Progressing")
    assert "diagnoses" not in world.agent["status"]


def test_a_missing_secret_of_a_new_revision_leaves_the_old_one_serving() -> None:
    world = rolling(gpu_world())
    world.change(model=GATED)
    world.settle()
    world.run_controllers()
    pod = new_pod(world)
    set_creating(pod, world.now - timedelta(seconds=9))
    world.warnings = [mount_failure(pod, NO_SECRET, world.now)]
    world.step()
    assert told(world) == ("True", "SecretNotFound")


def test_a_fault_keeps_the_time_it_was_first_seen() -> None:
    world = World()
    world.settle()
    world.run_controllers()
    set_container(world.pods[0], state=terminated(world.now, 1, "boom"), restartCount=1)
    world.step()
    first = world.agent["status"]["diagnoses"][0]
    world.now += timedelta(minutes=5)
    set_container(world.pods[0], state=terminated(world.now, 1, "bang"), restartCount=2)
    world.step()
    second = world.agent["status"]["diagnoses"][0]
    assert first["firstSeen"] == second["firstSeen"]
    assert first["evidence"] != second["evidence"]


def test_a_killed_runtime_is_told_while_it_is_down_and_for_ten_minutes_after() -> None:
    world = gpu_world()
    killed = terminated(world.now, 137)
    set_container(world.pods[0], state=killed)
    world.count()
    world.step()
    assert told(world) == ("False", "RuntimeCrashed")
    set_container(world.pods[0], state={"running": {}}, lastState=killed, restartCount=1)
    assert world.plan().status is None
    set_ready(world.pods[0])
    world.count()
    plan = world.step()
    assert told(world) == ("True", "Ready")
    assert "SIGKILL" in world.condition("Ready")["message"]
    assert world.agent["status"]["diagnoses"][0]["reason"] == "RuntimeRestarted"
    assert [e.reason for e in plan.events] == ["Ready", "RuntimeRestarted"]
    assert plan.requeue_after == pytest.approx(599)
    world.now += timedelta(seconds=600)
    world.step()
    assert "diagnoses" not in world.agent["status"]
    assert world.plan().requeue_after is None


def test_ready_means_a_pod_answers_and_its_reason_how_many() -> None:
    world = ready_world(agent(replicas=2))
    world.pods[0]["status"] = {"phase": "Running"}
    world.count()
    world.step()
    assert told(world) == ("True", "PartiallyReady")
    assert world.agent["status"]["ready"] == "1/2"
    world.pods[1]["status"] = {"phase": "Running"}
    world.count()
    plan = world.step()
    assert told(world)[0] == "False"
    assert [(e.type, e.reason) for e in plan.events] == [("Warning", "NotReady")]


def test_a_taken_name_needs_somebody_and_is_tried_again() -> None:
    world = World()
    blocked = (ApplyFailure("Service", "geography", "NameTaken", "Service 'geography' is not ours"),)
    world.carry_out(world.plan())
    world.remove("Service", "geography")
    seen = world.snapshot()
    plan = reconcile(Snapshot(seen.agent, seen.children, seen.pods, seen.defaults, blocked), world.now)
    assert kinds(plan.writes) == ["Service"]
    world.agent["status"] = plan.status
    assert told(world) == ("False", "ChildNameTaken")
    assert told(world, "Stalled") == ("True", "ChildNameTaken")


def test_pods_that_a_quota_refuses_are_counted_as_they_are() -> None:
    world = World(agent(replicas=3))
    world.settle()
    refused = {
        "type": "ReplicaFailure",
        "status": "True",
        "message": "pods is forbidden: exceeded quota: few",
    }
    world.deployments()[0]["status"] = {"observedGeneration": 1, "conditions": [refused]}
    world.step()
    assert told(world) == ("False", "QuotaExceeded")
    assert world.agent["status"]["replicas"] == 0


# Scaling, suspending, pausing.


def test_scaling_writes_the_deployment_only_and_rolls_nothing() -> None:
    world = gpu_world()
    revision = world.selected
    world.change(replicas=3)
    plan = world.step()
    assert kinds(plan.writes) == ["Deployment", "PodDisruptionBudget"]
    assert (world.selected, world.deployments()[0]["spec"]["replicas"]) == (revision, 3)
    assert told(world) == ("True", "PartiallyReady")
    assert world.agent["status"]["replicas"] == 3


def test_suspend_removes_the_pods_and_keeps_the_children() -> None:
    world = gpu_world()
    names = set(world.objects)
    world.change(suspend=True)
    world.settle()
    world.run_controllers()
    world.settle()
    assert set(world.objects) == names
    assert world.deployments()[0]["spec"]["replicas"] == 0
    assert told(world) == ("False", "Suspended")
    assert told(world, "Reconciling") == ("False", "AsExpected")
    world.change(suspend=False)
    world.settle()
    world.run_controllers()
    world.all_ready()
    world.settle()
    assert told(world) == ("True", "Ready")


def test_a_paused_agent_is_watched_and_not_touched() -> None:
    world = gpu_world()
    world.agent["metadata"]["annotations"] = {"agentoperator.dev/paused": "true"}
    world.change(model=NEW_MODEL, replicas=5)
    world.remove("ConfigMap", next(name for kind, name in world.objects if kind == "ConfigMap"))
    plan = world.step()
    assert plan.writes == ()
    assert told(world) == ("True", "Paused")
    assert told(world, "Reconciling") == ("False", "Paused")
    world.pods[0]["status"] = {}
    world.count()
    world.step()
    assert told(world) == ("False", "Paused")
    world.agent["metadata"]["annotations"] = {}
    assert "PodDisruptionBudget" in kinds(world.step().writes)


# Conditions.


def test_a_transition_time_changes_with_the_status_only() -> None:
    world = gpu_world()
    since = world.condition("Ready")["lastTransitionTime"]
    world.now += timedelta(hours=1)
    rolling(world)
    assert told(world) == ("True", "Progressing")
    assert world.condition("Ready")["lastTransitionTime"] == since
    assert world.condition("Reconciling")["lastTransitionTime"] != since
    assert {c["observedGeneration"] for c in world.agent["status"]["conditions"]} == {2}


def test_conditions_of_other_writers_and_the_order_of_keys_cause_no_write() -> None:
    world = gpu_world()
    status = world.agent["status"]
    status["conditions"] = [
        {"type": "example.com/Theirs", "status": "True"},
        *({k: c[k] for k in reversed(c)} for c in reversed(status["conditions"])),
    ]
    status["diagnoses"] = []
    world.agent["status"] = dict(reversed(status.items()))
    assert world.plan().status is None
