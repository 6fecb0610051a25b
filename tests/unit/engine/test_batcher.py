"""The engine gives every row the answer it would get alone, whatever fails around it.

Each test counts the other requests that were harmed; the number is zero.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from agent_runtime.llm.base import Delta, GenerationError, Result
from tests.unit.engine.engines import POISON, Asked, Engine

PROMPTS = [[5 + number, 9, 20 + number, *range(30, 30 + number)] for number in range(12)]


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine of eight rows."""
    started = Engine()
    yield started
    started.close()


@pytest.fixture(scope="module")
def alone() -> dict[tuple[int, ...], list[int]]:
    """Each prompt's greedy answer when nobody else is there."""
    single = Engine(max_rows=1)
    answers = {tuple(prompt): single.ask(prompt).tokens() for prompt in PROMPTS}
    single.close()
    return answers


def unharmed(asked: list[Asked], alone: dict[tuple[int, ...], list[int]]) -> int:
    """How many of these got the answer they would have got alone."""
    return sum(one.tokens() == alone[tuple(one.row.prompt)] for one in asked)


def code(asked: Asked) -> str:
    """The code of the error it ended with."""
    outcome = asked.outcome()
    assert isinstance(outcome, GenerationError), outcome
    return outcome.code


def test_more_requests_than_rows_are_all_answered_as_each_alone(
    engine: Engine, alone: dict[tuple[int, ...], list[int]]
) -> None:
    assert unharmed([engine.ask(prompt) for prompt in PROMPTS], alone) == len(PROMPTS)


def test_a_newcomer_joins_rows_that_are_being_computed(
    engine: Engine, alone: dict[tuple[int, ...], list[int]]
) -> None:
    engine.decoder.hold.clear()
    first = engine.ask(PROMPTS[3])
    engine.decoder.held.wait(60)
    second = engine.ask(PROMPTS[7])
    engine.decoder.hold.set()

    assert unharmed([first, second], alone) == 2
    assert engine.decoder.starts == [1, 1]
    assert 2 in engine.decoder.steps


def test_a_streamed_answer_is_the_pieces_of_the_whole(engine: Engine) -> None:
    asked = engine.ask(PROMPTS[0], stream=True)

    outcome = asked.outcome()

    pieces = [event for event in asked.events if isinstance(event, Delta)]
    assert isinstance(outcome, Result)
    assert len(pieces) > 1
    assert pieces[0].tokens == 1, "the first token is sent at once"
    assert sum(piece.tokens for piece in pieces) == 8
    assert "".join(piece.text for piece in pieces) == outcome.text


def test_a_seed_gives_the_same_answer_alone_and_in_company(engine: Engine) -> None:
    rules = {"temperature": 1.3, "top_p": 0.9, "seed": 7}
    alone = engine.ask(PROMPTS[1], **rules).tokens()
    others = [engine.ask(prompt, temperature=1.0, seed=number) for number, prompt in enumerate(PROMPTS)]
    again = engine.ask(PROMPTS[1], **rules)

    assert again.tokens() == alone
    assert all(isinstance(other.outcome(), Result) for other in others)


def test_a_poisoned_row_fails_alone(engine: Engine, alone: dict[tuple[int, ...], list[int]]) -> None:
    engine.decoder.hold.clear()
    others = [engine.ask(PROMPTS[0])]
    engine.decoder.held.wait(60)
    engine.decoder.poison = True
    poisoned = engine.ask([POISON, 5, 6])
    others += [engine.ask(prompt) for prompt in PROMPTS[1:7]]
    engine.decoder.hold.set()

    assert code(poisoned) == "generation_failed"
    assert unharmed(others, alone) == 7
    assert engine.observed.recomputed_rows > 0
    assert not engine.crashed


def test_when_memory_runs_out_the_batch_is_split_and_the_too_large_request_alone_fails(
    engine: Engine, alone: dict[tuple[int, ...], list[int]]
) -> None:
    engine.decoder.room = 60
    others = [engine.ask(prompt) for prompt in PROMPTS[:8]]
    too_large = engine.ask([9] * 100)
    others += [engine.ask(prompt) for prompt in PROMPTS[8:]]

    assert code(too_large) == "out_of_memory"
    assert unharmed(others, alone) == len(PROMPTS)
    assert engine.observed.out_of_memory > 0
    assert not engine.crashed


