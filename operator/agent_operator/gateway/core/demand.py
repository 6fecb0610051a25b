"""When the operator is told that requests wait. Layer: gateway core, pure.

The one idea: a version that moves only when something changed that matters for scaling (from none to some,
from some to none, or by a quarter), so whoever waits for the next version is woken at once by the first
request and not by each of the thousand after it.
"""

from __future__ import annotations

LEAST_CHANGE = 4
ANSWER_SECONDS = 0.1
"""Least time between two answers."""


def matters(told: int, held: int) -> bool:
    """Whether `held` is news to somebody who knows of `told`."""
    if (told == 0) != (held == 0):
        return True
    return abs(held - told) >= max(LEAST_CHANGE, told // 4)


class Board:
    """The numbers as last announced. `instance` tells one life of a gateway from another."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._changes = 0
        self._told: dict[str, int] = {}

    @property
    def version(self) -> str:
        """Of what is announced now."""
        return f"{self._instance}.{self._changes}"

    def note(self, agent: str, held: int) -> bool:
        """An agent has so many held requests; True if that makes a new version."""
        told = self._told.get(agent, 0)
        if not matters(told, held):
            return False
        if held:
            self._told[agent] = held
        else:
            self._told.pop(agent, None)
        self._changes += 1
        return True
