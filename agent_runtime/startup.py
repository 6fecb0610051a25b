"""Where the seconds of a start go. Layer: app, pure; the standard library, its clock is given.

The one idea: the phases `start`, `fetch`, `load`, `warmup` and `agent` follow each other without a gap from
the process's first moment to READY, so their sum is `ready`, and whoever asks why a start was slow finds
every second in one of them. What the loader tells of its own steps are parts of them, under names of their
own: `resolve` and `download` are `fetch`, `import` is `start`, the others are `load`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

START, FETCH, LOAD, WARMUP, AGENT, READY = "start", "fetch", "load", "warmup", "agent", "ready"
FIRST_TOKEN = "first_token"  # noqa: S105 - a phase
_PART_OF = {"import": START, "resolve": FETCH, "download": FETCH}


class Startup:
    """Told what happens, tells the seconds of each phase as soon as they are known.

    `began` is when the process started, by the same clock.
    """

    def __init__(
        self, began: float, tell: Callable[[str, float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._began, self._tell, self._clock = began, tell, clock
        self._mark = began
        self._configured = 0.0
        self._parts = {START: 0.0, FETCH: 0.0}

    def configured(self) -> None:
        """The process has its configuration and begins to bring its model here."""
        self._configured = self._lap()

    def part(self, name: str, seconds: float) -> None:
        """A step of the loader ended. From any thread."""
        if (phase := _PART_OF.get(name)) is not None:
            self._parts[phase] += seconds
        self._tell(name, seconds)

    def loaded(self) -> None:
        """The model can compute."""
        lap, imported, fetched = self._lap(), self._parts[START], self._parts[FETCH]
        self._tell(START, self._configured + imported)
        self._tell(FETCH, fetched)
        self._tell(LOAD, max(0.0, lap - imported - fetched))

    def warmed(self, first_token: float | None) -> None:
        """It has answered once, its first token after so many seconds; None: there was nothing to warm."""
        self._tell(WARMUP, self._lap())
        if first_token is not None:
            self._tell(FIRST_TOKEN, first_token)

    def ready(self) -> None:
        """The agent around it is there."""
        self._tell(AGENT, self._lap())
        self._tell(READY, self._mark - self._began)

    def _lap(self) -> float:
        now = self._clock()
        lap, self._mark = now - self._mark, now
        return lap
