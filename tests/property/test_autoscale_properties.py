"""What must hold of the autoscaler whatever is observed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from agent_operator.core.autoscale import (
    EMPTY,
    Capacity,
    Memory,
    Observation,
    Policy,
    observe,
    recommend,
    requested,
)

T0 = 1_750_000_000.0
LIMITS = {"", "MinReplicas", "MaxReplicas", "Capacity", "Schedule", "SignalsMissing"}
loads = st.floats(0, 500) | st.just(0.0)


@st.composite
def policies(draw: st.DrawFn, delays: st.SearchStrategy[float] | None = None) -> Policy:
    least = draw(st.integers(0, 5))
    return Policy(
        min_replicas=least,
        max_replicas=draw(st.integers(max(1, least), 30)),
        target_concurrency=draw(st.sampled_from((0.5, 1.0, 5.6, 8.0))),
        target_queued_tokens=draw(st.none() | st.integers(100, 5000)),
        target_p95_seconds=draw(st.none() | st.floats(0.5, 10)),
        scale_up_delay_seconds=draw(st.sampled_from((0, 0, 15))),
        scale_down_delay_seconds=draw(delays or st.sampled_from((0, 10, 60, 600))),
    )


@st.composite
def observations(draw: st.DrawFn, at: float) -> Observation:
    ready = draw(st.integers(0, 10))
    answered = draw(st.integers(0, ready))
    return Observation(
        at=at,
        concurrency=draw(loads) if answered else 0.0,
        held=draw(st.integers(0, 20)) if ready == 0 else 0,
        queued_tokens=draw(st.floats(0, 50_000)) if answered else 0.0,
        p95_seconds=draw(st.none() | st.floats(0.01, 100)),
        ready=ready,
        answered=answered,
    )


@st.composite
def histories(draw: st.DrawFn, most: int = 40) -> list[Observation]:
    at, found = T0, []
    for _ in range(draw(st.integers(0, most))):
        at += draw(st.sampled_from((0.2, 1.0, 1.0, 2.0, 5.0, 20.0, 100.0)))
        found.append(draw(observations(at)))
    return found


def remembered(history: list[Observation], policy: Policy) -> Memory:
    memory = EMPTY
    for one in history:
        memory = observe(memory, one, policy)
    return memory


def end_of(history: list[Observation]) -> datetime:
    return datetime.fromtimestamp(history[-1].at if history else T0, UTC)


capacities = st.builds(
    Capacity, fits=st.none() | st.integers(0, 20), free=st.none() | st.integers(0, 5), why=st.just("quota")
)


@given(policies(), histories(), st.integers(0, 30), capacities, st.floats(0, 1000))
def test_bounds_hold_a_reason_is_given_and_asking_again_changes_nothing(
    policy: Policy, history: list[Observation], current: int, capacity: Capacity, lead: float
):
    memory, now = remembered(history, policy), end_of(history)
    found = recommend(memory, policy, current, capacity, lead, now)
    placeable = min(
        policy.min_replicas,
        20 if capacity.fits is None else capacity.fits,
        current + (30 if capacity.free is None else capacity.free),
    )
    assert placeable <= found.desired <= policy.max_replicas
    if capacity.fits is not None:
        assert found.desired <= capacity.fits
    if capacity.free is not None:
        assert found.desired <= current + capacity.free
    assert found.reason and "\n" not in found.reason
    assert found.limited_by in LIMITS
    assert found.again_in is None or found.again_in >= 0
    assert recommend(memory, policy, current, capacity, lead, now) == found


@given(policies(), histories(), st.integers(0, 30))
def test_zero_only_if_nothing_was_in_flight_for_the_whole_delay(
    policy: Policy, history: list[Observation], current: int
):
    found = recommend(remembered(history, policy), policy, current, Capacity(), 30, end_of(history))
    if current > 0 and found.desired == 0:
        recent = [one for one in history if one.at + policy.scale_down_delay_seconds >= history[-1].at]
        assert policy.min_replicas == 0
        assert all(one.concurrency + one.held == 0 for one in recent)
        assert history[-1].at - history[0].at >= policy.scale_down_delay_seconds


@given(policies(), histories(), st.integers(0, 30), st.floats(0, 500))
def test_a_greater_load_never_asks_for_fewer(
    policy: Policy, history: list[Observation], current: int, more: float
):
    if not history or history[-1].answered == 0:
        return
    heavier = [*history[:-1], replace(history[-1], concurrency=history[-1].concurrency + more)]
    now = end_of(history)
    light = recommend(remembered(history, policy), policy, current, Capacity(), 30, now)
    heavy = recommend(remembered(heavier, policy), policy, current, Capacity(), 30, now)
    assert heavy.desired >= light.desired


@settings(max_examples=60)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=120), st.sampled_from((10, 30, 60)))
def test_no_step_down_within_the_delay_of_a_higher_need(levels: list[int], delay: int):
    """Whatever number a load led to is kept for the whole delay."""
    policy = Policy(0, 30, 4.0, scale_down_delay_seconds=delay)
    memory, current, led = EMPTY, 0, []
    for second, load in enumerate(levels):
        at = T0 + second
        memory = observe(memory, Observation(at, load, 0, 0, None, max(1, current), max(1, current)), policy)
        alone = recommend(memory, policy, 0, Capacity(), 0, datetime.fromtimestamp(at, UTC)).desired
        current = recommend(memory, policy, current, Capacity(), 0, datetime.fromtimestamp(at, UTC)).desired
        led.append(min(current, alone))
        assert current >= max(led[-delay:])


@given(policies(), histories(), st.integers(1, 30))
def test_a_memory_of_less_than_the_delay_removes_nothing(
    policy: Policy, history: list[Observation], current: int
):
    if not history or history[-1].at - history[0].at >= policy.scale_down_delay_seconds:
        return
    found = recommend(remembered(history, policy), policy, current, Capacity(), 30, end_of(history))
    assert found.desired >= min(current, policy.max_replicas)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from((0.01, 0.3, 1.0, 7.0)),
    st.sampled_from((0, 60, 3600, 86_400)),
    st.sampled_from((60, 600, 86_400)),
)
def test_the_memory_is_bounded_whatever_the_rate_and_the_delays(step: float, delay: float, window: float):
    policy = Policy(
        1, 10, 4.0, stable_seconds=window, scale_up_delay_seconds=delay, scale_down_delay_seconds=delay
    )
    memory = EMPTY
    for index in range(2500):
        memory = observe(memory, Observation(T0 + index * step, index % 7, 0, 0, None, 1, 1), policy)
    assert len(memory.buckets) <= 601
    assert len(memory.groups) <= 13
    assert len(memory.peaks) <= 62
    assert len(memory.floors) <= 62


@given(policies(), histories(), st.integers(0, 60), st.integers(0, 30))
def test_a_number_asked_for_by_hand_holds_within_the_bounds(
    policy: Policy, history: list[Observation], asked: int, current: int
):
    now = end_of(history)
    memory = requested(remembered(history, policy), asked, now.timestamp())
    found = recommend(memory, policy, current, Capacity(), 30, now)
    assert found.desired == min(max(asked, policy.min_replicas), policy.max_replicas)
