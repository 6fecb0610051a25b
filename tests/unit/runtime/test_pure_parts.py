"""Small pure pieces: progress, Retry-After, CPU share, life cycle, message rendering."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.admission import retry_after_seconds
from agent_runtime.lifecycle import Lifecycle
from agent_runtime.llm.chat import Message, render_plain, with_system_prompt
from agent_runtime.llm.cpu import quota_cpus, threads
from agent_runtime.progress import Progress
from agent_runtime.state import State


class Clock:
    """A clock the test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_stall_time_counts_from_the_start_of_a_generation_not_from_the_idle_time_before_it() -> None:
    clock = Clock()
    progress = Progress(clock)
    clock.now += 1000

    with progress.generation():
        clock.now += 5
        during = progress.activity()

    assert (during.running, during.idle_seconds) == (1, 5)
    assert progress.activity().running == 0


def test_each_step_starts_the_stall_time_anew() -> None:
    clock = Clock()
    progress = Progress(clock)
    with progress.generation():
        clock.now += 50
        progress.advance()
        clock.now += 2

        assert progress.activity().idle_seconds == 2
    assert progress.steps == 1


def test_a_second_generation_does_not_hide_that_the_first_hangs() -> None:
    clock = Clock()
    progress = Progress(clock)
    with progress.generation():
        clock.now += 50
        with progress.generation():
            clock.now += 20

            assert progress.activity().idle_seconds == 70


def test_a_request_given_up_beside_a_hung_engine_does_not_make_it_look_alive() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.begin()
    progress.begin()
    clock.now += 70

    progress.end(stepped=False)

    assert (progress.activity().running, progress.activity().idle_seconds) == (1, 70)


@pytest.mark.parametrize(
    ("ahead", "slots", "mean", "expected"),
    [(0, 1, 0.01, 1), (3, 1, 2.0, 8), (3, 4, 2.0, 2), (100, 1, 10.0, 60)],
)
def test_retry_after_is_the_time_until_a_place_is_free(
    ahead: int, slots: int, mean: float, expected: int
) -> None:
    assert retry_after_seconds(ahead, slots, mean) == expected


@given(st.integers(0, 10**6), st.integers(1, 10**4), st.floats(0, 1e6))
def test_retry_after_is_always_between_one_second_and_a_minute(ahead: int, slots: int, mean: float) -> None:
    assert 1 <= retry_after_seconds(ahead, slots, mean) <= 60


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_the_cpu_share_is_read_from_either_cgroup_version(
    tmp_path: Path, files: dict[str, str], expected: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert quota_cpus(tmp_path) == expected


@pytest.mark.parametrize(
    ("quota", "cores", "expected"), [(None, 8, 8), (0.5, 8, 1), (1.5, 8, 1), (3.9, 8, 3), (16.0, 8, 8)]
)
def test_threads_never_exceed_the_share_or_the_cores(quota: float | None, cores: int, expected: int) -> None:
    assert threads(quota, cores) == expected


def test_a_move_that_comes_too_late_is_dropped() -> None:
    entered: list[State] = []
    lifecycle = Lifecycle(entered.append)
    lifecycle.move(State.LOADING, "")
    lifecycle.move(State.DRAINING, "SIGTERM received")

    assert not lifecycle.move(State.WARMING, "loaded after all")
    assert lifecycle.status.reason == "SIGTERM received"
    assert entered == [State.STARTING, State.LOADING, State.DRAINING]


def test_concurrent_moves_leave_exactly_one_winner() -> None:
    lifecycle = Lifecycle()
    lifecycle.move(State.LOADING, "")
    won: list[bool] = []
    racers = [
        threading.Thread(target=lambda: won.append(lifecycle.move(State.FAILED, "crash"))) for _ in range(8)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()

    assert sorted(won) == [False] * 7 + [True]


@given(st.text())
def test_a_single_question_reaches_the_model_unchanged(question: str) -> None:
    assert render_plain([Message("user", question)]) == question


def test_a_system_prompt_comes_first_on_its_own_line() -> None:
    messages = with_system_prompt([Message("user", "What is the capital of France?")], "Answer in one word.")

    assert render_plain(messages) == "Answer in one word.\nWhat is the capital of France?"


def test_no_system_prompt_adds_nothing() -> None:
    assert with_system_prompt([Message("user", "Hi")], None) == (Message("user", "Hi"),)


def test_a_conversation_names_its_speakers_and_ends_where_the_model_speaks() -> None:
    messages = [
        Message("user", "Capital of France?"),
        Message("assistant", "Paris"),
        Message("system", "Be brief."),
        Message("user", "And of Italy?"),
    ]

    assert render_plain(messages) == (
        "Be brief.\nUser: Capital of France?\nAssistant: Paris\nUser: And of Italy?\nAssistant:"
    )
