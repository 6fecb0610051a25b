"""Whatever a pod and a runtime say, a start is finite, never negative, and the API takes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
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
NAMES = ("start", "fetch", "load", "warmup", "first_token", "ready")
DECIMAL = TypeAdapter(Decimal)

moments = st.one_of(
    st.integers(-10, 10**6).map(lambda s: (NOON + timedelta(seconds=s)).isoformat().replace("+00:00", "Z")),
    st.sampled_from([None, "", "never", 5, "2026-13-01T00:00:00Z"]),
)
conditions = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["PodScheduled", "Initialized", "ContainersReady", "Ready"]),
            "status": st.sampled_from(["True", "True", "True", "False", "Unknown"]),
            "lastTransitionTime": moments,
        }
    ),
    max_size=6,
)
containers = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["runtime", "logger"]),
            "restartCount": st.sampled_from([0, 0, 0, 1, "x"]),
            "state": st.fixed_dictionaries({"running": st.fixed_dictionaries({"startedAt": moments})}),
        }
    ),
    max_size=3,
)
pods = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries({"name": st.text(max_size=20), "creationTimestamp": moments}),
        "status": st.fixed_dictionaries({"conditions": conditions, "containerStatuses": containers}),
    }
)
records = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(NAMES), st.floats()).map(
        lambda phases: Stats(
            state="READY", since=0.0, uptime_seconds=1.0, model=ModelFacts(served_name="m"),
            load_phases=phases,
        )
    ),
)  # fmt: skip
starts = st.builds(
    Start,
    pod=st.sampled_from([f"pod-{number}" for number in range(40)]),
    at=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
    **{
        f"{name}_seconds": st.floats(0, 1e6)
        for name in ("scheduled", "image", "fetch", "load", "warmup", "first_token", "total")
    },
)
histories = st.lists(starts, max_size=40)


def kept(history: list[Start]) -> Ledger:
    made = Ledger()
    for start in history:
        made = add(made, start)
    return made


@given(pods, records)
def test_no_pod_and_no_record_make_a_start_that_the_api_refuses(
    pod: dict[str, Any], record: Stats | None
) -> None:
    start = read_start(pod, record)
    if start is None:
        return

    shown = to_status(start)
    for name, value in shown.items():
        if name.endswith("Seconds"):
            DECIMAL.validate_python(value)
    assert {"scheduledSeconds", "imageSeconds", "readySeconds", "pod", "time"} <= shown.keys()


@given(histories)
def test_a_ledger_is_bounded_in_order_and_has_each_pod_once(history: list[Start]) -> None:
    starts = kept(history).starts

    assert len(starts) <= MAX_STARTS
    assert len({start.pod for start in starts}) == len(starts)
    assert [start.at for start in starts] == sorted(start.at for start in starts)


@given(histories)
def test_what_is_in_the_ledger_already_changes_nothing(history: list[Start]) -> None:
    ledger = kept(history)

    for start in ledger.starts:
        assert add(ledger, start) == ledger


@given(histories)
def test_the_lead_was_seen_and_the_deadline_is_far_beyond_every_start(history: list[Start]) -> None:
    ledger = kept(history)
    totals = [start.total_seconds for start in ledger.starts]
    lead, deadline = lead_seconds(ledger), startup_deadline(ledger)

    assert (lead is None) == (deadline is None) == (not totals)
    if lead is not None and deadline is not None:
        assert lead in totals
        assert deadline >= 600 and all(deadline >= 5 * total for total in totals)


@given(st.lists(st.floats(1, 1e4), min_size=2, max_size=MAX_STARTS - 1), st.floats(1, 1e6))
def test_one_start_however_slow_does_not_lead_beyond_the_others(totals: list[float], outlier: float) -> None:
    def start(number: int, total: float) -> Start:
        return Start(f"pod-{number}", NOON + timedelta(seconds=number), 0, 0, 0, 1, 0, None, total)

    history = [start(number, total) for number, total in enumerate([*totals, outlier])]

    lead = lead_seconds(kept(history))

    assert lead is not None and lead <= max(totals)
