"""Whatever happens in whatever order: no harm meanwhile, and the newest spec in the end. Layer: tests.

The one idea: thousands of short random histories of users, a cluster, a network and operator processes, all
with faults (see `history` for what may happen, `judge` for what must hold). Seeds are fixed, so a run is
repeatable; FAULT_HISTORIES asks for more than the usual number. A failing history is shortened and printed
as a call of `replay`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from tests.fault.history import STEPS, History, describe, draw, failure_of, replay, shortened

HISTORIES = int(os.environ.get("FAULT_HISTORIES", "2000"))
PARTS = 20
TOLD = 3


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Thousands of reconciles log much, and nobody reads it."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("part", range(PARTS))
def test_no_history_does_harm_and_every_history_ends_where_the_spec_points(part: int) -> None:
    failing = [history for seed in range(part, HISTORIES, PARTS) if failure_of(history := draw(seed))]
    told = []
    for history in failing[:TOLD]:
        shortest = shortened(history, lambda shorter: bool(failure_of(shorter)))
        told.append((shortest, failure_of(shortest)))
    assert not failing, f"{len(failing)} histories failed, the first of them:\n\n{describe(told)}"


def test_a_history_is_the_same_each_time_it_is_played() -> None:
    for seed in range(5):
        first, second = replay(draw(seed)), replay(draw(seed))
        assert [(r.verb, r.kind, r.wire.owner) for r in first.sent] == [
            (r.verb, r.kind, r.wire.owner) for r in second.sent
        ]


def test_a_printed_history_can_be_played_again() -> None:
    history = draw(7)
    source = str(history)
    assert eval(source, {"replay": lambda same: same, "History": History}) == history


def test_histories_reach_the_faults_they_are_for() -> None:
    """Steps of every kind are drawn within the first few hundred seeds."""
    drawn = {step[1] for seed in range(300) for step in draw(seed).steps}
    assert drawn == set(STEPS)


def test_shortening_keeps_only_what_the_failure_needs() -> None:
    history = History(1, tuple((0.0, "wait", n) for n in range(20)))

    def fails(candidate: History) -> bool:
        return {3, 11} <= {step[2] for step in candidate.steps}

    assert [step[2] for step in shortened(history, fails).steps] == [3, 11]
