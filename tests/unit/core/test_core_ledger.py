"""What a start cost is read from the pod's own times and the runtime's phases."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter

from agent_operator.api.types import Decimal
from agent_operator.core.ledger import (
    MAX_STARTS,
    Ledger,
    Start,
    add,
    lead_seconds,
    read_start,
    startup_deadline,
    to_status,
)
from agent_runtime.stats import ModelFacts, Stats

NOON = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)


def after(seconds: float) -> str:
    return (NOON + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(
    scheduled: float = 2, started: float = 12, ready: float = 40, name: str = "geography-1"
) -> dict[str, Any]:
    """A pod that is ready, by seconds after its creation."""
    conditions = {
        "PodScheduled": scheduled, "Initialized": started, "ContainersReady": ready, "Ready": ready,
    }  # fmt: skip
    return {
        "metadata": {"name": name, "creationTimestamp": after(0)},
        "status": {
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": after(seconds)}
                for kind, seconds in conditions.items()
            ],
            "containerStatuses": [
                {"name": "runtime", "restartCount": 0, "state": {"running": {"startedAt": after(started)}}}
            ],
        },
    }


def stats(**phases: float) -> Stats:
    model = ModelFacts(served_name="geo")
    return Stats(state="READY", since=1.0, uptime_seconds=30.0, model=model, load_phases=phases)


PHASES = {
    "start": 4.0, "fetch": 6.5, "load": 12.25, "warmup": 2.0, "first_token": 0.125, "agent": 0.5,
    "ready": 25.25,
}  # fmt: skip


def started(total: float, name: str = "p", at: float = 0.0) -> Start:
    return Start(name, NOON + timedelta(seconds=at), 1.0, 2.0, 3.0, 4.0, 5.0, 0.1, total)


def ledger(*totals: float) -> Ledger:
    made = Ledger()
    for number, total in enumerate(totals):
        made = add(made, started(total, f"pod-{number}", number))
    return made


def test_a_start_is_read_from_pod_and_runtime() -> None:
    assert read_start(pod(), stats(**PHASES)) == Start(
        pod="geography-1",
        at=NOON + timedelta(seconds=40),
        scheduled_seconds=2.0,
        image_seconds=10.0,
        fetch_seconds=6.5,
        load_seconds=12.25,
        warmup_seconds=2.0,
        first_token_seconds=0.125,
        total_seconds=40.0,
    )


def test_without_the_runtimes_record_the_pods_times_are_still_a_start() -> None:
    found = read_start(pod(), None)

    assert found is not None
    assert (found.image_seconds, found.total_seconds) == (10.0, 40.0)
    assert (found.load_seconds, found.first_token_seconds) == (0.0, None)


def test_a_readiness_that_was_lost_and_came_back_is_not_when_it_started() -> None:
    found = read_start(pod(ready=9000), stats(**PHASES))

    assert found is not None
    assert found.at == NOON + timedelta(seconds=12 + 25.25)
    assert found.total_seconds == 37.25


def test_the_clocks_of_two_machines_give_no_negative_seconds() -> None:
    found = read_start(pod(scheduled=-1, started=-3, ready=-2), stats())

    assert found is not None
    assert min(found.scheduled_seconds, found.image_seconds, found.total_seconds) == 0.0


def without(*path: str) -> dict[str, Any]:
    """The pod with one entry of its status or metadata taken out."""
    made = pod()
    holder = made
    for key in path[:-1]:
        holder = holder[key]
    del holder[path[-1]]
    return made


def changed(kind: str, **fields: str) -> dict[str, Any]:
    made = deepcopy(pod())
    for condition in made["status"]["conditions"]:
        if condition["type"] == kind:
            condition.update(fields)
    return made


def with_container(**fields: Any) -> dict[str, Any]:
    made = pod()
    made["status"]["containerStatuses"][0].update(fields)
    return made


def with_sidecar_restarted() -> dict[str, Any]:
    made = pod()
    made["status"]["containerStatuses"].append({"name": "logger", "restartCount": 1})
    return made


@pytest.mark.parametrize(
    "unready",
    [
        {},
        without("metadata", "creationTimestamp"),
        without("status", "conditions"),
        without("status", "containerStatuses"),
        changed("PodScheduled", status="False"),
        changed("Ready", status="False"),
        changed("Ready", lastTransitionTime="yesterday"),
        with_container(restartCount=1),
        with_container(state={"waiting": {"reason": "CrashLoopBackOff"}}),
        with_container(name="another"),
        with_sidecar_restarted(),
    ],
)
def test_what_is_no_first_start_of_a_ready_pod_is_none(unready: dict[str, Any]) -> None:
    assert read_start(unready, stats(**PHASES)) is None


def test_a_pod_is_in_the_ledger_once_and_what_was_unknown_is_added() -> None:
    bare, whole = read_start(pod(), None), read_start(pod(), stats(**PHASES))
    assert bare is not None and whole is not None

    assert add(add(Ledger(), bare), whole).starts == (whole,)
    assert add(add(Ledger(), whole), bare).starts == (whole,)
    later = read_start(pod(ready=50), stats(**PHASES))
    assert later is not None
    assert add(add(Ledger(), whole), later).starts == (whole,)


def test_the_ledger_keeps_the_newest_starts_whatever_their_order() -> None:
    made = Ledger()
    for number in reversed(range(MAX_STARTS + 5)):
        made = add(made, started(1.0, f"pod-{number}", number))

    assert [start.pod for start in made.starts] == [f"pod-{n}" for n in range(5, MAX_STARTS + 5)]


@pytest.mark.parametrize(
    ("totals", "expected"),
    [
        ((), None),
        ((30,), 30),
        ((30, 90), 90),
        ((30, 600, 31), 31),
        ((30,) * 15 + (3000,), 30),
        (tuple(range(1, 17)), 14),
    ],
)
def test_the_lead_covers_most_starts_and_no_outlier(
    totals: tuple[float, ...], expected: float | None
) -> None:
    assert lead_seconds(ledger(*totals)) == expected


@pytest.mark.parametrize(
    ("totals", "expected"), [((), None), ((3,), 600), ((100, 200.5), 1003), ((20, 1000, 30), 5000)]
)
def test_the_deadline_is_generous(totals: tuple[float, ...], expected: int | None) -> None:
    assert startup_deadline(ledger(*totals)) == expected


def test_the_status_says_it_in_decimals() -> None:
    start = read_start(pod(), stats(**PHASES))
    assert start is not None

    shown = to_status(start)

    assert shown == {
        "pod": "geography-1", "time": "2026-11-26T12:00:40Z", "scheduledSeconds": "2", "imageSeconds": "10",
        "fetchSeconds": "6.5", "loadSeconds": "12.25", "warmupSeconds": "2", "firstTokenSeconds": "0.125",
        "readySeconds": "40",
    }  # fmt: skip
    for name, value in shown.items():
        if name.endswith("Seconds"):
            TypeAdapter(Decimal).validate_python(value)
