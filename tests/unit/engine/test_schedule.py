"""Rows start together where that is cheap, and nobody waits longer than configured."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.llm.schedule import Situation, Waiting, bucket, may_share, plan

ROWS = st.lists(st.builds(Waiting, st.integers(1, 4000), st.floats(0, 5)), max_size=30)
SITUATIONS = st.builds(
    Situation, ROWS, running=st.integers(0, 40), capacity=st.integers(1, 40), wait=st.floats(0, 1),
    max_tokens=st.integers(1, 8192),
)  # fmt: skip


@given(SITUATIONS)
def test_a_start_fits_and_holds_rows_of_one_length_bucket(situation: Situation) -> None:
    start = plan(situation)
    chosen = [situation.waiting[number] for number in start.rows]

    assert len(set(start.rows)) == len(chosen)
    assert len(chosen) <= max(0, situation.capacity - situation.running)
    assert len({bucket(row.tokens) for row in chosen}) <= 1
    if len(chosen) > 1:
        assert len(chosen) * max(row.tokens for row in chosen) <= situation.max_tokens


@given(SITUATIONS)
def test_whoever_has_waited_long_enough_starts_when_there_is_room(situation: Situation) -> None:
    room = situation.capacity > situation.running
    due = any(row.waited >= situation.wait for row in situation.waiting)

    start = plan(situation)

    if room and due:
        oldest = max(range(len(situation.waiting)), key=lambda n: situation.waiting[n].waited)
        assert oldest in start.rows


@given(SITUATIONS)
def test_nobody_is_forgotten(situation: Situation) -> None:
    start = plan(situation)

    # Either rows start, or there is a time to look again, or nobody waits, or there is no room.
    room = situation.capacity > situation.running
    assert start.rows or start.look_again is not None or not situation.waiting or not room
    if start.look_again is not None:
        assert 0 < start.look_again <= situation.wait


@given(st.integers(1, 100_000))
def test_a_bucket_holds_lengths_within_a_factor_of_two(tokens: int) -> None:
    assert bucket(tokens) <= bucket(tokens + 1) <= bucket(tokens) + 1
    assert bucket(2 * tokens) >= bucket(tokens)
    assert tokens <= 32 or bucket(2 * tokens) == bucket(tokens) + 1


def test_newcomers_gather_while_many_run_and_start_at_once_while_none_does() -> None:
    newcomer = Waiting(10, 0.0)

    assert plan(Situation([newcomer], 0, 32, 0.0, 8192)).rows == (0,)
    assert plan(Situation([newcomer], 24, 32, 0.01, 8192)).look_again == 0.01
    assert plan(Situation([newcomer] * 3, 24, 32, 0.01, 8192)).rows == (0, 1, 2)


def test_caches_are_shared_while_padding_is_cheap() -> None:
    assert may_share(8, 100, 1, 10, 10**9)
    assert may_share(8, 2000, 8, 1500, 10**9)
    assert not may_share(1, 8000, 31, 20, 10**9)
    assert not may_share(8, 100, 1, 10, 500)
