"""Answers a poll of /stats when there is news. Layer: api; asyncio and `state`.

The one idea: whoever scales by this record should hear of a first request in milliseconds and of nothing at
all for a minute, without a connection of another kind: a poll names what it knows and is answered when that
is no longer so. What serves requests only says that something changed, which costs one look at an empty set
while nobody polls; what is so is read when a poll is woken.

The pace: a connection that was answered PACE_SECONDS ago or earlier is answered at once; under steady change
it gets an answer every PACE_SECONDS, of the moment it is sent.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from agent_runtime.api import errors
from agent_runtime.state import State, Work

MOST_SECONDS = 60.0
PACE_SECONDS = 0.5
LOOK_SECONDS = 1.0
"""How often a waiting poll looks for what nobody announces: that the engine has stalled."""

_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Moment:
    """What a poll compares: requests running and waiting, the state's name, the engine's progress."""

    load: int
    state: str
    work: Work = Work.IDLE


@dataclass(frozen=True, slots=True)
class Poll:
    """What a client knows: it wants an answer when it is wrong, or after `wait` seconds. `state` None is the
    one that the poll finds."""

    wait: float
    load: int
    state: str | None = None


def poll_of(query: Mapping[str, str]) -> Poll | None:
    """The poll that a query asks for; None without `wait`. Raises ApiError 400."""
    if "wait" not in query:
        return None
    if "load" not in query:
        raise errors.invalid_field("load", "it is needed with 'wait': the running and waiting you know of.")
    return Poll(_wait(query["wait"]), _load(query["load"]), _state(query.get("state")))


def _wait(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MOST_SECONDS:
        raise errors.invalid_field("wait", f"it must be a number of seconds from 0 to {MOST_SECONDS:g}.")
    return seconds


def _load(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise errors.invalid_field("load", "it must be a whole number, 0 or more.")
    return int(text)


def _state(text: str | None) -> str | None:
    if text is not None and text not in set(State):
        raise errors.invalid_field("state", f"it must be one of {', '.join(State)}.")
    return text


class Changes:
    """Wakes who waits for a change. Use on one event loop; a closed one lets nobody wait."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()
        self._end = asyncio.Event()

    def tell(self) -> None:
        """Something changed. Costs nothing while nobody waits."""
        if self._waiting:
            for waiter in self._waiting:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiting.clear()

    def close(self) -> None:
        """Wakes everybody, for good."""
        self._end.set()
        self.tell()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._end.is_set()

    @property
    def waiting(self) -> int:
        """How many wait for a change."""
        return len(self._waiting)

    async def end(self, seconds: float) -> None:
        """Returns once it is closed, or after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._end.wait()

    async def next(self, seconds: float) -> None:
        """Returns at the next change, or after so many seconds."""
        if self.closed:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await waiter
        finally:
            self._waiting.discard(waiter)


class LongPoll:
    """Holds polls back. `moment` says what is so now; connections are told apart by any hashable key."""

    def __init__(
        self, changes: Changes, moment: Callable[[], Moment], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._changes, self._moment, self._clock = changes, moment, clock
        self._answered: dict[Any, float] = {}

    async def hold(self, poll: Poll, connection: Any) -> None:
        """Returns when this poll should be answered."""
        begun, first = self._clock(), self._moment()
        known = Moment(poll.load, poll.state or first.state, first.work)
        earliest = self._answered.get(connection, -math.inf) + PACE_SECONDS
        while not self._changes.closed and (left := begun + poll.wait - self._clock()) > 0:
            if not _news(known, self._moment()):
                await self._changes.next(min(left, LOOK_SECONDS))
            elif (early := earliest - self._clock()) > 0:
                await self._changes.end(min(left, early))
            else:
                break
        self._remember(connection)

    @property
    def remembered(self) -> int:
        """Connections that were answered a moment ago."""
        return len(self._answered)

    def _remember(self, connection: Any) -> None:
        """When it was answered, for as long as that matters."""
        self._answered[connection] = now = self._clock()
        asyncio.get_running_loop().call_later(PACE_SECONDS, self._forget, connection, now)

    def _forget(self, connection: Any, at: float) -> None:
        if self._answered.get(connection) == at:
            del self._answered[connection]


def _news(known: Moment, now: Moment) -> bool:
    """Whether what a client knows is no longer so; Idle and Busy are in the load already."""
    stalled = (known.work is Work.STALLED, now.work is Work.STALLED)
    return now.load != known.load or now.state != known.state or stalled[0] != stalled[1]
