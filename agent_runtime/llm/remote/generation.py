"""One answer being made, seen from the event loop. Layer: llm.remote; asyncio only.

The one idea: the work runs in a task of its own, so it ends whether or not anybody reads it, and cancelling
it is cancelling the task, which closes the connection. The queue between them needs no bound of its own:
what a remote may send is bounded by the tokens asked for (see backend.answer_bytes).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Generic, TypeVar

from agent_runtime.llm.base import GenerationError

log = logging.getLogger("agent_runtime.remote")

T = TypeVar("T")


class Running(Generic[T]):
    """Work that yields events; implements base.Generation for Delta and Result. `ended(self)` is called when
    the work has ended, however."""

    def __init__(self, source: AsyncGenerator[T, None], ended: Callable[[Running[T]], None]) -> None:
        self._queue: asyncio.Queue[T | GenerationError | None] = asyncio.Queue()
        self._stopped = False
        self._task = asyncio.get_running_loop().create_task(self._run(source))
        # A callback and not the end of `_run`: a task cancelled before its first step never gets there.
        self._task.add_done_callback(self._finished)
        self._task.add_done_callback(lambda _: ended(self))

    async def events(self) -> AsyncIterator[T]:
        """Pieces, then the end. Raises GenerationError."""
        while (event := await self._queue.get()) is not None:
            if isinstance(event, GenerationError):
                raise event
            yield event

    def cancel(self) -> None:
        """Nobody wants the answer any more: whoever reads is told at once, and the connection is closed."""
        self.fail(GenerationError("The generation was cancelled.", "cancelled"))

    def fail(self, why: GenerationError) -> None:
        """Stops the work; whoever reads gets `why` at once. Harmless when it is done."""
        if not self._stopped and not self._task.done():
            self._stopped = True
            self._queue.put_nowait(why)
            self._task.cancel()

    async def ended(self) -> None:
        """Returns once the connection is given back or closed."""
        await asyncio.wait({self._task})

    async def _run(self, source: AsyncGenerator[T, None]) -> None:
        async with aclosing(source) as events:
            async for event in events:
                self._queue.put_nowait(event)

    def _finished(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if not self._stopped:  # by whoever ends the event loop
                self._queue.put_nowait(GenerationError("The generation was cancelled.", "cancelled"))
        elif (error := task.exception()) is None:
            self._queue.put_nowait(None)
        elif isinstance(error, GenerationError):
            self._queue.put_nowait(error)
        else:
            log.error("a generation failed", exc_info=error)
            self._queue.put_nowait(GenerationError("The generation failed; see the log."))
