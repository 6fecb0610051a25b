"""A pod that waits for a volume says nothing; the kubelet's events do, and they are not read in vain."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agent_operator.core.diagnosis import mounts
from tests.property.world import (
    START,
    mount_failure,
    set_container,
    set_creating,
    set_ready,
    set_unschedulable,
)

NO_SECRET = 'MountVolume.SetUp failed for volume "runtime-secrets" : secret "hub" not found'
NO_DISK = 'AttachVolume.Attach failed for volume "pvc-1" : rpc error: volume is attached elsewhere'


def pod(seconds: float, name: str = "geography-x-1") -> dict[str, Any]:
    """A pod that has waited for its volumes for so many seconds at START."""
    made: dict[str, Any] = {"metadata": {"name": name, "namespace": "default", "uid": f"uid-of-{name}"}}
    set_creating(made, START - timedelta(seconds=seconds))
    return made


def told(made: dict[str, Any], *warnings: dict[str, Any]) -> str:
    return mounts.errors([made], warnings, START).get(made["metadata"]["uid"], "")


# When to look.


@pytest.mark.parametrize("state", ["running", "unscheduled", "ready", "pulling", "sandbox", "new", "failed"])
def test_a_pod_that_waits_for_something_else_is_not_looked_at(state: str) -> None:
    made = pod(60)
    if state == "running":
        set_container(made, state={"running": {"startedAt": "2026-01-01T00:00:00Z"}})
    elif state == "unscheduled":
        set_unschedulable(made, "no node")
    elif state == "ready":
        set_ready(made)
    elif state == "pulling":
        made["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "ErrImagePull"}}
    elif state == "sandbox":
        made["status"]["conditions"][1]["status"] = "True"
    elif state == "new":
        made["status"] = {}
    else:
        made["status"]["phase"] = "Failed"
    assert mounts.look([made], START) == mounts.Look()


def test_a_pod_without_a_status_of_its_containers_waits_too() -> None:
    made = pod(60)
    del made["status"]["containerStatuses"]
    assert len(mounts.look([made], START).pods) == 1


def test_the_pods_that_wait_longest_are_looked_at_and_never_more_than_two() -> None:
    pods = [pod(seconds, f"p{seconds}") for seconds in (1, 30, 20, 10)]
    look = mounts.look(pods, START)
    assert [p.name for p in look.pods] == ["p30", "p20"]
    assert look.again_after == timedelta(seconds=30)


def test_a_clock_that_is_behind_the_clusters_only_delays_the_look() -> None:
    assert mounts.look([pod(-90)], START) == mounts.Look(again_after=mounts.PATIENCE)


# What is believed.


def test_a_missing_object_is_believed_at_once() -> None:
    made = pod(6)
    assert told(made, mount_failure(made, NO_SECRET, START)) == NO_SECRET


@pytest.mark.parametrize(
    "note",
    [
        'MountVolume.SetUp failed for volume "x" : secrets "hub" not found',
        'MountVolume.SetUp failed for volume "x" : configmap "ca" not found',
        'MountVolume.SetUp failed for volume "x" : references non-existent secret key: token',
        'MountVolume.SetUp failed for volume "x" : configmap references non-existent config key: a.crt',
        'MountVolume.SetUp failed for volume "x" : [secret "a" not found, secret "b" not found]',
    ],
)
def test_each_wording_of_the_kubelet_for_something_missing_is_known(note: str) -> None:
    made = pod(6)
    assert told(made, mount_failure(made, note, START)) == note


def test_another_trouble_is_believed_when_it_lasts() -> None:
    early, late = pod(6), pod(30)
    event = {"note": NO_DISK, "at": START, "reason": "FailedAttachVolume"}
    assert told(early, mount_failure(early, **event)) == ""
    assert told(late, mount_failure(late, **event)) == NO_DISK


@pytest.mark.parametrize(
    "note",
    [
        'MountVolume.SetUp failed for volume "x" : failed to sync secret cache: timed out waiting for the '
        "condition",
        'MountVolume.SetUp failed for volume "x" : object "default"/"hub" not registered',
        "Unable to attach or mount volumes: unmounted volumes=[x]: timed out waiting for the condition",
    ],
)
def test_what_the_kubelet_says_in_passing_is_not_told(note: str) -> None:
    made = pod(600)
    assert told(made, mount_failure(made, note, START)) == ""
    assert told(made, mount_failure(made, NO_SECRET, START - timedelta(minutes=3)),
                mount_failure(made, note, START)) == NO_SECRET  # fmt: skip


def test_the_newest_of_several_is_told() -> None:
    made = pod(60)
    older = mount_failure(made, NO_SECRET.replace("hub", "other"), START - timedelta(seconds=30))
    assert told(made, older, mount_failure(made, NO_SECRET, START)) == NO_SECRET


def test_what_was_said_long_ago_is_over() -> None:
    made = pod(3600)
    assert told(made, mount_failure(made, NO_SECRET, START - timedelta(minutes=11))) == ""


def test_a_repeated_event_is_as_new_as_its_last_repetition() -> None:
    made = pod(3600)
    event = mount_failure(made, NO_SECRET, START - timedelta(hours=1))
    event["series"] = {"count": 40, "lastObservedTime": "2025-12-31T23:59:00.000000Z"}
    assert told(made, event) == NO_SECRET


def test_events_of_other_pods_and_of_other_kinds_are_left_out() -> None:
    made, other = pod(60), pod(60, "other")
    assert told(made, mount_failure(other, NO_SECRET, START)) == ""
    assert told(made, mount_failure(made, NO_SECRET, START, reason="Failed")) == ""
