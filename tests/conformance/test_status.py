"""Conditions and status as tools that know nothing of agents read them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from agent_operator.api import ConditionStatus, ConditionType
from agent_operator.api.crd import PRINTER_COLUMNS, root_schema
from tests.conformance.kstatus import Verdict, compute
from tests.property.world import World, agent, ready_world, set_container, set_unschedulable, terminated

NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."


def conditions(world: World) -> list[dict[str, Any]]:
    return list(world.agent["status"]["conditions"])


def unscheduled() -> World:
    world = World()
    world.settle()
    world.run_controllers()
    set_unschedulable(world.pods[0], NO_GPU)
    world.settle()
    return world


def past_its_deadline() -> World:
    world = unscheduled()
    (deployment,) = world.deployments()
    passed = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    deployment["status"]["conditions"] = [passed]
    world.settle()
    return world


def crashing_beside_the_old() -> World:
    world = ready_world()
    world.change(model={"uri": "oci://registry.example.com/models/geography:v2"})
    world.settle()
    world.run_controllers()
    ended = terminated(world.now, message="no config.json")
    set_container(world.pods[-1], state=ended, restartCount=2)
    world.settle()
    return world


def refused() -> World:
    world = World(agent(tuning={"mode": "Auto"}))
    world.settle()
    return world


def changed_and_not_seen() -> World:
    world = ready_world()
    world.change(replicas=2)
    return world


def being_deleted() -> World:
    world = ready_world()
    world.agent["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return world


def new() -> World:
    world = World()
    world.settle()
    return world


def mended() -> World:
    world = refused()
    world.change(tuning=None)
    world.settle()
    world.run_controllers()
    world.all_ready()
    world.settle()
    return world


def suspended() -> World:
    world = ready_world()
    world.change(suspend=True)
    world.settle()
    world.run_controllers()
    world.count()
    world.settle()
    return world


@pytest.mark.parametrize(
    ("world", "verdict"),
    [
        (new, Verdict.IN_PROGRESS),
        (ready_world, Verdict.CURRENT),
        (changed_and_not_seen, Verdict.IN_PROGRESS),
        (unscheduled, Verdict.IN_PROGRESS),
        (crashing_beside_the_old, Verdict.IN_PROGRESS),
        (past_its_deadline, Verdict.FAILED),
        (refused, Verdict.FAILED),
        (mended, Verdict.CURRENT),
        (being_deleted, Verdict.TERMINATING),
        # Nothing serves, which is what Ready says; kstatus knows no "idle as asked".
        (suspended, Verdict.IN_PROGRESS),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_kstatus_reads_what_is_so_from_the_conditions(world: Callable[[], World], verdict: Verdict) -> None:
    assert compute(world().agent) == verdict


def test_of_a_suspended_agent_only_ready_keeps_kstatus_waiting() -> None:
    world = suspended()

    abnormal = {c["type"]: c["status"] for c in conditions(world) if c["type"] in ("Reconciling", "Stalled")}

    assert abnormal == {"Reconciling": "False", "Stalled": "False"}


def test_the_first_status_has_every_condition() -> None:
    world = World()
    world.settle()

    assert sorted(c["type"] for c in conditions(world)) == sorted(kind.value for kind in ConditionType)
    for condition in conditions(world):
        assert condition["status"] in {status.value for status in ConditionStatus}
        assert re.fullmatch(r"[A-Z][A-Za-z]+", condition["reason"])
        assert condition["lastTransitionTime"]


def test_a_condition_may_be_unknown() -> None:
    items = root_schema()["properties"]["status"]["properties"]["conditions"]["items"]

    assert items["properties"]["status"]["enum"] == ["True", "False", "Unknown"]


def test_conditions_are_named_by_adjectives_or_participles() -> None:
    for kind in ConditionType:
        assert re.fullmatch(r"([A-Z][a-z]+)*(Ready|Active|[A-Z][a-z]+(ed|ing))", kind.value), kind.value


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 3},
        {"suspend": True},
        {"model": {"uri": "oci://registry.example.com/models/geography:v2"}},
        {"tuning": {"mode": "Auto"}},
        {"model": {"uri": "nonsense"}},
    ],
    ids=["scaled", "suspended", "new revision", "not supported", "invalid"],
)
def test_the_generation_is_observed_by_the_status_and_by_each_condition(change: dict[str, Any]) -> None:
    world = ready_world()
    before = world.agent["metadata"]["generation"]

    world.change(**change)

    assert world.agent["status"]["observedGeneration"] == before
    world.settle()
    generations = [world.agent["status"]["observedGeneration"]]
    generations += [condition["observedGeneration"] for condition in conditions(world)]
    assert set(generations) == {before + 1}


@pytest.mark.parametrize("world", [ready_world, refused, suspended], ids=lambda make: make.__name__)
def test_an_hour_later_there_is_nothing_new_to_write(world: Callable[[], World]) -> None:
    settled = world()

    settled.now += timedelta(hours=1)

    assert settled.plan().status is None
    assert settled.plan().writes == ()


def test_there_is_no_phase() -> None:
    def names(schema: dict[str, Any]) -> Iterator[str]:
        for name, child in schema.get("properties", {}).items():
            yield name
            yield from names(child)
        if "items" in schema:
            yield from names(schema["items"])

    assert not {"phase", "state"} & set(names(root_schema()["properties"]["status"]))


def test_the_status_column_is_the_reason_of_ready() -> None:
    paths = {name: path for name, _, path, _, _ in PRINTER_COLUMNS}

    assert paths["Status"] == '.status.conditions[?(@.type=="Ready")].reason'


@pytest.mark.parametrize("failing", [False, True], ids=["ready", "failing"])
def test_the_status_does_not_grow_with_the_replicas(failing: bool) -> None:
    def size(replicas: int) -> int:
        world = World(agent(replicas=replicas))
        world.settle()
        world.run_controllers()
        world.all_ready()
        for pod in world.pods if failing else ():
            set_container(pod, state=terminated(world.now, message="no config.json"), restartCount=2)
        world.count()
        world.settle()
        assert len(world.pods) == replicas
        return len(json.dumps(world.agent["status"]))

    # The counts themselves are longer: 300 instead of 2, in a dozen places at most.
    assert size(300) - size(2) <= 2 * 12
