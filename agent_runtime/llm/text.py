"""Turns growing decoded text into pieces that are safe to send. Layer: llm, pure.

The one idea: what was sent cannot be taken back, so a piece leaves only when no later token can change it:
not half a UTF-8 character, not what may be the beginning of a stop string. transformers' streamers hold back
whole words instead and know no stop strings.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopScanner:
    """Feeds on the whole decoded text after each step; gives the new piece that may be sent."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(stop)
        self._text = ""
        self._sent = 0
        self.stopped = False

    @property
    def text(self) -> str:
        """All text sent so far."""
        return self._text[: self._sent]

    def feed(self, text: str) -> str:
        """The next piece to send, perhaps empty. After a stop string was found `stopped` is true and
        nothing more comes."""
        if self.stopped or not text.startswith(self.text):
            return ""
        self._text = text
        cut = _earliest(text, self._stop)
        if cut is not None:
            self.stopped = True
            return self._send(max(cut, self._sent))
        safe = len(text) - _undecided(text, self._stop)
        return self._send(max(safe, self._sent))

    def finish(self) -> str:
        """What was held back, once it is certain that no token follows."""
        return "" if self.stopped else self._send(len(self._text))

    def _send(self, end: int) -> str:
        piece, self._sent = self._text[self._sent : end], end
        return piece


def _earliest(text: str, stop: Sequence[str]) -> int | None:
    """Where the first stop string begins."""
    found = [position for position in (text.find(word) for word in stop) if position >= 0]
    return min(found, default=None)


def _undecided(text: str, stop: Sequence[str]) -> int:
    """How many trailing characters a later token might still change or turn into a stop string."""
    broken = len(text) - len(text.rstrip("\ufffd"))
    partial = 0
    for word in stop:
        for size in range(min(len(word) - 1, len(text)), partial, -1):
            if text.endswith(word[:size]):
                partial = size
                break
    return max(broken, partial)
