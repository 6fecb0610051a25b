"""The autoscaler's decision, case by case."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent_operator.core.autoscale import (
    EMPTY,
    Capacity,
    Memory,
    Observation,
    Policy,
    Recommendation,
    Window,
    observe,
    recommend,
    requested,
)

T0 = 1_750_000_000.0
POLICY = Policy(min_replicas=1, max_replicas=20, target_concurrency=8)


def sample(
    at: float, load: float, *, ready: int = 1, answered: int | None = None, held: int = 0,
    tokens: float = 0, p95: float | None = None,
) -> Observation:  # fmt: skip
    return Observation(
        at=T0 + at, concurrency=load, held=held, queued_tokens=tokens, p95_seconds=p95, ready=ready,
        answered=ready if answered is None else answered,
    )  # fmt: skip


def steady(
    load: float, seconds: int, *, policy: Policy = POLICY, memory: Memory = EMPTY, begin: int = 0,
    ready: int = 1, tokens: float = 0, p95: float | None = None,
) -> Memory:  # fmt: skip
    for second in range(begin, begin + seconds):
        memory = observe(memory, sample(second, load, ready=ready, tokens=tokens, p95=p95), policy)
    return memory


def ask(
    memory: Memory, at: float, current: int, *, policy: Policy = POLICY, capacity: Capacity | None = None,
    lead: float = 0,
) -> Recommendation:  # fmt: skip
    now = datetime.fromtimestamp(T0 + at, UTC)
    return recommend(memory, policy, current, capacity or Capacity(), lead, now)


def test_the_replicas_that_carry_the_load_are_asked_for_and_the_figures_said():
    found = ask(steady(41, 60), 59, 1)
    assert found.desired == 6
    assert found.reason == "41 requests in flight over the last 60 s, 8 for each replica: 6 replicas"
    assert found.limited_by == ""


def test_a_step_shows_with_its_first_sample():
    memory = observe(steady(8, 120), sample(120, 24), POLICY)
    assert ask(memory, 120, 1).desired == 3


def test_a_burst_is_panic_and_panic_never_removes():
    memory = observe(steady(8, 120), sample(120, 80), POLICY)
    assert ask(memory, 120, 1).panic
    assert ask(memory, 120, 1).desired == 10
    later = steady(1, 50, memory=memory, begin=121, ready=10)
    assert ask(later, 170, 10).desired == 10


def test_a_load_within_the_tolerance_adds_nothing():
    assert ask(steady(17, 120), 119, 2).desired == 2
    assert ask(steady(18, 120), 119, 2).desired == 3


def test_fewer_replicas_only_after_the_delay_was_content_with_fewer():
    memory = steady(40, 120, ready=5)
    low = steady(8, 31, memory=memory, begin=120, ready=5)
    held = ask(low, 150, 5)
    assert held.desired == 5
    assert "5 are kept, the last 60 s needed" in held.reason
    assert held.again_in is not None and 0 < held.again_in <= 60
    done = steady(8, 130, memory=memory, begin=120, ready=5)
    assert ask(done, 249, 5).desired == 1


def test_after_a_restart_nothing_is_removed_before_a_whole_delay_was_observed():
    early = ask(steady(0, 50), 49, 5)
    assert early.desired == 5
    assert "until 60 s were observed" in early.reason
    assert early.again_in == pytest.approx(11)
    assert ask(steady(0, 62), 61, 5).desired == 1


def test_a_gap_in_the_samples_counts_as_a_restart():
    memory = observe(steady(0, 120), sample(180, 0), POLICY)
    assert ask(memory, 180, 5).desired == 5


def test_without_any_sample_the_number_stays():
    found = ask(EMPTY, 0, 3)
    assert (found.desired, found.limited_by) == (3, "SignalsMissing")


def test_replicas_that_do_not_answer_are_not_idle():
    memory = observe(steady(40, 120, ready=5), sample(120, 0, ready=5, answered=0), POLICY)
    found = ask(memory, 120, 5)
    assert (found.desired, found.limited_by) == (5, "SignalsMissing")


def test_old_samples_say_nothing():
    found = ask(steady(0, 120), 200, 5)
    assert (found.desired, found.limited_by) == (5, "SignalsMissing")


def test_a_replica_that_does_not_answer_is_taken_to_carry_what_the_others_do():
    memory = EMPTY
    for second in range(60):
        memory = observe(memory, sample(second, 30, ready=4, answered=2), POLICY)
    assert ask(memory, 59, 4).desired == 8


def test_an_idle_agent_with_a_silent_replica_is_not_scaled_to_zero():
    policy = replace(POLICY, min_replicas=0)
    memory = EMPTY
    for second in range(200):
        memory = observe(memory, sample(second, 0, ready=2, answered=1), policy)
    assert ask(memory, 199, 2, policy=policy).desired == 1


def test_to_zero_when_nothing_was_in_flight_for_the_delay():
    policy = replace(POLICY, min_replicas=0)
    memory = steady(1, 10, policy=policy)
    idle = steady(0, 60, policy=policy, memory=memory, begin=10)
    assert ask(idle, 69, 1, policy=policy).desired == 1
    idle = steady(0, 140, policy=policy, memory=memory, begin=10)
    assert ask(idle, 149, 1, policy=policy).desired == 0


def test_from_zero_at_once_with_enough_for_what_is_held():
    policy = replace(POLICY, min_replicas=0, scale_up_delay_seconds=60)
    idle = steady(0, 200, policy=policy, ready=0)
    assert ask(idle, 199, 0, policy=policy).desired == 0
    memory = observe(idle, sample(200, 0, ready=0, held=17), policy)
    found = ask(memory, 200, 0, policy=policy)
    assert found.desired == 3
    assert "held" in found.reason


def test_min_replicas_hold_an_idle_agent():
    found = ask(steady(0, 200), 199, 1)
    assert (found.desired, found.limited_by) == (1, "MinReplicas")


def test_max_replicas_limit():
    found = ask(steady(800, 60), 59, 4)
    assert (found.desired, found.limited_by) == (20, "MaxReplicas")


def test_never_more_than_fits_and_it_says_so():
    found = ask(steady(80, 60), 59, 2, capacity=Capacity(fits=4, why="the quota allows 4 GPUs"))
    assert (found.desired, found.limited_by) == (4, "Capacity")
    assert "no more than 4 fit in the cluster: the quota allows 4 GPUs" in found.reason


def test_only_as_many_more_as_can_be_placed_now():
    found = ask(steady(80, 60), 59, 2, capacity=Capacity(fits=16, free=3))
    assert (found.desired, found.limited_by) == (5, "Capacity")
    assert "3 more can be placed now" in found.reason


def test_tokens_that_wait_ask_for_replicas():
    policy = replace(POLICY, target_queued_tokens=1000)
    found = ask(steady(1, 60, policy=policy, tokens=4500), 59, 1, policy=policy)
    assert found.desired == 5
    assert "4500 prompt tokens waiting" in found.reason


def test_latency_asks_for_replicas_by_a_bounded_step():
    policy = replace(POLICY, target_p95_seconds=2.0)
    memory = steady(20, 60, policy=policy, ready=4, p95=3.0)
    assert ask(memory, 59, 4, policy=policy).desired == 6
    memory = steady(20, 60, policy=policy, ready=4, p95=60.0)
    assert ask(memory, 59, 4, policy=policy).desired == 8


def test_latency_that_has_nothing_to_do_with_load_asks_for_nothing():
    policy = replace(POLICY, target_p95_seconds=2.0)
    memory = steady(4, 200, policy=policy, ready=4, p95=60.0)
    assert ask(memory, 199, 4, policy=policy).desired == 1


def test_good_latency_removes_nothing_that_concurrency_needs():
    policy = replace(POLICY, target_p95_seconds=2.0)
    memory = steady(32, 200, policy=policy, ready=4, p95=0.1)
    assert ask(memory, 199, 4, policy=policy).desired == 4


def test_a_ramp_is_answered_ahead_by_the_lead_time():
    memory = EMPTY
    for second in range(180):
        memory = observe(memory, sample(second, 8 + 0.2 * second, ready=6), POLICY)
    without = ask(memory, 179, 4)
    ahead = ask(memory, 179, 4, lead=60)
    assert ahead.desired > without.desired
    assert 6 <= ahead.desired <= 8  # 44 now, 56 in a minute
    assert "expected in 60 s" in ahead.reason


def test_a_falling_load_is_not_extrapolated():
    memory = EMPTY
    for second in range(180):
        memory = observe(memory, sample(second, 80 - 0.4 * second, ready=10), POLICY)
    assert ask(memory, 179, 10, lead=60) == ask(memory, 179, 10)


def test_a_rise_waits_for_the_scale_up_delay():
    policy = replace(POLICY, scale_up_delay_seconds=30)
    memory = steady(8, 120, policy=policy, ready=1)
    early = steady(15, 10, policy=policy, memory=memory, begin=120, ready=1)
    assert ask(early, 129, 1, policy=policy).desired == 1
    late = steady(15, 45, policy=policy, memory=memory, begin=120, ready=1)
    assert ask(late, 164, 1, policy=policy).desired == 2


def test_a_number_asked_for_by_hand_holds_at_once_and_decays_after_the_delay():
    memory = requested(steady(8, 120), 6, T0 + 120)
    assert ask(memory, 120, 1).desired == 6
    assert ask(requested(memory, 50, T0 + 120), 120, 1).desired == 20
    soon = steady(8, 30, memory=memory, begin=121, ready=6)
    assert ask(soon, 150, 6).desired == 6
    late = steady(8, 70, memory=memory, begin=121, ready=6)
    assert ask(late, 190, 6).desired == 1


def test_fewer_by_hand_holds_until_the_load_needs_more():
    memory = requested(steady(40, 120, ready=5), 2, T0 + 120)
    assert ask(memory, 120, 5).desired == 2
    assert ask(observe(memory, sample(121, 40, ready=5), POLICY), 121, 2).desired == 5


def test_a_window_that_is_open_keeps_its_minimum():
    window = Window("always", "0 0 * * *", "0 0 1 1 *", "Etc/UTC", 3)
    found = ask(steady(0, 200), 199, 1, policy=replace(POLICY, windows=(window,)))
    assert (found.desired, found.limited_by) == (3, "Schedule")
    assert "schedule always keeps 3" in found.reason
    assert found.again_in is not None


def test_samples_out_of_order_change_nothing():
    memory = steady(8, 60)
    assert observe(memory, sample(10, 800), POLICY) == memory
