"""A work queue with client-go's semantics. Layer: controller; imports the standard library and metrics.

The one idea: what is due is a pure state machine over a clock that is passed in (`KeyQueue`), so every
rule is tested in virtual time; the asyncio part (`WorkQueue`) only waits. Rules: a key is queued once, is
never worked on twice at the same time, and if added while being worked on runs once more. After its work a
key may rest: what is added meanwhile is one piece of work at the end of the rest. Keys of low priority
(initial list, resync, news nobody waits for) yield to changes, but not for ever: whoever has waited
PATIENCE_SECONDS longer goes first. Why hand-written: no asyncio library has these rules.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from agent_operator.observability.metrics import Metrics

K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF_SECONDS = 0.005
LONGEST_BACKOFF_SECONDS = 1000.0
PATIENCE_SECONDS = 10.0


class Priority(IntEnum):
    """Smaller is more urgent."""

    NORMAL = 0
    LOW = 1


@dataclass(slots=True)
class _Entry:
    priority: Priority
    since: float
    ticket: int = 0

    @property
    def deadline(self) -> float:
        """The earliest is served first."""
        return self.since + PATIENCE_SECONDS * self.priority


class KeyQueue(Generic[K]):
    """The state machine. Every method takes the time, in seconds of any monotonic clock."""

    def __init__(self) -> None:
        self._ready: dict[K, _Entry] = {}
        self._order: list[tuple[float, int, K]] = []
        self._working: dict[K, float] = {}
        self._resting: set[K] = set()
        self._rests: list[tuple[float, int, K]] = []
        self._again: dict[K, _Entry] = {}
        self._delayed: dict[K, tuple[float, Priority]] = {}
        self._due: list[tuple[float, int, K]] = []
        self._tickets = itertools.count()

    def add(self, key: K, now: float, priority: Priority = Priority.NORMAL) -> bool:
        """Queue a key; True unless it was queued already."""
        waiting = self._again if key in self._working or key in self._resting else self._ready
        entry = waiting.get(key)
        if entry is not None and entry.priority <= priority:
            return False
        since = entry.since if entry is not None else now
        waiting[key] = fresh = _Entry(priority, since, next(self._tickets))
        if waiting is self._ready:
            self._line_up(key, fresh)
        return entry is None

    def add_after(self, key: K, delay: float, now: float, priority: Priority = Priority.NORMAL) -> None:
        """Queue a key in `delay` seconds; of several delays of a key the earliest counts."""
        due = now + delay
        known = self._delayed.get(key)
        if known is not None and known[0] <= due:
            return
        self._delayed[key] = (due, priority)
        heapq.heappush(self._due, (due, next(self._tickets), key))

    def promote(self, now: float) -> int:
        """Queue every key whose delay or rest is over; returns how many were not queued already."""
        added = 0
        while self._rests and self._rests[0][0] <= now:
            _, _, key = heapq.heappop(self._rests)
            self._resting.discard(key)
            self._resume(key)
        while self._due and self._due[0][0] <= now:
            due, _, key = heapq.heappop(self._due)
            known = self._delayed.get(key)
            if known is None or known[0] != due:
                continue  # superseded by an earlier delay
            del self._delayed[key]
            added += self.add(key, now, known[1])
        return added

    def pop(self, now: float) -> tuple[K, float] | None:
        """The next key and how long it waited; it counts as worked on until `done`."""
        while self._order:
            _, ticket, key = heapq.heappop(self._order)
            entry = self._ready.get(key)
            if entry is None or entry.ticket != ticket:
                continue  # superseded by a higher priority
            del self._ready[key]
            self._working[key] = now
            return key, now - entry.since
        return None

    def done(self, key: K, now: float, rest: float = 0.0) -> float:
        """Work on a key ended; returns how long it took.

        If it was added meanwhile, or is while it rests, it is queued again when the `rest` seconds are over.
        """
        started = self._working.pop(key)
        if rest > 0:
            self._resting.add(key)
            heapq.heappush(self._rests, (now + rest, next(self._tickets), key))
        else:
            self._resume(key)
        return now - started

    def next_due(self) -> float | None:
        """When the earliest delay or rest is over."""
        rest = self._rests[0][0] if self._rests else None
        while self._due:
            due, _, key = self._due[0]
            known = self._delayed.get(key)
            if known is not None and known[0] == due:
                return due if rest is None else min(due, rest)
            heapq.heappop(self._due)
        return rest

    def depth(self) -> int:
        """Keys ready and not taken."""
        return len(self._ready)

    def started(self) -> list[float]:
        """When each key being worked on was taken."""
        return list(self._working.values())

    def _resume(self, key: K) -> None:
        entry = self._again.pop(key, None)
        if entry is not None:
            self._ready[key] = entry
            self._line_up(key, entry)

    def _line_up(self, key: K, entry: _Entry) -> None:
        heapq.heappush(self._order, (entry.deadline, entry.ticket, key))


class Backoff(Generic[K]):
    """Per-key exponential delay: `first` seconds, doubled at each failure, at most `longest`, jittered
    downwards."""

    def __init__(
        self,
        jitter: Callable[[], float] = random.random,
        *,
        first: float = FIRST_BACKOFF_SECONDS,
        longest: float = LONGEST_BACKOFF_SECONDS,
    ) -> None:
        self._jitter = jitter
        self._first, self._longest = first, longest
        self._failures: dict[K, int] = {}

    def next(self, key: K) -> float:
        """Seconds to wait after one more failure of this key."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        # The exponent is bounded before it is used: 2.0 ** 2000 would raise.
        delay = min(self._first * 2.0 ** min(failures, 30), self._longest)
        return delay * (1.0 - 0.25 * self._jitter())

    def failures(self, key: K) -> int:
        """How often the key failed since it was forgotten last."""
        return self._failures.get(key, 0)

    def forget(self, key: K) -> None:
        """The key succeeded."""
        self._failures.pop(key, None)


