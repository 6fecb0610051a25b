"""Whatever happens in whatever order, the agent converges, safely."""

from __future__ import annotations

from copy import deepcopy
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_operator.core.children.metadata import Owner
from agent_operator.core.observed import observe, revision_states
from agent_operator.core.plan import Apply, Delete, Plan
from tests.property.world import (
    REVISION,
    World,
    mount_failure,
    set_container,
    set_creating,
    set_ready,
    set_unschedulable,
    terminated,
)

MODELS = [f"oci://registry.example.com/models/geography:v{n}" for n in range(1, 4)]
POD_STATES = ["ready", "crash", "pending", "oom", "mount"]
TOOL = {
    "name": "weather",
    "http": {"url": "http://weather", "description": "The weather."},
    "tokenSecretRef": {"name": "weather"},
}
CRASH = '{"code":"ModelNotFound","message":"no config.json in /models/model","remedy":"correct the URI"}'

events = st.lists(
    st.one_of(
        st.tuples(st.just("reconcile")),
        st.tuples(st.just("reconcile")),
        st.tuples(st.just("controllers")),
        st.tuples(st.just("controllers")),
        st.tuples(st.just("model"), st.sampled_from(MODELS)),
        st.tuples(st.just("replicas"), st.integers(0, 3)),
        st.tuples(st.just("suspend"), st.booleans()),
        st.tuples(st.just("runtime"), st.sampled_from([None, {"image": "registry.example.com/own:1"}])),
        st.tuples(st.just("agent"), st.sampled_from([None, {"tools": [TOOL], "sessions": {}}])),
        st.tuples(st.just("access"), st.sampled_from([None, {"apiKeysSecretRef": {"name": "keys"}}])),
        st.tuples(st.just("unsupported"), st.booleans()),
        st.tuples(st.just("pod"), st.integers(0, 9), st.sampled_from(POD_STATES)),
        st.tuples(st.just("delete-child"), st.integers(0, 9)),
        st.tuples(st.just("edit-deployment"), st.integers(0, 9)),
        st.tuples(st.just("edit-service"), st.sampled_from(["selector", "port"])),
        st.tuples(st.just("upgrade"), st.integers(1, 3)),
        st.tuples(st.just("pause"), st.booleans()),
        st.tuples(st.just("lose-status")),
    ),
    max_size=40,
)
slow = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def happen(world: World, event: tuple[Any, ...]) -> None:
    """One event of the outer world, or one reconcile with its safety checks."""
    kind, *rest = event
    if kind == "reconcile":
        reconcile_safely(world)
    elif kind == "controllers":
        world.run_controllers()
    elif kind == "model":
        world.change(model={"uri": rest[0]})
    elif kind in ("replicas", "suspend", "runtime", "agent", "access"):
        world.change(**{kind: rest[0]})
    elif kind == "unsupported":
        world.change(tuning={"mode": "Auto"} if rest[0] else None)
    elif kind == "pod" and world.pods:
        change_pod(world, world.pods[rest[0] % len(world.pods)], rest[1])
    elif kind == "delete-child" and world.objects:
        world.remove(*sorted(world.objects)[rest[0] % len(world.objects)])
    elif kind == "edit-deployment" and world.deployments():
        edited = world.deployments()[rest[0] % len(world.deployments())]
        edited["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example.com/hijacked:1"
        edited["spec"]["replicas"] = 1
        edited["metadata"]["generation"] += 1
    elif kind == "edit-service":
        edit_service(world, rest[0])
    elif kind == "upgrade":
        world.image = f"registry.example.com/runtime:{rest[0]}"
    elif kind == "pause":
        world.agent["metadata"]["annotations"] = {"agentoperator.dev/paused": "true"} if rest[0] else {}
    elif kind == "lose-status":
        world.agent.pop("status", None)


def change_pod(world: World, pod: dict[str, Any], state: str) -> None:
    if state == "ready":
        set_ready(pod)
    elif state == "crash":
        set_container(pod, state=terminated(world.now, message=CRASH), restartCount=3)
    elif state == "oom":
        set_container(pod, state=terminated(world.now, code=137, reason="OOMKilled"), restartCount=1)
    elif state == "mount":
        set_creating(pod, world.now - timedelta(seconds=7))
        note = 'MountVolume.SetUp failed for volume "runtime-secrets" : secret "weather" not found'
        world.warnings.append(mount_failure(pod, note, world.now))
    else:
        set_unschedulable(pod, "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    world.count()


def edit_service(world: World, field: str) -> None:
    service = world.objects.get(("Service", "geography"))
    if service is None:
        return
    if field == "selector":
        service["spec"]["selector"][REVISION] = "bcdfghjk"
    else:
        service["spec"]["ports"][0]["port"] = 81


def reconcile_safely(world: World) -> Plan:
    """One reconcile; before it is carried out it must be pure and must not hurt what serves."""
    before = deepcopy(world.snapshot())
    plan = world.plan()
    assert world.snapshot() == before, "the snapshot was changed"
    assert world.plan() == plan, "the same snapshot gave another plan"
    wants_pods = not world.agent["spec"].get("suspend") and world.agent["spec"].get("replicas", 1) > 0
    for write in plan.writes:
        if isinstance(write, Apply) and write.object["kind"] == "Service" and wants_pods:
            aimed = write.object["spec"]["selector"][REVISION]
            assert not seen_healthy(world) or aimed in seen_healthy(world), "moved to what is not ready"
        if isinstance(write, Delete) and write.kind == "Deployment":
            assert seen_healthy(world) - {write.name[-8:]} or write.name[-8:] not in seen_healthy(world), (
                "the last healthy revision was deleted"
            )
    world.carry_out(plan)
    return plan


def seen_healthy(world: World) -> set[str]:
    """Revisions with ready pods as the Deployments tell it, which is all the operator can know."""
    owner = Owner(*(world.agent["metadata"][k] for k in ("name", "namespace", "uid")))
    states = revision_states(observe(world.snapshot(), owner), None, 1)
    return {state.revision for state in states if state.ready > 0}


@slow
@given(events)
def test_from_any_history_the_newest_spec_is_reached_and_then_nothing_is_written(
    history: list[tuple[Any, ...]],
) -> None:
    world = World()
    for event in history:
        happen(world, event)

    world.agent["metadata"].pop("annotations", None)
    world.change(tuning=None)
    for _ in range(8):
        reconcile_safely(world)
        world.run_controllers()
        world.all_ready()

    last = reconcile_safely(world)
    assert last.writes == () and last.status is None, (last, world.agent["status"])
    spec, status = world.agent["spec"], world.agent["status"]
    wanted = 0 if spec.get("suspend") else spec.get("replicas", 1)
    (deployment,) = world.deployments()
    pod = deployment["spec"]["template"]["spec"]
    assert deployment["spec"]["replicas"] == wanted
    assert next(v for v in pod["volumes"] if v["name"] == "model")["image"]["reference"] == spec["model"][
        "uri"
    ].removeprefix("oci://")
    assert pod["containers"][0]["image"].startswith(
        "registry.example.com/own:1" if spec.get("runtime") else "registry.example.com/runtime:"
    )
    assert world.selected == status["updateRevision"] == deployment["metadata"]["name"][-8:]
    assert len([k for k in world.objects if k[0] == "ConfigMap"]) == 1
    assert world.objects["Service", "geography"]["spec"]["ports"][0]["port"] == 80
    ready = world.condition("Ready")
    assert (ready["status"] == "True") == (wanted > 0)
    assert ready["observedGeneration"] == world.agent["metadata"]["generation"]


@slow
@given(events)
def test_between_events_reconciling_comes_to_rest(history: list[tuple[Any, ...]]) -> None:
    world = World()
    for event in history:
        happen(world, event)
        world.settle()


@slow
@given(events)
def test_conditions_never_contradict_each_other(history: list[tuple[Any, ...]]) -> None:
    world = World()
    for event in history:
        happen(world, event)
        world.settle()
        status = {c["type"]: c["status"] for c in world.agent["status"]["conditions"]}
        assert not (status["Reconciling"] == "True" and status["Stalled"] == "True")
        if status["Ready"] == "True":
            assert world.selected in seen_healthy(world), "Ready over a dead pod"
