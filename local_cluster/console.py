"""What the user sees while waiting.

Layer: bottom. The one idea: on a terminal a long step is one line that is rewritten; in a log it is one line
every quarter of a minute.
"""

from __future__ import annotations

import sys
import time


def say(message: str) -> None:
    """Print one line at once, also through a pipe."""
    print(message, flush=True)


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.4s, 42s, 3m12s."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


class Progress:
    """A line about a step that takes long, not repeated more often than a reader can use."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self._terminal = sys.stdout.isatty()
        self._interval = 1.0 if self._terminal else 15.0
        self._next = 0.0

    @property
    def elapsed(self) -> str:
        """Time since the step began."""
        return duration(time.monotonic() - self.started)

    def show(self, message: str) -> None:
        """Show the message if the last one has been standing long enough."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._interval
        if self._terminal:
            print(f"\r\033[K{message[:160]}", end="", flush=True)
        else:
            say(message)

    def done(self, message: str) -> None:
        """Replace the line by its outcome."""
        if self._terminal:
            print("\r\033[K", end="")
        say(message)