class QueueClosedError(Exception):
    """The queue was closed; no more work is handed out."""


class WorkQueue(Generic[K]):
    """KeyQueue for asyncio, on the running loop's clock, with metrics."""

    def __init__(self, metrics: Metrics, jitter: Callable[[], float] = random.random) -> None:
        self._keys: KeyQueue[K] = KeyQueue()
        self._backoff: Backoff[K] = Backoff(jitter)
        self._metrics = metrics
        self._waiters: set[asyncio.Future[None]] = set()
        self._timer: tuple[float, asyncio.Handle] | None = None
        """When the timer fires, and the timer."""
        self._closed = False
        metrics.queue_depth.set_function(self._keys.depth)
        metrics.queue_unfinished.set_function(lambda: sum(self._ages()))
        metrics.queue_longest.set_function(self.longest_running)

    def add(self, key: K, priority: Priority = Priority.NORMAL) -> None:
        """Queue a key now."""
        if self._keys.add(key, _now(), priority):
            self._metrics.queue_adds.inc()
        self._wake()

    def add_after(self, key: K, delay: float, priority: Priority = Priority.NORMAL) -> None:
        """Queue a key in `delay` seconds."""
        if delay <= 0:
            self.add(key, priority)
            return
        self._keys.add_after(key, delay, _now(), priority)
        self._arm()

    def retry(self, key: K, at_most: float | None = None) -> float:
        """Queue a key with backoff, capped by `at_most` seconds; returns the delay."""
        delay = self._backoff.next(key)
        if at_most is not None:
            delay = min(delay, at_most)
        self._metrics.queue_retries.inc()
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """Reset a key's backoff."""
        self._backoff.forget(key)

    async def get(self) -> K:
        """The next key; call `done` with it afterwards.

        Raises:
            QueueClosedError: `close` was called, even if keys are left.
        """
        while not self._closed:
            taken = self._keys.pop(_now())
            if taken is not None:
                key, waited = taken
                self._metrics.queue_seconds.observe(waited)
                return key
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
        raise QueueClosedError

    def done(self, key: K, rest: float = 0.0) -> None:
        """Work on a key ended, however it ended; it is not handed out again for `rest` seconds."""
        self._metrics.work_seconds.observe(self._keys.done(key, _now(), rest))
        self._wake()
        self._arm()

    def longest_running(self) -> float:
        """Age in seconds of the oldest work in progress, 0 without any."""
        return max(self._ages(), default=0.0)

    def close(self) -> None:
        """Hand out no more work. Work in progress may still call `done`."""
        self._closed = True
        if self._timer is not None:
            self._timer[1].cancel()
        self._wake()

    def _ages(self) -> list[float]:
        started = self._keys.started()
        if not started:
            return []
        now = _now()
        return [now - start for start in started]

    def _wake(self) -> None:
        if self._keys.depth() or self._closed:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _arm(self) -> None:
        due = self._keys.next_due()
        if self._timer is not None:
            armed, timer = self._timer
            if due is not None and armed <= due:
                return
            timer.cancel()
        self._timer = None
        if due is not None and not self._closed:
            self._timer = due, asyncio.get_running_loop().call_at(due, self._on_due)

    def _on_due(self) -> None:
        self._timer = None
        # A timer may fire a clock tick early; then the next one is armed for the rest.
        self._metrics.queue_adds.inc(self._keys.promote(_now()))
        self._wake()
        self._arm()


def _now() -> float:
    return asyncio.get_running_loop().time()
