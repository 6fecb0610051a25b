"""The simulator counts every request, and the models do what their sources say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.scaling.agent import Machine, Outcome, Sight, Simulation, Trace
from bench.scaling.autoscalers import SIDES, Hpa, Kpa
from bench.scaling.traces import azure_code, noisy_steady


class Fixed:
    """An autoscaler that always wants the same."""

    tick = 1.0

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted

    def look(self, sight: Sight) -> int:
        return self.wanted


def sight(at: float, load: int, ready: int, replicas: int | None = None) -> Sight:
    return Sight(at, load, 0, ready, ready if replicas is None else replicas)


@pytest.mark.parametrize("side", SIDES, ids=lambda side: side.name)
def test_every_request_has_one_wait_and_the_same_seed_the_same_outcome(side):
    trace = noisy_steady(3, seconds=300)
    first = Simulation(trace, side.make(trace, Machine()), Machine()).run()
    second = Simulation(trace, side.make(trace, Machine()), Machine()).run()
    assert len(first.waits) == pytest.approx(sum(1 for at in trace.arrivals if at >= trace.begin), abs=100)
    assert first == second


def test_requests_wait_for_a_cold_start_and_replicas_cost_from_the_moment_they_are_asked_for():
    trace = Trace("t", [10.0], [5.0], 200.0, initial=0)
    found = Simulation(trace, Fixed(1), Machine(cold_start=30)).run()
    assert found.waits == [20.0]
    assert found.replica_seconds == pytest.approx(200.0)


def test_what_does_not_fit_the_queue_is_refused_and_who_waits_too_long_is_gone():
    machine = Machine(slots=1, queue_per_replica=2, patience=10, cold_start=1000)
    trace = Trace("t", [0.5, 1.0, 1.5, 2.0, 50.0], [20.0, 20.0, 20.0, 20.0, 1.0], 100.0)
    found = Simulation(trace, Fixed(1), machine).run()
    assert (found.refused, found.gave_up) == (1, 2)
    assert sorted(found.waits) == [0.0, 0.0, 10, 10, 10]


def test_a_drain_loses_nothing():
    class UntilFive(Fixed):
        def look(self, sight: Sight) -> int:
            return 2 if sight.at < 5 else 0

    trace = Trace("t", [1.0], [50.0], 100.0, initial=2)
    found = Simulation(trace, UntilFive(0), Machine()).run()
    assert (found.lost, found.waits) == (0, [0.0])
    assert found.changes == [(5.0, -2)]
    assert found.replica_seconds == pytest.approx(51 + 5)


def test_a_flap_is_a_change_of_direction_within_five_minutes():
    assert Outcome(changes=[(0, 1), (100, -1), (500, 1), (600, 1)]).flaps() == 1


def test_the_hpa_waits_five_minutes_down_and_at_most_doubles_or_adds_four():
    hpa = Hpa(target=8, min_replicas=0, max_replicas=40)
    assert hpa.look(sight(0, 16, 2)) == 2
    assert hpa.look(sight(15, 400, 2)) == 2  # the metric is a scrape old
    assert hpa.look(sight(30, 400, 2)) == 6
    assert hpa.look(sight(45, 0, 6)) == 12
    assert [hpa.look(sight(60 + 15 * n, 0, 12)) for n in range(19)] == [12] * 19
    assert hpa.look(sight(600, 0, 12)) == 1


def test_the_kpa_panics_at_twice_and_goes_to_zero_after_window_and_grace():
    kpa = Kpa(target=5, min_replicas=0, max_replicas=40)
    for second in range(60):
        kpa.look(sight(second, 5, 1))
    assert kpa.look(sight(60, 60, 1)) == 3  # (5 * 5 + 60) / 6 / 5
    for second in range(61, 300):
        kpa.look(sight(second, 0, 1))
    assert kpa.look(sight(300, 0, 1)) == 0
    assert kpa.look(replace(sight(301, 0, 0), waiting=1)) == 1


def test_the_code_trace_has_the_published_number_of_requests():
    trace = azure_code(1)
    assert sum(1 for at in trace.arrivals if at >= trace.begin) == pytest.approx(8_800, rel=0.05)
