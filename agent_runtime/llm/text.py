"""Holds back text that a later token could turn into a stop string. Layer: llm, pure.

The one idea: what was sent cannot be taken back, so a piece leaves only when no later token can change it.
transformers' streamers hold back whole words instead and know no stop strings.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopScanner:
    """Takes text piece by piece; gives the part that may be sent."""

    __slots__ = ("_held", "_longest", "_stop", "stopped")

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(stop)
        self._longest = max((len(word) for word in self._stop), default=0)
        self._held = ""
        self.stopped = False

    def feed(self, piece: str) -> str:
        """What may be sent now, perhaps nothing. Once a stop string is complete `stopped` is true, the text
        before it has been given, and nothing more comes."""
        if not self._stop:
            return piece
        if self.stopped:
            return ""
        text = self._held + piece
        cut = min((found for word in self._stop if (found := text.find(word)) >= 0), default=None)
        if cut is not None:
            self.stopped, self._held = True, ""
            return text[:cut]
        safe = len(text) - self._undecided(text)
        self._held = text[safe:]
        return text[:safe]

    def finish(self) -> str:
        """What was held back, once it is certain that no token follows."""
        rest, self._held = self._held, ""
        return rest

    def _undecided(self, text: str) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        for size in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[len(text) - size :]
            if any(len(word) > size and word.startswith(tail) for word in self._stop):
                return size
        return 0
