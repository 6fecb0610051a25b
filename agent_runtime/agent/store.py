"""Where sessions, runs and stored responses are kept. Layer: agent; standard library only.

The one idea: a store is a small dictionary with one strong operation: `update` reads a value, lets a pure
function change it and writes it back, and nobody else's change in between is lost. Everything that must
survive two replicas is built from it. Entries live for a while after their last write.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Change = Callable[[bytes | None], bytes | None]
"""From the present value (None: there is none) to the new one (None: delete it). Pure: it may be called
again."""


class Store(Protocol):
    """Keys are short text without blanks, values are bytes. Every method may raise StoreUnavailableError."""

    durable: bool
    """Whether entries outlive this process and are seen by other replicas."""
    ttl_seconds: float
    """How long an entry lives after its last write, unless it was written with a time of its own."""

    async def get(self, key: str) -> bytes | None:
        """The value, or None when there is none or it has expired."""
        ...

    async def update(self, key: str, change: Change, ttl_seconds: float | None = None) -> bytes | None:
        """Changes the value atomically and gives the new one; it lives this long, or the store's own time.

        What `change` raises comes through, and nothing is changed then.
        """
        ...

    async def delete(self, key: str) -> bool:
        """Whether there was such a value."""
        ...

    async def add(self, key: str, member: str) -> None:
        """Puts a member into the set `key`, which does not expire."""
        ...

    async def discard(self, key: str, member: str) -> None:
        """Takes it out, if it is there."""
        ...

    async def members(self, key: str) -> set[str]:
        """All members of the set."""
        ...

    async def claim(self, key: str, owner: str, seconds: float) -> bool:
        """Whether `owner` holds `key` for that long from now: it was free, or the owner's already."""
        ...

    async def release(self, key: str, owner: str) -> None:
        """Gives it up, if it is the owner's."""
        ...

    async def close(self) -> None:
        """Ends the connections, if any."""
        ...


@dataclass(slots=True)
class _Entry:
    value: bytes
    expires: float


class MemoryStore:
    """In this process. Of each kind of entry (what a key says before its first colon) at most `max_entries`
    are kept, and `max_bytes` of all; beyond that the one that was written longest ago is dropped. Atomic
    because nothing here waits."""

    durable = False

    def __init__(
        self,
        ttl_seconds: float = 3600.0,
        max_entries: int = 10_000,
        max_bytes: int = 256 * 2**20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ttl_seconds, self._max_entries, self._max_bytes = ttl_seconds, max_entries, max_bytes
        self._clock = clock
        self._kinds: dict[str, OrderedDict[str, _Entry]] = {}
        self._sets: dict[str, set[str]] = {}
        self._claims: dict[str, tuple[str, float]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return sum(map(len, self._kinds.values()))

    async def get(self, key: str) -> bytes | None:
        """See Store."""
        entry = self._kind(key).get(key)
        if entry is None or entry.expires <= self._clock():
            self._drop(key)
            return None
        return entry.value

    async def update(self, key: str, change: Change, ttl_seconds: float | None = None) -> bytes | None:
        """See Store."""
        value = change(await self.get(key))
        self._drop(key)
        if value is not None:
            lifetime = self.ttl_seconds if ttl_seconds is None else ttl_seconds
            self._kind(key)[key] = _Entry(value, self._clock() + lifetime)
            self._bytes += len(value)
            self._make_room(key)
        return value

    async def delete(self, key: str) -> bool:
        """See Store."""
        there = await self.get(key) is not None
        self._drop(key)
        return there

    async def add(self, key: str, member: str) -> None:
        """See Store."""
        self._sets.setdefault(key, set()).add(member)

    async def discard(self, key: str, member: str) -> None:
        """See Store."""
        self._sets.get(key, set()).discard(member)

    async def members(self, key: str) -> set[str]:
        """See Store."""
        return set(self._sets.get(key, ()))

    async def claim(self, key: str, owner: str, seconds: float) -> bool:
        """See Store."""
        now = self._clock()
        holder, expires = self._claims.get(key, (owner, 0.0))
        if holder != owner and expires > now:
            return False
        self._claims[key] = (owner, now + seconds)
        return True

    async def release(self, key: str, owner: str) -> None:
        """See Store."""
        if self._claims.get(key, ("", 0.0))[0] == owner:
            del self._claims[key]

    async def close(self) -> None:
        """See Store."""

    def _kind(self, key: str) -> OrderedDict[str, _Entry]:
        return self._kinds.setdefault(key.partition(":")[0], OrderedDict())

    def _drop(self, key: str) -> None:
        entry = self._kind(key).pop(key, None)
        if entry is not None:
            self._bytes -= len(entry.value)

    def _make_room(self, newest: str) -> None:
        """Written entries are at the end of their kind, so the oldest is at its beginning."""
        kind = self._kind(newest)
        while len(kind) > self._max_entries:
            self._drop(next(iter(kind)))
        while self._bytes > self._max_bytes and len(self) > 1:
            most = max(self._kinds.values(), key=len)
            oldest = next(key for key in most if key != newest)
            self._drop(oldest)
