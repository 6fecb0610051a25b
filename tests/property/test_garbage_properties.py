"""Whatever a cluster holds, deciding neither fails nor grows."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_operator.core.plan import Plan
from agent_operator.core.reconcile import reconcile
from agent_operator.core.snapshot import ApplyFailure, Defaults, Snapshot
from tests.property.world import (
    START,
    UID,
    agent,
    mount_failure,
    ready_world,
    set_container,
    set_creating,
    set_unschedulable,
)

WORDS = (
    "name namespace labels annotations ownerReferences controller uid status spec conditions type reason "
    "message state lastState waiting terminated exitCode signal finishedAt restartCount containerStatuses "
    "containers resources limits replicas readyReplicas selector template model uri diagnoses phase"
)
KEYS = st.sampled_from(WORDS.split())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=8), inner, max_size=5)
    ),
    max_leaves=25,
)
objects = st.dictionaries(KEYS, json_values, max_size=6)
MOUNT_FAILURES = ('secret "hub" not found', "references non-existent secret key: token", "disk is broken: ")
foreign_text = st.text(max_size=3000) | st.text(alphabet='"\\\n\x1b\x00é😀', max_size=3000)
patient = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def check(snapshot: Snapshot) -> Plan:
    before = deepcopy(snapshot)
    plan = reconcile(snapshot, START)
    assert snapshot == before
    assert reconcile(snapshot, START) == plan
    if plan.status is not None:
        written = json.dumps(plan.status, ensure_ascii=False)
        assert len(written.encode()) < 8000
        assert written.isprintable()
    return plan


@patient
@given(
    spec=json_values,
    status=json_values,
    extra=objects,
    pods=st.lists(objects, max_size=3),
    warnings=st.lists(objects, max_size=3),
)
def test_garbage_in_an_agent_its_pods_and_their_events_is_no_error(
    spec: Any,
    status: Any,
    extra: dict[str, Any],
    pods: list[dict[str, Any]],
    warnings: list[dict[str, Any]],
) -> None:
    manifest = agent()
    manifest["metadata"] = {**extra, **manifest["metadata"]}
    broken = {**manifest, "spec": spec, "status": status}
    events = tuple(warnings)
    check(Snapshot(broken, (), tuple(pods), Defaults("image"), warnings=events))
    check(Snapshot({**manifest, "status": status}, (), tuple(pods), Defaults("image"), warnings=events))


@patient
@given(data=st.data(), kind=st.sampled_from(["Deployment", "Service", "ConfigMap"]))
def test_garbage_in_a_child_is_no_error(data: st.DataObject, kind: str) -> None:
    world = ready_world()
    key = next(key for key in world.objects if key[0] == kind)
    child, owners = world.objects[key], world.objects[key]["metadata"]["ownerReferences"]
    broken = {**child, **data.draw(objects), "kind": kind}
    broken["metadata"] = {
        **child["metadata"],
        **data.draw(objects),
        "name": key[1],
        "ownerReferences": owners,
    }
    for path in data.draw(st.lists(st.sampled_from(["spec", "status", "data"]), max_size=2)):
        broken[path] = data.draw(json_values)
    world.objects[key] = broken
    check(world.snapshot())


@patient
@given(
    texts=st.lists(foreign_text, min_size=6, max_size=6),
    reasons=st.lists(
        st.sampled_from(
            [
                "ErrImagePull",
                "CreateContainerConfigError",
                "RunContainerError",
                "CrashLoopBackOff",
                "OOMKilled",
            ]
        ),
        min_size=4,
        max_size=4,
    ),
)
def test_a_status_stays_below_8_kilobytes_whatever_pods_and_servers_say(
    texts: list[str], reasons: list[str]
) -> None:
    world = ready_world(agent(name="a" * 50, replicas=6))
    for pod, message, reason in zip(world.pods, texts, reasons, strict=False):
        ended = {"exitCode": 1, "reason": reason, "message": message, "finishedAt": "2026-01-01T00:00:00Z"}
        waiting = {"reason": reason, "message": message}
        set_container(pod, state={"waiting": waiting}, lastState={"terminated": ended}, restartCount=7)
    set_creating(world.pods[3], START - timedelta(minutes=1))
    warnings = tuple(mount_failure(world.pods[3], f"{words}{texts[3]}", START) for words in MOUNT_FAILURES)
    set_unschedulable(world.pods[4], "Insufficient " + texts[4])
    set_unschedulable(world.pods[5], 'persistentvolumeclaim "x" not found' + texts[5])
    world.count()
    names = [name for kind, name in world.objects if kind == "Deployment"]
    blocked = tuple(
        ApplyFailure("Deployment", names[0], code, text)
        for code, text in zip(("NameTaken", "Forbidden", "Invalid", "Other"), texts, strict=False)
    )
    seen = world.snapshot()
    plan = check(Snapshot(seen.agent, seen.children, seen.pods, seen.defaults, blocked, warnings))
    assert plan.status is not None
    assert len(plan.status["diagnoses"]) <= 5


@patient
@given(message=foreign_text)
def test_a_refused_specification_is_told_in_bounds(message: str) -> None:
    manifest = agent(
        **{message or "x": message, "replicas": message, "template": {"spec": {"volumes": message}}}
    )
    plan = check(Snapshot(manifest, (), (), Defaults("image")))
    assert plan.writes == ()
    assert manifest["metadata"]["uid"] == UID
