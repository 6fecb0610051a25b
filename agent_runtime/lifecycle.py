"""Holds the one Status of the process. Layer: beside the engine; standard library and `state` only.

The one idea: state changes come from the loader's thread, an engine's thread and a signal handler; here they
are put in order, and a move that came too late (a model finishing its load after SIGTERM) is dropped, not an
error.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from agent_runtime.state import State, Status, may, transition

log = logging.getLogger("agent_runtime.state")


class Lifecycle:
    """The current status, changed from any thread."""

    def __init__(
        self, on_enter: Callable[[State], None] = lambda state: None, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock, self._on_enter = clock, on_enter
        self._lock = threading.Lock()
        self._status = Status(State.STARTING, clock(), "the process has started")
        on_enter(State.STARTING)

    @property
    def status(self) -> Status:
        """The status now."""
        return self._status

    def move(self, to: State, reason: str) -> bool:
        """Enter a state when it may follow the present one; whether it did."""
        with self._lock:
            before = self._status
            if not may(before, to):
                return False
            now = self._clock()
            self._status = transition(before, to, now, reason)
            self._on_enter(to)
        seconds = round(now - before.since, 3)
        log.info(
            "%s -> %s: %s", before.state, to, reason,
            extra={"fields": {"state": to.value, "previous_seconds": seconds}},
        )  # fmt: skip
        return True
