"""Rates and quantiles are functions of the events and their times, whatever came before."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.windows import ACCURACY, LARGEST, SMALLEST, Quantiles, Rate

TIMES = st.floats(0, 300, allow_nan=False)
EVENTS = st.lists(st.tuples(TIMES, st.integers(1, 100)), max_size=60).map(sorted)
VALUES = st.floats(1e-5, 1e5, allow_nan=False)


@given(EVENTS, TIMES)
def test_a_total_has_everything_of_the_window_and_nothing_older(
    events: list[tuple[float, int]], later: float
) -> None:
    """Everything of the last 10 s is in it, and nothing older than a slice (0.5 s) more."""
    rate = Rate(seconds=10.0, slices=20)
    for at, amount in events:
        rate.add(amount, at)
    now = (events[-1][0] if events else 0.0) + later

    total = rate.total(now)

    assert total >= sum(amount for at, amount in events if now - at <= 10.0 - 1e-6)
    assert total <= sum(amount for at, amount in events if now - at <= 10.5 + 1e-6)


def test_a_steady_stream_has_its_rate_from_the_beginning_on() -> None:
    rate = Rate(seconds=10.0)
    for step in range(3000):
        now = 50.0 + step * 0.01
        rate.add(1, now)
        if step >= 100:
            assert rate.per_second(now) == pytest.approx(100, rel=0.05)

    assert rate.per_second(now + 11) == 0.0


def test_nothing_is_no_rate() -> None:
    assert Rate().per_second(5.0) == 0.0


def test_a_single_event_is_no_burst() -> None:
    rate = Rate(seconds=10.0, slices=20)
    rate.add(1, 100.0)

    assert rate.per_second(100.0) <= 2.0, "at least one slice of half a second is taken"


@given(st.lists(VALUES, min_size=1, max_size=200), st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_within_its_accuracy_of_the_true_one(values: list[float], quantile: float) -> None:
    sketch = Quantiles()
    for value in values:
        sketch.add(value, 10.0)

    (found,) = sketch.at([quantile], 10.0) or [math.nan]

    true = sorted(values)[math.floor(quantile * (len(values) - 1))]
    assert found == pytest.approx(true, rel=ACCURACY + 1e-9)


@given(st.lists(st.tuples(TIMES, VALUES), max_size=60).map(sorted), TIMES)
def test_only_the_window_counts(events: list[tuple[float, float]], later: float) -> None:
    sketch = Quantiles(seconds=60.0, slices=12)
    for at, value in events:
        sketch.add(value, at)
    now = (events[-1][0] if events else 0.0) + later

    count = sketch.count(now)

    assert count >= sum(now - at <= 60.0 - 1e-6 for at, _ in events)
    assert count <= sum(now - at <= 65.0 + 1e-6 for at, _ in events)
    assert (sketch.at([0.5], now) is None) == (count == 0)


def test_a_value_seen_many_times_weighs_as_many() -> None:
    sketch = Quantiles()
    sketch.add(1.0, 0.0, times=99)
    sketch.add(100.0, 0.0)

    assert sketch.at([0.5, 0.98, 1.0], 0.0) == pytest.approx([1.0, 1.0, 100.0], rel=ACCURACY + 1e-9)


@pytest.mark.parametrize(("value", "taken_as"), [(0.0, SMALLEST), (-5.0, SMALLEST), (1e300, LARGEST)])
def test_values_out_of_range_are_counted_at_its_ends(value: float, taken_as: float) -> None:
    sketch = Quantiles()
    sketch.add(value, 0.0)

    assert sketch.at([0.5], 0.0) == pytest.approx([taken_as], rel=ACCURACY + 1e-9)


def test_memory_does_not_grow_with_time_or_events() -> None:
    sketch, rate = Quantiles(), Rate()
    for step in range(20_000):
        sketch.add(0.001 * (step % 50 + 1), step * 0.1)
        rate.add(1, step * 0.1)

    assert len(sketch._counts) == 13 and sum(map(len, sketch._counts)) <= 13 * 50
    assert len(rate._amounts) == 21
