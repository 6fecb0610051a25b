"""The choices of one request while they are generated. Layer: api.

The one idea: whoever reads an answer, as a whole or as a stream, reads one sequence of events; that its
first event is waited for before anything is sent lets an error be an HTTP status and not a broken stream;
that pieces which piled up are read as one lets a slow reader cost less, not more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

from starlette.types import Receive

from agent_runtime.api import errors
from agent_runtime.api.disconnect import ClientGoneError, disconnected
from agent_runtime.llm.base import Delta, Generation, GenerationError, Result, TokenLogprob
from agent_runtime.observability.recorder import RequestRecord

Event = Delta | Result


@dataclass(slots=True)
class Choice:
    """One finished answer."""

    result: Result
    logprobs: tuple[TokenLogprob, ...]


class Answer:
    """Some generations in progress. Read `events` or `collect`, once; `close` in any case."""

    def __init__(
        self,
        record: RequestRecord,
        generations: Sequence[Generation],
        release: Callable[[], None],
        grammar_field: str = "",
    ) -> None:
        """`release` is called once the engine is done with it; `grammar_field` is what a bad grammar is
        blamed on."""
        self.record = record
        self._grammar_field = grammar_field
        self.on_tokens: Callable[[int], None] = lambda count: None
        self._generations, self._release = list(generations), release
        self._open = set(range(len(self._generations)))
        self._results: dict[int, Result] = {}
        self._source = self._all()
        self._first: tuple[int, Event] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._freeing = asyncio.ensure_future(self._release_when_made())

    def watch(self, receive: Receive) -> None:
        """Cancels everything when the client leaves; reading then raises ClientGoneError."""
        self._watcher = asyncio.ensure_future(self._leave_with(receive))

    async def _leave_with(self, receive: Receive) -> None:
        await disconnected(receive)
        self.cancel()

    def cancel(self) -> None:
        """Nobody reads on."""
        for generation in self._generations:
            generation.cancel()

    async def wait_first(self) -> None:
        """Returns once something was generated. Raises ApiError when nothing can be, or ClientGoneError."""
        with suppress(StopAsyncIteration):
            self._first = await anext(self._source)

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """The number of a choice and its next piece or result. Raises ApiError or ClientGoneError."""
        if self._first is not None:
            yield self._first
        async with aclosing(self._source) as source:  # type: ignore[type-var]
            async for item in source:
                yield item

    async def collect(self) -> list[Choice]:
        """Every choice, finished. Raises ApiError or ClientGoneError."""
        logprobs: list[list[TokenLogprob]] = [[] for _ in self._generations]
        async for number, event in self.events():
            if isinstance(event, Delta):
                logprobs[number].extend(event.logprobs)
        return [
            Choice(self._results[number], tuple(logprobs[number])) for number in range(len(self._generations))
        ]

    def total(self) -> Result:
        """All choices as one, for usage: the prompt counted once."""
        results = [self._results[number] for number in sorted(self._results)]
        first = results[0]
        generated = sum(result.completion_tokens for result in results)
        return Result(first.text, first.finish_reason, first.prompt_tokens, generated, first.first_token_at)

    def close(self) -> None:
        """The request is over, whatever became of it."""
        self.record.aborted()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._open:
            self.cancel()

    async def _release_when_made(self) -> None:
        """The slot is free when the engine is: later than a client's leaving, and long before a client that
        reads slowly has read everything."""
        try:
            for generation in self._generations:
                await generation.ended()
        finally:
            self._release()

    async def _all(self) -> AsyncIterator[tuple[int, Event]]:
        source = self._one(0) if len(self._generations) == 1 else self._merged()
        async with aclosing(source) as events:  # type: ignore[type-var]
            async for item in events:
                number, event = item
                if isinstance(event, Delta):
                    self.record.piece(number, event.tokens)
                else:
                    self._results[number] = event
                    if len(self._results) == len(self._generations):
                        self._account()
                yield item

    def _account(self) -> None:
        total = self.total()
        if total.first_token_at is not None:
            self.record.first_token(total.first_token_at)
        self.record.finished(total)
        self.on_tokens(total.prompt_tokens + total.completion_tokens)

    async def _one(self, number: int) -> AsyncIterator[tuple[int, Event]]:
        try:
            async for event in self._generations[number].events():
                if isinstance(event, Result):
                    self._open.discard(number)
                yield number, event
        except GenerationError as error:
            if error.code == "cancelled":
                raise ClientGoneError from error
            self._open.discard(number)
            refusal = errors.from_generation(error, self._grammar_field)
            self.record.failed(refusal.code)
            raise refusal from error

    async def _merged(self) -> AsyncIterator[tuple[int, Event]]:
        queue: asyncio.Queue[tuple[int, Event] | BaseException] = asyncio.Queue()

        async def pump(number: int) -> None:
            try:
                async for item in self._one(number):
                    queue.put_nowait(item)
            except (errors.ApiError, ClientGoneError) as error:
                queue.put_nowait(error)

        pumps = [asyncio.ensure_future(pump(number)) for number in range(len(self._generations))]
        left = len(pumps)
        try:
            while left:
                item = await queue.get()
                if isinstance(item, BaseException):
                    raise item
                left -= isinstance(item[1], Result)
                yield item
        finally:
            for task in pumps:
                task.cancel()
