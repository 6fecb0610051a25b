"""transformers' continuous batching answers as the batcher does, and its death costs nobody an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from agent_runtime.llm.base import GenerationError, Result, Sampling
from agent_runtime.llm.paged import DEATHS, PagedEngine, sharing_weights
from agent_runtime.llm.row import Row
from agent_runtime.llm.sampling import RowSampler
from agent_runtime.progress import Progress
from tests.unit.engine.engines import Asked, Codec, Engine
from tests.unit.engine.models import VOCABULARY, build

PROMPTS = [[5 + number, 9, 20 + number, *range(30, 30 + number)] for number in range(6)]


class Both:
    """A paged engine with a batcher behind it, over the same weights."""

    def __init__(self) -> None:
        self.dense = Engine()
        self.paged = PagedEngine(
            build("llama"), frozenset({2}), VOCABULARY, self.dense.progress, max_rows=8,
            flush=lambda: None, rescue=self.dense.batcher.submit, observer=self.dense.observed,
        )  # fmt: skip

    def ask(self, prompt: list[int], max_tokens: int = 8, stream: bool = False, **rules: Any) -> Asked:
        """Submits one request to the paged engine."""
        asked: Asked

        def emit(row: Row, event: Any) -> None:
            asked.events.append(event)
            if isinstance(event, Result | GenerationError):
                asked.over.set()

        sampling = Sampling(max_tokens, ignore_eos=True, **rules)
        assert self.paged.takes(sampling)
        row = Row(prompt, RowSampler(sampling), Codec(), emit, arrived=time.monotonic(), deadline=None,
                  stream=stream)  # type: ignore[arg-type]  # fmt: skip
        asked = Asked(row)
        self.paged.submit(row)
        return asked

    def close(self) -> None:
        self.paged.close()
        self.paged._thread.join(60)
        self.dense.close()


@pytest.fixture
def engines() -> Iterator[Both]:
    both = Both()
    yield both
    both.close()


@pytest.fixture(scope="module")
def alone() -> dict[tuple[int, ...], list[int]]:
    """Each prompt's greedy answer from the batcher."""
    single = Engine(max_rows=1)
    answers = {tuple(prompt): single.ask(prompt).tokens() for prompt in PROMPTS}
    single.close()
    return answers


def unharmed(asked: list[Asked], alone: dict[tuple[int, ...], list[int]]) -> int:
    return sum(one.tokens() == alone[tuple(one.row.prompt)] for one in asked)


def replaced(engines: Both, died: Any) -> bool:
    """Whether another manager came; waits for it."""
    end = time.monotonic() + 60
    while engines.paged.manager is died and time.monotonic() < end:
        time.sleep(0.01)
    return engines.paged.manager is not died


def test_greedy_answers_are_those_of_the_batcher(
    engines: Both, alone: dict[tuple[int, ...], list[int]]
) -> None:
    asked = [engines.ask(prompt) for prompt in PROMPTS]

    assert unharmed(asked, alone) == len(PROMPTS)
    assert engines.dense.decoder.starts == []


def test_a_stop_string_ends_an_answer_that_the_manager_would_go_on_with(
    engines: Both, alone: dict[tuple[int, ...], list[int]]
) -> None:
    expected = alone[tuple(PROMPTS[1])]

    outcome = engines.ask(PROMPTS[1], 64, stop=(f"{expected[3]} ",)).outcome()

    assert isinstance(outcome, Result)
    assert outcome.finish_reason == "stop"
    assert [int(word) for word in outcome.text.split()] == expected[: expected.index(expected[3])]