def test_the_death_of_the_thread_costs_nobody_an_answer(
    engine: Engine, alone: dict[tuple[int, ...], list[int]]
) -> None:
    engine.decoder.hold.clear()
    asked = [engine.ask(prompt, stream=True) for prompt in PROMPTS]
    engine.decoder.held.wait(60)
    engine.decoder.deaths = 2
    engine.decoder.hold.set()

    assert unharmed(asked, alone) == len(PROMPTS)
    assert engine.observed.restarts == 2
    assert not engine.crashed


def test_a_thread_that_dies_again_and_again_is_a_crash_that_tells_everybody(engine: Engine) -> None:
    engine.decoder.deaths = 1000

    asked = [engine.ask(prompt) for prompt in PROMPTS[:3]]

    assert {code(one) for one in asked} == {"generation_failed"}
    assert len(engine.crashed) == 1
    assert code(engine.ask(PROMPTS[0])) == "generation_failed"


def test_an_engine_that_cannot_make_one_token_is_lost(engine: Engine) -> None:
    engine.decoder.broken = True

    asked = [engine.ask(prompt) for prompt in PROMPTS[:4]]

    assert {code(one) for one in asked} == {"generation_failed"}
    assert [str(error) for error in engine.crashed] == ["the device is lost"]


def test_a_cancelled_row_leaves_at_the_next_step_and_the_others_stay(
    engine: Engine, alone: dict[tuple[int, ...], list[int]]
) -> None:
    engine.decoder.hold.clear()
    leaver, stayer = engine.ask(PROMPTS[2], 200), engine.ask(PROMPTS[4])
    engine.decoder.held.wait(60)
    leaver.row.cancelled = True
    engine.decoder.hold.set()

    assert code(leaver) == "cancelled"
    assert len(leaver.row.ids) < 5
    assert unharmed([stayer], alone) == 1


def test_past_its_deadline_a_row_ends_running_or_waiting(engine: Engine) -> None:
    past = time.monotonic() - 1
    engine.decoder.hold.clear()
    running = engine.ask(PROMPTS[0], 100)
    engine.decoder.held.wait(60)
    running.row.deadline = past
    waiting = engine.ask(PROMPTS[1], deadline=past)
    engine.decoder.hold.set()

    assert (code(running), code(waiting)) == ("deadline_exceeded", "deadline_exceeded")


def test_closing_tells_running_and_later_rows(engine: Engine) -> None:
    engine.decoder.hold.clear()
    running = engine.ask(PROMPTS[0], 100)
    engine.decoder.held.wait(60)
    engine.batcher.close()
    engine.decoder.hold.set()
    later = engine.ask(PROMPTS[1])

    assert (code(running), code(later)) == ("server_draining", "server_draining")


def test_more_rows_are_allowed_while_running(engine: Engine, alone: dict[tuple[int, ...], list[int]]) -> None:
    engine.batcher.configure(2, None)
    engine.decoder.hold.clear()
    asked = [engine.ask(prompt) for prompt in PROMPTS]
    engine.decoder.held.wait(60)
    engine.batcher.configure(12, None)
    engine.decoder.hold.set()

    assert unharmed(asked, alone) == len(PROMPTS)
    assert max(engine.decoder.steps) > 2


def test_a_batch_that_nobody_can_join_waits_for_company_but_not_for_ever() -> None:
    engine = Engine(max_rows=2, wait=0.02, family="mistral")
    assert not engine.decoder.may_join

    together = [engine.ask(prompt) for prompt in PROMPTS[:2]]
    alone = engine.ask(PROMPTS[2])

    assert all(isinstance(one.outcome(), Result) for one in (*together, alone))
    assert engine.decoder.starts[0] == 2
    engine.close()


def test_other_work_is_done_between_turns_and_its_failure_is_its_own(engine: Engine) -> None:
    asked = engine.ask(PROMPTS[0])
    done = engine.batcher.run(lambda: 6 * 7)
    failed = engine.batcher.run(lambda: 1 // 0)

    assert done.result(60) == 42
    assert isinstance(failed.exception(60), ZeroDivisionError)
    assert isinstance(asked.outcome(), Result)


def test_progress_counts_what_waits_and_what_runs_and_nothing_when_idle(engine: Engine) -> None:
    engine.decoder.hold.clear()
    asked = [engine.ask(prompt) for prompt in PROMPTS]
    engine.decoder.held.wait(60)
    busy = engine.progress.activity().running
    engine.decoder.hold.set()
    for one in asked:
        one.outcome()
    engine.batcher.run(lambda: None).result(60)

    assert busy == len(PROMPTS)
    assert engine.progress.steps > 0
