"""Who may generate, who waits, who is refused. Layer: request path; asyncio and standard library only.

The one idea: an unbounded queue turns overload into time-outs for everybody, so the queue has a length
and the request past it is told at once, with the seconds after which it is worth trying again.
asyncio.Semaphore gives fairness and cancellation; the bound and the counts are what it lacks.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass


class QueueFullError(Exception):
    """The request was refused; `retry_after` is in whole seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"all slots and the queue are full; retry after {retry_after} s")
        self.retry_after = retry_after


def retry_after_seconds(ahead: int, slots: int, mean_seconds: float) -> int:
    """Whole seconds, 1 to 60, until a newcomer would find a place: the requests ahead of it, divided
    among the slots, each taking as long as recent ones did."""
    return min(60, max(1, math.ceil((ahead + 1) * mean_seconds / slots)))


@dataclass(frozen=True, slots=True)
class Load:
    """Requests generating and waiting now."""

    running: int
    waiting: int


class Admission:
    """A bounded queue before a bounded number of slots; first come, first served."""

    def __init__(self, max_concurrency: int, max_queued_requests: int) -> None:
        self._slots = asyncio.Semaphore(max_concurrency)
        self._max_concurrency = max_concurrency
        self._max_queued = max_queued_requests
        self._running = 0
        self._waiting = 0
        self._mean_seconds = 1.0

    @property
    def load(self) -> Load:
        """Running and waiting requests."""
        return Load(self._running, self._waiting)

    async def acquire(self) -> None:
        """Returns once the caller may generate; it must call `release` afterwards.

        Raises QueueFullError at once when no slot is free and the queue is full. Cancelling the wait leaves
        the queue.
        """
        if self._slots.locked() and self._waiting >= self._max_queued:
            ahead = self._running + self._waiting
            raise QueueFullError(retry_after_seconds(ahead, self._max_concurrency, self._mean_seconds))
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        self._running += 1

    def release(self, seconds: float) -> None:
        """Gives the slot back; `seconds` is how long it was used and feeds the Retry-After estimate."""
        self._running -= 1
        self._mean_seconds += 0.2 * (seconds - self._mean_seconds)
        self._slots.release()
