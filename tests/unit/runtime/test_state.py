"""Three probes, one state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.state import (
    Activity,
    InvalidTransitionError,
    State,
    Status,
    Work,
    liveness,
    may,
    readiness,
    startup,
    transition,
    work,
)

IDLE = Activity(running=0, idle_seconds=9999)


def reached(*path: State) -> Status:
    """The status after walking a path from STARTING."""
    status = Status(State.STARTING, 0.0, "begin")
    for number, state in enumerate(path, start=1):
        status = transition(status, state, float(number), f"to {state}")
    return status


LOADING = (State.LOADING,)
WARMING = (State.LOADING, State.WARMING)
READY = (State.LOADING, State.WARMING, State.READY)
DRAINING = (*READY, State.DRAINING)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ((), (False, False, True)),
        (LOADING, (False, False, True)),
        (WARMING, (False, False, True)),
        (READY, (True, True, True)),
        (DRAINING, (True, False, True)),
        ((*LOADING, State.DRAINING), (False, False, True)),
        ((*LOADING, State.FAILED), (False, False, False)),
        ((*READY, State.FAILED), (False, False, False)),
        ((*DRAINING, State.FAILED), (False, False, False)),
    ],
)
def test_each_state_has_one_answer_for_each_probe(
    path: tuple[State, ...], expected: tuple[bool, bool, bool]
) -> None:
    status = reached(*path)

    assert (startup(status).ok, readiness(status, IDLE, 60).ok, liveness(status, IDLE, 60).ok) == expected


@given(st.lists(st.sampled_from(list(State)), max_size=12))
def test_no_sequence_of_moves_leaves_the_graph_or_returns_from_the_end(moves: list[State]) -> None:
    status, was_final = Status(State.STARTING, 0.0, ""), False
    for number, to in enumerate(moves):
        if may(status, to):
            assert not was_final
            status = transition(status, to, float(number), "")
        else:
            with pytest.raises(InvalidTransitionError):
                transition(status, to, float(number), "")
        was_final = was_final or status.state is State.FAILED
        assert not (readiness(status, IDLE, 60).ok and not startup(status).ok)
        assert not (readiness(status, IDLE, 60).ok and not liveness(status, IDLE, 60).ok)


@given(running=st.integers(1, 100), idle=st.floats(0, 1e6), stall=st.floats(0.1, 1e4))
def test_busy_is_alive_exactly_while_tokens_come(running: int, idle: float, stall: float) -> None:
    verdict = liveness(reached(*READY), Activity(running, idle), stall)

    assert verdict.ok == (idle < stall)


@given(running=st.integers(0, 100), idle=st.floats(0, 1e6), stall=st.floats(0.1, 1e4))
def test_one_word_for_progress_says_what_both_probes_say(running: int, idle: float, stall: float) -> None:
    activity = Activity(running, idle)

    found = work(activity, stall)

    assert (found is Work.STALLED) == (not liveness(reached(*READY), activity, stall).ok)
    assert (found is Work.STALLED) == (not readiness(reached(*READY), activity, stall).ok)
    assert (found is Work.IDLE) == (running == 0)


def test_a_runtime_that_drains_is_not_ready_for_that_reason_stalled_or_not() -> None:
    draining = readiness(reached(*DRAINING), Activity(1, 61), 60)

    assert (draining.ok, draining.reason) == (False, reached(*DRAINING).reason)


@given(idle=st.floats(0, 1e9), stall=st.floats(0.1, 1e4))
def test_idle_is_alive_for_ever(idle: float, stall: float) -> None:
    assert liveness(reached(*READY), Activity(0, idle), stall).ok


def test_a_stall_says_how_long_and_how_many() -> None:
    verdict = liveness(reached(*READY), Activity(3, 61.2), 60)

    assert verdict.reason == "3 request(s) running and no token for 61 s (stall_seconds is 60)"


def test_a_hung_engine_is_reported_dead_while_draining_too() -> None:
    assert not liveness(reached(*DRAINING), Activity(1, 61), 60).ok
