"""Counts the engine's forward progress. Layer: beside the engine; standard library only.

The one idea: every step of the engine, whatever thread makes it, moves one counter, so a hung engine
shows as a counter that stands still while something runs, and a busy one never does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent_runtime.state import Activity


class Progress:
    """Thread-safe record of running generations and of the last step."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._running = 0
        self._steps = 0
        self._last = clock()

    def begin(self) -> None:
        """A generation waits for the engine or runs; the stall clock starts anew when it was idle."""
        with self._lock:
            if self._running == 0:
                self._last = self._clock()
            self._running += 1

    def end(self, *, stepped: bool = True) -> None:
        """A generation is over, however it went. `stepped` is False where the engine had no part in it: a
        request that is given up beside a hung engine must not make it look alive."""
        with self._lock:
            self._running -= 1
            if stepped:
                self._last = self._clock()

    @contextmanager
    def generation(self) -> Iterator[None]:
        """`begin` and `end` around a block."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def advance(self) -> None:
        """One step was made."""
        with self._lock:
            self._steps += 1
            self._last = self._clock()

    @property
    def steps(self) -> int:
        """Steps since the process began."""
        return self._steps

    def activity(self) -> Activity:
        """What liveness needs to know, now."""
        with self._lock:
            return Activity(self._running, max(0.0, self._clock() - self._last))
