"""One answer seen from the event loop. Layer: llm, light; asyncio.

The one idea: the engine's thread hands over everything it has to say in one call per turn, because waking
the event loop costs more than a token of a small model does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from agent_runtime.llm.base import Delta, GenerationError, Result

Event = Delta | Result | GenerationError


class LocalGeneration:
    """An answer the engine is making; a `Generation` of agent_runtime.llm.base."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._ended = asyncio.Event()
        self._cancelled = False
        self._on_cancel: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None

    def keep(self, task: asyncio.Task[None]) -> None:
        """Holds the task that starts it; the event loop itself would let go of it."""
        self._task = task

    def started(self, cancel: Callable[[], None]) -> None:
        """The engine has it; `cancel` makes it stop."""
        self._on_cancel = cancel
        if self._cancelled:
            cancel()

    def deliver(self, event: Event) -> None:
        """The next event. On the event loop."""
        if not isinstance(event, Delta):
            self._ended.set()
        if not self._cancelled:
            self._events.put_nowait(event)

    def fail(self, error: GenerationError) -> None:
        """Ends it from the event loop, whether or not the engine will ever say anything more."""
        if not self._ended.is_set():
            self.deliver(error)

    def cancel(self) -> None:
        """Whoever reads is told at once; the engine stops at its next step."""
        if self._cancelled or self._ended.is_set():
            return
        self._cancelled = True
        self._events.put_nowait(GenerationError("cancelled", "cancelled"))
        if self._on_cancel is not None:
            self._on_cancel()

    async def events(self) -> AsyncIterator[Delta | Result]:
        """Pieces, then the Result. Raises GenerationError."""
        while True:
            event = await self._events.get()
            while isinstance(event, Delta) and not self._events.empty():
                following = self._events.get_nowait()
                if not isinstance(following, Delta):
                    yield event
                    event = following
                    break
                # Whoever reads more slowly than the engine writes gets several tokens at once.
                event = event.followed_by(following)
            if isinstance(event, GenerationError):
                raise event
            yield event
            if isinstance(event, Result):
                return

    async def ended(self) -> None:
        """Returns once the engine has nothing left to do for it."""
        await self._ended.wait()
