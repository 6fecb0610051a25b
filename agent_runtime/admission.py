"""Who may generate, who waits, who is refused. Layer: request path; asyncio and standard library only.

The one idea: an unbounded queue turns overload into time-outs for everybody, so the queue is bounded in
requests and in tokens, and the request past it is told at once, with the seconds after which it is worth
trying again. asyncio.Semaphore gives fairness and cancellation; bounds, weights and a width that changes
while serving are what it lacks.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


class QueueFullError(Exception):
    """The request was refused; `retry_after` is in whole seconds, `bound` names what was full."""

    def __init__(self, bound: str, retry_after: int) -> None:
        super().__init__(f"{bound} is full; retry after {retry_after} s")
        self.bound, self.retry_after = bound, retry_after


def retry_after_seconds(ahead: int, slots: int, mean_seconds: float) -> int:
    """Whole seconds, 1 to 60, until a newcomer would find a place: the requests ahead of it, divided
    among the slots, each taking as long as recent ones did."""
    return min(60, max(1, math.ceil((ahead + 1) * mean_seconds / slots)))


@dataclass(frozen=True, slots=True)
class Load:
    """Slots in use, requests waiting, and the tokens those may need."""

    running: int
    waiting: int
    waiting_tokens: int = 0


@dataclass(slots=True, eq=False)
class _Waiter:
    slots: int
    tokens: int
    turn: asyncio.Future[None]


def _nobody() -> None: ...


class Admission:
    """A bounded queue before a bounded number of slots; first come, first served. Use on one event loop.

    `on_change` is called whenever more or fewer run or wait.
    """

    def __init__(
        self,
        max_concurrency: int,
        max_queued_requests: int,
        max_queued_tokens: int,
        on_change: Callable[[], None] = _nobody,
    ) -> None:
        self._on_change = on_change
        self._running = 0
        self._queue: deque[_Waiter] = deque()
        self._queued_tokens = 0
        self._mean_seconds = 1.0
        self._limits = (max_concurrency, max_queued_requests, max_queued_tokens)

    def resize(self, max_concurrency: int, max_queued_requests: int, max_queued_tokens: int) -> None:
        """Changes the bounds. Nobody who runs or waits is turned away; more slots are given out at once."""
        self._limits = (max_concurrency, max_queued_requests, max_queued_tokens)
        self._admit()

    @property
    def load(self) -> Load:
        """What runs and waits now."""
        return Load(self._running, len(self._queue), self._queued_tokens)

    def would_wait(self, slots: int = 1) -> bool:
        """Whether `acquire` would not return at once."""
        return bool(self._queue) or not self._fits(slots)

    async def acquire(self, slots: int = 1, tokens: int = 0) -> None:
        """Returns once the caller may use so many slots; it must call `release` afterwards.

        `tokens` is what the request may read and generate. Raises QueueFullError at once when it would have
        to wait and the queue is full. Cancelling the wait leaves the queue. A request that asks for more
        slots than there are waits for all of them.
        """
        if not self.would_wait(slots):
            self._running += slots
            self._on_change()
            return
        self._check_queue(tokens)
        waiter = _Waiter(slots, tokens, asyncio.get_running_loop().create_future())
        self._queue.append(waiter)
        self._queued_tokens += tokens
        self._on_change()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled():
                self.release(0.0, slots, measured=False)
            else:
                self._leave(waiter)
            raise

    def release(self, seconds: float, slots: int = 1, *, measured: bool = True) -> None:
        """Gives the slots back; `seconds` is how long they were used and feeds the Retry-After estimate."""
        self._running -= slots
        if measured:
            self._mean_seconds += 0.2 * (seconds - self._mean_seconds)
        self._admit()

    def _fits(self, slots: int) -> bool:
        return self._running == 0 or self._running + slots <= self._limits[0]

    def _check_queue(self, tokens: int) -> None:
        width, requests, most_tokens = self._limits
        wait = retry_after_seconds(self._running + len(self._queue), width, self._mean_seconds)
        if len(self._queue) >= requests:
            raise QueueFullError("the request queue", wait)
        # A request that is alone may be as long as the model allows, whatever the bound of the queue.
        if self._queue and self._queued_tokens + tokens > most_tokens:
            raise QueueFullError("the token queue", wait)

    def _leave(self, waiter: _Waiter) -> None:
        self._queue.remove(waiter)
        self._queued_tokens -= waiter.tokens
        self._admit()

    def _admit(self) -> None:
        while self._queue and self._fits(self._queue[0].slots):
            waiter = self._queue.popleft()
            self._queued_tokens -= waiter.tokens
            if not waiter.turn.cancelled():
                self._running += waiter.slots
                waiter.turn.set_result(None)
        self._on_change()
