"""Candidates for a decision when the caller has none: answers the model itself gives. Layer: decision, shell.

The one idea: sampling only proposes, scoring decides. A proposal's probability is not its frequency among n
draws but its exact score, so few draws are enough to find what is likely: at temperature 1 an answer of
probability P is among n draws with probability 1 - (1 - P)^n, and the distribution's `mass` then tells how
much of the whole was found.

Beam search is not offered. A backend scores whole answers and reports alternatives only along the tokens it
generated, so a beam built on it would have to guess the continuations of every other prefix; and what beams
would find is, like here, a list of proposals without any guarantee to hold the likeliest answer.

A proposal is scored as the text it is: when the model happened to spell it with unusual tokens, the score is
that of the tokenizer's own spelling.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from agent_runtime.decision.seeds import sample_seed
from agent_runtime.llm.base import Backend, Encoded, Generation, GenerationError, Result, Sampling, Text


@dataclass(frozen=True, slots=True)
class Samples:
    """The distinct complete answers, in the order of their draws; the tokens generated for all draws; and
    how many draws were cut off at the token limit and left out, because they are no whole answers."""

    texts: tuple[str, ...]
    completion_tokens: int
    unfinished: int


async def candidates_from_samples(
    backend: Backend,
    encoded: Encoded,
    *,
    n: int,
    temperature: float,
    seed: int,
    max_tokens: int,
    deadline: float | None = None,
) -> Samples:
    """n answers drawn at once, each with a seed of its own made from `seed`. Raises GenerationError.

    `max_tokens` bounds each answer; `deadline` is in seconds of `time.monotonic`. Once it has returned,
    raised or been cancelled, the backend has nothing left to do for it.
    """
    generations = [
        backend.generate(
            encoded, Sampling(max_tokens, temperature, seed=sample_seed(seed, draw)), deadline, stream=False
        )
        for draw in range(n)
    ]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_result(generation)) for generation in generations]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    finally:
        for generation in generations:
            generation.cancel()
        for generation in generations:
            await generation.ended()
    results = [task.result() for task in tasks]
    complete = [result.text for result in results if result.finish_reason == "stop"]
    return Samples(
        texts=_distinct(backend, complete),
        completion_tokens=sum(result.completion_tokens for result in results),
        unfinished=len(results) - len(complete),
    )


def _distinct(backend: Backend, texts: Sequence[str]) -> tuple[str, ...]:
    """Each text once; texts of the same tokens are the same answer, whose probability must count once."""
    first: dict[object, str] = {}
    for text in texts:
        first.setdefault(backend.encode(Text(text)).ids or text, text)
    return tuple(first.values())


async def _result(generation: Generation) -> Result:
    result = None
    async for event in generation.events():
        if isinstance(event, Result):
            result = event
    if result is None:
        raise GenerationError("the model's answer ended without a result")
    return result