def test_when_the_manager_dies_its_rows_go_on_in_the_batcher_and_newcomers_get_a_new_manager(
    engines: Both, alone: dict[tuple[int, ...], list[int]]
) -> None:
    died = engines.paged.manager
    reached = threading.Event()

    def poisoned(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            if any(len(row.ids) >= 2 for row in list(engines.paged._rows.values())):
                reached.set()
                raise RuntimeError("top_k is above the vocabulary")
            return original(*arguments)

        return step

    died._generation_step = poisoned(died._generation_step)
    asked = [engines.ask(prompt) for prompt in PROMPTS]
    assert reached.wait(60)

    assert unharmed(asked, alone) == len(PROMPTS)
    assert replaced(engines, died)
    assert engines.dense.observed.restarts == 1
    assert engines.dense.observed.recomputed_rows == len(PROMPTS)
    assert unharmed([engines.ask(prompt) for prompt in PROMPTS], alone) == len(PROMPTS)


def test_managers_that_cannot_begin_are_given_up_and_the_batcher_answers(
    engines: Both, alone: dict[tuple[int, ...], list[int]]
) -> None:
    engines.paged._cache_size = lambda: {"num_blocks": 10**9}  # type: ignore[method-assign]
    first = engines.ask(PROMPTS[0], 4)
    assert len(first.tokens()) == 4

    def broken() -> None:
        raise RuntimeError("out of memory")

    engines.paged.manager._generation_step = broken
    asked = [engines.ask(prompt) for prompt in PROMPTS]

    assert unharmed(asked, alone) == len(PROMPTS)
    engines.paged._thread.join(60)
    assert engines.dense.observed.restarts == DEATHS
    assert not engines.paged.takes(Sampling(8))
    assert not engines.paged.manager.is_running()
    assert unharmed([engines.dense.ask(prompt) for prompt in PROMPTS], alone) == len(PROMPTS)


def test_the_dead_manager_has_stopped_before_the_next_one_begins(engines: Both) -> None:
    died, made = engines.paged.manager, engines.paged._new_manager
    assert len(engines.ask(PROMPTS[0]).tokens()) == 8
    held: list[Any] = []

    def noting() -> Any:
        held.append(died.batch_processor)
        return made()

    def broken() -> None:
        raise RuntimeError("a fault")

    engines.paged._new_manager = noting  # type: ignore[method-assign]
    died._generation_step = broken
    assert len(engines.ask(PROMPTS[1]).tokens()) == 8

    assert replaced(engines, died)
    assert held == [None]


def test_an_answer_longer_than_its_cache_is_not_taken(engines: Both) -> None:
    assert len(engines.ask(PROMPTS[0]).tokens()) == 8  # the cache is there
    room = 8 * 8 * 256

    assert engines.paged.takes(Sampling(8), room - 8)
    assert not engines.paged.takes(Sampling(8), room - 7)


def test_cancelled_and_late_rows_leave(engines: Both) -> None:
    leaver, late = engines.ask(PROMPTS[0], 100_000), engines.ask(PROMPTS[1], 100_000)
    leaver.row.cancelled = True
    late.row.deadline = time.monotonic() - 1

    outcomes = [leaver.outcome(), late.outcome()]

    codes = [outcome.code for outcome in outcomes if isinstance(outcome, GenerationError)]
    assert codes == ["cancelled", "deadline_exceeded"]


def test_rows_that_are_given_up_do_not_hide_that_the_manager_hangs(
    engines: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    engines.paged._progress = progress = Progress(lambda: now)
    monkeypatch.setattr(engines.paged.manager, "add_request", lambda *given, **named: "taken, and forgotten")
    engines.ask(PROMPTS[0])
    given_up = engines.ask(PROMPTS[1])
    now = 70.0

    given_up.row.cancelled = True

    assert isinstance(given_up.outcome(), GenerationError)
    end = time.monotonic() + 60
    while progress.activity().running > 1 and time.monotonic() < end:
        time.sleep(0.01)
    assert (progress.activity().running, progress.activity().idle_seconds) == (1, 70)


def test_a_top_k_above_the_vocabulary_kills_nobody(engines: Both) -> None:
    asked = engines.ask(PROMPTS[0], temperature=1.0, top_k=10 * VOCABULARY)

    assert isinstance(asked.outcome(), Result)
    assert engines.dense.observed.restarts == 0


@pytest.mark.parametrize(
    "rules",
    [
        {"temperature": 1.0, "seed": 1},
        {"top_logprobs": 0},
        {"presence_penalty": 0.1},
        {"logit_bias": ((1, 1.0),)},
        {"min_tokens": 2},
    ],
)
def test_what_it_cannot_do_right_it_does_not_take(engines: Both, rules: dict[str, Any]) -> None:
    assert not engines.paged.takes(Sampling(8, **rules))


def test_the_second_module_has_the_first_ones_weights_and_its_own_configuration() -> None:
    model = build("llama")
    second = sharing_weights(model)

    second.set_attn_implementation("eager")

    assert model.config._attn_implementation != "eager"
    pairs = zip(model.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) and a.data_ptr() == b.data_ptr() for a, b in pairs)
