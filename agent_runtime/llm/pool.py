"""Runs blocking generations in threads and hands their text to the event loop. Layer: llm, light.

The one idea: the event loop must answer probes whatever the model does, so generation happens in daemon
threads that nothing ever joins: a hung one can keep neither the server nor the exit waiting, which is what
concurrent.futures would do. Each generation runs alone in its thread; batching replaces this pool.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import copy_context

from agent_runtime.llm.base import Engine, GenerationError, Result, Sampling

log = logging.getLogger("agent_runtime.engine")

_SELF_CHECK = Sampling(max_tokens=1)


class Generation:
    """One request's generation, seen from the event loop."""

    def __init__(self, prompt: Sequence[int], sampling: Sampling) -> None:
        self.prompt, self.sampling = prompt, sampling
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[str | Result | Exception] = asyncio.Queue()
        self._cancelled = threading.Event()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Done once the engine's thread is free again, whether anybody read the answer or not."""
        self.context = copy_context()

    def cancel(self) -> None:
        """Nobody wants the answer any more; it stops at its next decode step."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled.is_set()

    def post(self, event: str | Result | Exception) -> None:
        """From the engine's thread: text, the result, or why there is none."""
        try:
            self._loop.call_soon_threadsafe(self._deliver, event)
        except RuntimeError:  # the loop is closed: the process is going away
            self.cancel()

    def _deliver(self, event: str | Result | Exception) -> None:
        self._events.put_nowait(event)
        if not isinstance(event, str) and not self.ended.done():
            self.ended.set_result(None)

    async def events(self) -> AsyncIterator[str | Result]:
        """The pieces of text, then the Result. Raises GenerationError."""
        while True:
            event = await self._events.get()
            if isinstance(event, Exception):
                raise event
            yield event
            if isinstance(event, Result):
                return


class EnginePool:
    """`size` threads, each generating for one request at a time.

    `on_crash(error)` is called from a thread when the engine cannot be used any more.
    """

    def __init__(self, engine: Engine, size: int, on_crash: Callable[[BaseException], None]) -> None:
        self._engine = engine
        self._on_crash = on_crash
        self._work: queue.SimpleQueue[Generation] = queue.SimpleQueue()
        self._active: set[Generation] = set()
        self._closed = False
        for number in range(size):
            threading.Thread(target=self._run, name=f"engine-{number}", daemon=True).start()

    def submit(self, prompt: Sequence[int], sampling: Sampling) -> Generation:
        """Starts a generation as soon as a thread is free. Call on the event loop."""
        generation = Generation(prompt, sampling)
        if self._closed:
            generation.cancel()
        self._active.add(generation)
        self._work.put(generation)
        return generation

    def close(self) -> None:
        """Stops every generation at its next decode step, and every later one before its first."""
        self._closed = True
        for generation in list(self._active):
            generation.cancel()

    def _run(self) -> None:
        while True:
            generation = self._work.get()
            try:
                generation.context.run(self._answer, generation)
            except BaseException as error:
                generation.post(GenerationError("the engine crashed"))
                self._on_crash(error)
                return
            finally:
                self._active.discard(generation)

    def _answer(self, generation: Generation) -> None:
        if generation.cancelled:
            generation.post(Result("", "cancelled", len(generation.prompt), 0))
            return
        try:
            result = self._engine.generate(
                generation.prompt, generation.sampling, generation.post, lambda: generation.cancelled
            )
        except GenerationError as error:
            log.exception("a generation failed")
            generation.post(error)
            self._check_engine()
        else:
            generation.post(result)

    def _check_engine(self) -> None:
        """After a failure: can the engine still make one token? Raises when not, which is a crash.

        A request may be at fault alone; a device in an error state (CUDA's errors are sticky) is everybody's.
        """
        self._engine.generate(self._engine.encode("ok"), _SELF_CHECK)
