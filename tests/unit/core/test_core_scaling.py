"""Native scaling, sleeping and waking, lost replicas, and what the status tells of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agent_operator.core import autoscale
from agent_operator.core.autoscale import Memory, Observation
from agent_operator.core.capacity import Places, capacity, node_totals, relevant_quotas
from agent_operator.core.children.gateway import BEHIND_GATEWAY
from agent_operator.core.policy import policy
from agent_operator.core.request import Request, read
from agent_operator.core.signals import PodSample, Signals
from agent_operator.core.victims import DELETION_COST, FIRST, ORDINARY
from tests.property.world import World, agent, kinds, ready_world, set_unschedulable

GATEWAY = Signals(free_port=20_100, gateways=("10.0.0.7", "10.0.0.8"))
SLEEPY = {"minReplicas": 0, "maxReplicas": 4, "targetConcurrency": 2, "scaleDownDelaySeconds": 30}


def scaled_world(signals: Signals = GATEWAY, **scaling: Any) -> World:
    """A world in which an agent scaled by the operator serves with one replica."""
    world = World(agent(autoscaling={**SLEEPY, **scaling}))
    world.signals = signals
    world.settle()
    world.run_controllers()
    world.all_ready()
    world.settle()
    return world


def watched(world: World, seconds: int, concurrency: float, held: int = 0) -> None:
    """So many seconds pass, with a sample of this load in each; nothing is decided meanwhile."""
    asked = read(world.agent)
    assert isinstance(asked, Request) and asked.spec.autoscaling is not None
    rules = policy(asked.spec.autoscaling)
    memory: Memory = world.signals.memory
    ready = len(world.pods)
    for _ in range(seconds):
        world.now += timedelta(seconds=1)
        seen = Observation(
            at=world.now.timestamp(), concurrency=concurrency, held=held, queued_tokens=0.0,
            p95_seconds=None, ready=ready, answered=ready,
        )  # fmt: skip
        memory = autoscale.observe(memory, seen, rules)
    each = concurrency / ready if ready else 0
    samples = {
        pod["metadata"]["name"]: PodSample(at=world.now.timestamp(), running=round(each))
        for pod in world.pods
    }
    world.signals = replace(world.signals, memory=memory, held=held, samples=samples)


def replicas(world: World) -> int:
    (deployment,) = world.deployments()
    found: int = deployment["spec"]["replicas"]
    return found


def settle(world: World) -> None:
    """Decide, let the controllers and the kubelet follow, and decide again."""
    world.settle()
    world.run_controllers()
    world.all_ready()
    world.settle()


def told(world: World, kind: str = "Ready") -> tuple[str, str]:
    condition = world.condition(kind)
    return condition["status"], condition["reason"]


# The number of replicas.


def test_a_jump_of_load_gets_replicas_and_the_status_says_why() -> None:
    world = scaled_world()
    watched(world, 2, concurrency=7.0)
    settle(world)
    assert replicas(world) == 4
    scaling = world.agent["status"]["scaling"]
    assert (scaling["desired"], world.agent["status"]["replicas"]) == (4, 4)
    assert scaling["history"][0]["fromReplicas"] == 1
    assert "7" in scaling["reason"] and "in flight" in scaling["reason"]
    assert told(world, "ScalingActive") == ("True", "Autoscaling")
    assert world.agent["spec"].get("replicas") is None, "spec.replicas is not ours to write"


def test_less_load_takes_replicas_away_only_after_the_delay_and_the_idle_ones_first() -> None:
    world = scaled_world()
    watched(world, 2, concurrency=7.0)
    settle(world)
    watched(world, 20, concurrency=2.0)
    settle(world)
    assert replicas(world) == 4
    watched(world, 70, concurrency=2.0)
    names = [pod["metadata"]["name"] for pod in world.pods]
    busy = dict.fromkeys(names, PodSample(at=world.now.timestamp(), running=2))
    busy[names[2]] = PodSample(at=world.now.timestamp(), running=0)
    world.signals = replace(world.signals, samples=busy)
    plan = world.step()
    wanted = world.agent["status"]["scaling"]["desired"]
    assert 1 <= wanted < 4
    assert kinds(plan.writes)[-1] == "Deployment" and set(kinds(plan.writes)[:-1]) == {"Pod"}
    costs = {
        p["metadata"]["name"]: p["metadata"].get("annotations", {}).get(DELETION_COST) for p in world.pods
    }
    assert costs[names[2]] == FIRST
    assert list(costs.values()).count(FIRST) == 4 - wanted


def test_a_pod_that_was_chosen_and_stayed_is_no_longer_the_first_to_go() -> None:
    world = scaled_world(**{"minReplicas": 1})
    watched(world, 2, concurrency=5.0)
    settle(world)
    assert replicas(world) == 3
    names = [pod["metadata"]["name"] for pod in world.pods]
    world.pods[0]["metadata"]["annotations"] = {DELETION_COST: FIRST}
    watched(world, 120, concurrency=3.0)
    samples = {
        name: PodSample(at=0.0, running=running) for name, running in zip(names, (3, 0, 1), strict=True)
    }
    world.signals = replace(world.signals, samples=samples)
    world.step()
    assert replicas(world) == 2
    costs = [pod["metadata"].get("annotations", {}).get(DELETION_COST) for pod in world.pods]
    assert costs == [ORDINARY, FIRST, None]


def test_kubectl_scale_is_a_request_that_is_followed_at_once_and_noted() -> None:
    world = scaled_world()
    world.change(replicas=3)
    settle(world)
    assert replicas(world) == 3
    scaling = world.agent["status"]["scaling"]
    assert (scaling["desired"], scaling["requested"]) == (3, 3)
    assert scaling["reason"].startswith("spec.replicas was set to 3")
    assert world.step().writes == ()


def test_suspend_wins_over_the_autoscaler_and_nothing_is_forgotten() -> None:
    world = scaled_world()
    watched(world, 2, concurrency=7.0)
    settle(world)
    world.change(suspend=True)
    world.settle()
    assert replicas(world) == 0
    assert told(world, "ScalingActive") == ("False", "Suspended")
    assert world.agent["status"]["scaling"]["desired"] == 4
    assert world.objects["EndpointSlice", "geography-gateway"]["endpoints"] == []
    world.change(suspend=None)
    world.settle()
    assert replicas(world) == 4


def test_the_history_is_bounded_and_the_newest_comes_first() -> None:
    world = scaled_world()
    for number in (2, 3, 4, 3, 4, 3, 4, 3, 4, 2, 3, 4):
        world.now += timedelta(seconds=1)
        world.change(replicas=number)
        world.settle()
    history = world.agent["status"]["scaling"]["history"]
    assert len(history) == 10
    assert (history[0]["fromReplicas"], history[0]["toReplicas"]) == (3, 4)


def test_replicas_that_tell_nothing_leave_the_number_as_it_is() -> None:
    world = scaled_world()
    assert told(world, "ScalingActive") == ("False", "SignalsMissing")
    world.now += timedelta(hours=3)
    world.settle()
    assert replicas(world) == 1


def test_what_can_never_be_placed_is_not_asked_for_and_the_condition_says_so() -> None:
    bound = autoscale.Capacity(fits=2, why="the nodes have 2 of nvidia.com/gpu, a replica needs 1")
    world = scaled_world(replace(GATEWAY, capacity=bound))
    watched(world, 3, concurrency=8.0)
    settle(world)
    assert replicas(world) == 2
    assert told(world, "ScalingActive") == ("True", "LimitedByCapacity")
    assert "nvidia.com/gpu" in world.condition("ScalingActive")["message"]


def test_a_schedule_that_cannot_be_understood_is_refused_with_its_field() -> None:
    window = {
        "name": "day",
        "start": "0 8 * * *",
        "end": "0 18 * * *",
        "minReplicas": 2,
        "timeZone": "Mars/Base",
    }
    world = World(agent(autoscaling={**SLEEPY, "schedules": [window]}))
    world.settle()
    assert told(world) == ("False", "InvalidSpec")
    assert "spec.autoscaling.schedules[0].timeZone" in world.condition("Ready")["message"]


# Sleeping and waking.


def asleep_world() -> World:
    world = scaled_world()
    watched(world, 200, concurrency=0.0)
    world.settle()
    assert replicas(world) == 0
    world.run_controllers()
    return world


def test_an_idle_agent_goes_to_sleep_and_the_gateway_is_there_before_the_last_replica_goes() -> None:
    world = scaled_world()
    watched(world, 200, concurrency=0.0)
    plan = world.step()
    assert kinds(plan.writes) == ["EndpointSlice", "Deployment"]
    endpoints = world.objects["EndpointSlice", "geography-gateway"]["endpoints"]
    assert [e["addresses"] for e in endpoints] == [["10.0.0.7"], ["10.0.0.8"]]
    world.run_controllers()
    world.settle()
    assert told(world) == ("False", "ScaledToZero")
    assert "gateway" in world.condition("Ready")["message"]


def test_a_held_request_wakes_it_and_the_gateway_goes_after_the_first_replica_is_ready() -> None:
    world = asleep_world()
    watched(world, 1, concurrency=0.0, held=3)
    world.settle()
    assert replicas(world) == 2
    assert told(world) == ("False", "Waking")
    world.run_controllers()
    assert world.step().writes == ()
    assert world.objects["EndpointSlice", "geography-gateway"]["endpoints"] != []
    world.all_ready()
    plan = world.step()
    assert kinds(plan.writes) == ["EndpointSlice"]
    assert world.objects["EndpointSlice", "geography-gateway"]["endpoints"] == []
    assert told(world) == ("True", "Ready")


def test_the_port_of_the_gateway_stays_when_another_would_be_free() -> None:
    world = scaled_world()
    world.signals = replace(world.signals, free_port=20_999)
    assert world.step().writes == ()
    assert world.objects["EndpointSlice", "geography-gateway"]["ports"][0]["port"] == 20_100


def test_without_a_gateway_an_agent_that_sleeps_says_that_nobody_wakes_it() -> None:
    world = scaled_world(Signals())
    watched(world, 200, concurrency=0.0)
    world.settle()
    assert told(world) == ("False", "ScaledToZero")
    assert "gateway.enabled=true" in world.condition("Ready")["message"]
    assert not any(kind == "EndpointSlice" for kind, _ in world.objects)


def test_a_crashed_single_replica_has_its_requests_held() -> None:
    world = scaled_world(**{"minReplicas": 0})
    watched(world, 3, concurrency=1.0)
    world.settle()
    world.pods[0]["status"]["conditions"][1]["status"] = "False"
    world.run_controllers()
    world.settle()
    assert world.objects["EndpointSlice", "geography-gateway"]["endpoints"] != []


def test_gateway_always_selects_no_pod_itself_and_gives_the_gateway_a_service_of_the_pods() -> None:
    world = World(agent(access={"gateway": "Always"}))
    world.signals = GATEWAY
    settle(world)
    selectors = services(world)
    revision = world.agent["status"]["currentRevision"]
    assert (
        selectors["geography"].items() >= {"agentoperator.dev/revision": revision, **BEHIND_GATEWAY}.items()
    )
    assert "agentoperator.dev/behind" not in selectors["geography-pods"]
    assert world.objects["EndpointSlice", "geography-gateway"]["endpoints"] != []


def services(world: World) -> dict[str, Any]:
    """The selectors of all Services."""
    return {name: o["spec"]["selector"] for (kind, name), o in world.objects.items() if kind == "Service"}


def test_a_gateway_that_is_to_stand_in_front_has_its_port_open_first() -> None:
    world = ready_world()
    world.signals = GATEWAY
    world.change(access={"gateway": "Always"})
    plan = world.step()
    assert set(kinds(plan.writes)) == {"Service", "EndpointSlice"}
    assert plan.requeue_after == 2.0
    slice_ = world.objects["EndpointSlice", "geography-gateway"]
    assert slice_["endpoints"] == []
    assert "agentoperator.dev/behind" not in services(world)["geography"]
    slice_["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    assert not world.step().writes
    world.now += timedelta(seconds=3)
    assert kinds(world.step().writes) == ["EndpointSlice", "Service"]
    assert slice_ != world.objects["EndpointSlice", "geography-gateway"]
    assert services(world)["geography"].items() >= BEHIND_GATEWAY.items()


def test_a_gateway_that_is_wanted_no_more_answers_until_everybody_has_heard() -> None:
    world = World(agent(access={"gateway": "Always"}))
    world.signals = GATEWAY
    settle(world)
    world.objects["EndpointSlice", "geography-gateway"]["metadata"]["creationTimestamp"] = (
        "2025-12-31T00:00:00Z"
    )
    settle(world)
    assert services(world)["geography"].items() >= BEHIND_GATEWAY.items()
    world.change(access=None)
    plan = world.step()
    assert plan.requeue_after is not None and plan.requeue_after <= 6.0
    assert "agentoperator.dev/behind" not in services(world)["geography"]
    assert world.objects["EndpointSlice", "geography-gateway"]["endpoints"] != []
    world.now += timedelta(seconds=7)
    world.settle()
    assert world.objects["EndpointSlice", "geography-gateway"]["endpoints"] == []
    world.now += timedelta(seconds=7)
    world.settle()
    assert [name for kind, name in world.objects if kind in ("Service", "EndpointSlice")] == ["geography"]


def test_the_gateway_of_an_agent_changes_no_revision() -> None:
    world = ready_world()
    before = world.agent["status"]["updateRevision"]
    world.signals = GATEWAY
    world.change(access={"gateway": "Always", "hold": {"maxRequests": 5}})
    settle(world)
    assert world.agent["status"]["updateRevision"] == before


# Replicas that count as ready and cannot answer.


@pytest.mark.parametrize("how", ["silent", "stalled"])
def test_a_lost_replica_turns_ready_with_the_reason(how: str) -> None:
    world = ready_world()
    name = world.pods[0]["metadata"]["name"]
    now = world.now.timestamp()
    if how == "silent":
        world.signals = Signals(samples={name: PodSample(at=now - 6)}, silent={name: now - 6})
    else:
        world.signals = Signals(samples={name: PodSample(at=now, running=1, stalled=True)})
    world.settle()
    reason = {"silent": "ReplicaSilent", "stalled": "ReplicaStalled"}[how]
    assert told(world) == ("False", reason)
    assert told(world, "Degraded") == ("True", reason)
    assert name in world.condition("Ready")["message"]
    world.signals = Signals(samples={name: PodSample(at=now)})
    world.settle()
    assert told(world) == ("True", "Ready")


def test_a_replica_that_missed_one_answer_is_not_lost() -> None:
    world = ready_world()
    name = world.pods[0]["metadata"]["name"]
    world.signals = Signals(silent={name: world.now.timestamp() - 3})
    assert world.step().status is None


def test_one_lost_replica_of_two_leaves_ready_true_and_says_which() -> None:
    world = ready_world(agent(replicas=2))
    name = world.pods[0]["metadata"]["name"]
    world.signals = Signals(silent={name: world.now.timestamp() - 8})
    world.settle()
    assert told(world) == ("True", "ReplicaSilent")
    assert world.agent["status"]["ready"] == "1/2"


# Numbers in the status.


def test_the_load_is_coarse_and_written_at_most_once_a_minute() -> None:
    world = ready_world()
    name = world.pods[0]["metadata"]["name"]

    def load(tokens: float, p95: float | None = 0.25) -> None:
        sample = PodSample(at=0.0, running=3, tokens_per_second=tokens, p95_seconds=p95)
        world.signals = Signals(samples={name: sample})

    load(1234.5)
    world.settle()
    shown = world.agent["status"]["load"]
    assert (shown["requests"], shown["tokensPerSecond"], shown["p95Milliseconds"]) == (3, 1200, 250)
    load(4000.0)
    assert world.step().status is None
    world.now += timedelta(seconds=61)
    load(1300.0)
    assert world.step().status is None, "near enough"
    load(4000.0)
    world.settle()
    assert world.agent["status"]["load"]["tokensPerSecond"] == 4000


def test_an_idle_agent_costs_no_write() -> None:
    world = ready_world()
    name = world.pods[0]["metadata"]["name"]
    world.signals = Signals(samples={name: PodSample(at=0.0)})
    world.settle()
    writes = world.status_writes
    for _ in range(100):
        world.now += timedelta(seconds=30)
        world.signals = Signals(samples={name: PodSample(at=world.now.timestamp(), cpu_seconds=5.0)})
        assert world.step().writes == ()
    assert world.status_writes == writes


# What can be placed.


def node(devices: int, **spec: Any) -> dict[str, Any]:
    return {"spec": spec, "status": {"allocatable": {"cpu": "8", "nvidia.com/gpu": str(devices)}}}


def test_devices_that_lie_on_several_nodes_hold_fewer_replicas_than_their_sum() -> None:
    places = Places(node_totals([node(4), node(3), node(8, unschedulable=True)]))
    found = capacity(agent(resources={"gpu": {"count": 2}}), [], places)
    assert (found.fits, found.free) == (3, None)
    assert "nvidia.com/gpu" in found.why


def test_a_quota_bounds_what_may_be_asked_for_and_says_what_is_left() -> None:
    quota = {
        "metadata": {"name": "team", "namespace": "default"},
        "status": {"hard": {"requests.nvidia.com/gpu": "4"}, "used": {"requests.nvidia.com/gpu": "3"}},
    }
    other = {"metadata": {"name": "cpu", "namespace": "default"}, "status": {"hard": {"cpu": "4"}}}
    places = Places(node_totals([node(8)]), {"default": relevant_quotas([quota, other])})
    found = capacity(agent(resources={"gpu": {"count": 1}}), [], places)
    assert (found.fits, found.free) == (4, 1)
    assert "team" in found.why


def test_a_replica_of_ours_that_finds_no_place_means_that_none_is_free() -> None:
    pod: dict[str, Any] = {"metadata": {"name": "a"}}
    set_unschedulable(pod, "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    found = capacity(agent(resources={"gpu": {"count": 1}}), [pod], Places())
    assert (found.fits, found.free) == (None, 0)
    assert "Insufficient" in found.why


def test_an_agent_without_devices_is_bound_by_nothing() -> None:
    found = capacity(agent(), [], Places(node_totals([node(1)])))
    assert (found.fits, found.free) == (None, None)


# What is learnt from starts.


def test_a_later_revision_gets_the_time_to_start_that_was_seen_to_be_needed() -> None:
    world = ready_world()
    world.signals = Signals(startup_deadline=5000)
    world.change(model={"uri": "oci://registry.example.com/models/geography:v2"})
    world.settle()
    thresholds = {
        d["metadata"]["name"]: d["spec"]["template"]["spec"]["containers"][0]["startupProbe"][
            "failureThreshold"
        ]
        for d in world.deployments()
    }
    assert sorted(thresholds.values()) == [1800, 5000]
    world.signals = Signals(startup_deadline=9000)
    assert not any("Deployment" in kinds([write]) for write in world.step().writes), "no pod restarts for it"


def test_a_restarted_operator_leaves_the_gateways_in_place_until_it_has_looked_for_them() -> None:
    world = asleep_world()
    before = world.objects["EndpointSlice", "geography-gateway"]["endpoints"]
    assert before
    world.signals = Signals(gateways=None, free_port=20_100)
    assert world.step().writes == ()
    world.signals = Signals(gateways=("10.0.0.9",), free_port=20_100)
    assert kinds(world.step().writes) == ["EndpointSlice"]
