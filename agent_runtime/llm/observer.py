"""What the engine tells about itself. Layer: llm, light.

The one idea: the engine knows no metric names; it reports what happened to whoever listens.
"""

from __future__ import annotations

from typing import Protocol


class EngineObserver(Protocol):
    """Called from the engine's thread; must return at once and never raise."""

    def started(self, rows: int, positions: int, padded: int, seconds: float) -> None:
        """Rows were started: real and padded positions read, and how long it took."""
        ...

    def stepped(self, rows: int, seconds: float) -> None:
        """Each of so many rows made one token."""
        ...

    def recomputed(self, rows: int, out_of_memory: bool) -> None:
        """A step failed; so many rows are started again from what they had."""
        ...

    def restarted(self) -> None:
        """The engine's thread died and was replaced."""
        ...

    def scored(self, candidates: int, seconds: float) -> None:
        """So many candidates were scored."""
        ...


class Silent:
    """Nobody listens."""

    def started(self, rows: int, positions: int, padded: int, seconds: float) -> None: ...

    def stepped(self, rows: int, seconds: float) -> None: ...

    def recomputed(self, rows: int, out_of_memory: bool) -> None: ...

    def restarted(self) -> None: ...

    def scored(self, candidates: int, seconds: float) -> None: ...
