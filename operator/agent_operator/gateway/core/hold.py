"""Requests that wait for a replica. Layer: gateway core, pure.

The one idea: a FIFO with two bounds and a deadline each, as a state machine; whoever leaves, however, leaves
nothing behind but a (deadline, number) pair, and those are swept when they outnumber the living.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

T = TypeVar("T", bound=Hashable)

Full = Literal["requests", "bytes"]
"""Which bound a request would break."""

_SWEEP_FLOOR = 64


@dataclass(slots=True)
class _Held:
    number: int
    size: int
    since: float
    deadline: float


class HoldQueue(Generic[T]):
    """The state machine. Times are seconds of any monotonic clock, sizes bytes."""

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self.max_requests, self.max_bytes = max_requests, max_bytes
        self.size = 0
        """Bytes of all that are held."""
        self.total = 0
        """How many were held, ever; one that comes back counts once."""
        self._held: OrderedDict[T, _Held] = OrderedDict()
        self._deadlines: list[tuple[float, int]] = []
        self._by_number: dict[int, T] = {}
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[T]:
        """First come first."""
        return iter(self._held)

    def __contains__(self, item: object) -> bool:
        return item in self._held

    def offer(self, item: T, size: int, now: float, deadline: float) -> Full | None:
        """Hold an item at the end of the line, or say which bound forbids it."""
        if len(self._held) >= self.max_requests:
            return "requests"
        if self.size + size > self.max_bytes:
            return "bytes"
        self.total += 1
        self._add(item, size, now, deadline)
        return None

    def put_back(self, item: T, size: int, since: float, deadline: float) -> None:
        """Hold an item again that was taken and could not be served: at the front, whatever the bounds."""
        self._add(item, size, since, deadline)
        self._held.move_to_end(item, last=False)

    def grow(self, item: T, more: int) -> bool:
        """An item became larger; False if that breaks the bound, then it stays as it was."""
        held = self._held[item]
        if self.size + more > self.max_bytes:
            return False
        held.size += more
        self.size += more
        return True

    def since(self, item: T) -> float:
        """When an item came."""
        return self._held[item].since

    def take(self) -> T | None:
        """The first, which leaves."""
        if not self._held:
            return None
        item = next(iter(self._held))
        self.remove(item)
        return item

    def remove(self, item: T) -> bool:
        """An item leaves; False if it was not there."""
        held = self._held.pop(item, None)
        if held is None:
            return False
        self.size -= held.size
        del self._by_number[held.number]
        if len(self._deadlines) > 2 * len(self._held) + _SWEEP_FLOOR:
            self._deadlines = [pair for pair in self._deadlines if pair[1] in self._by_number]
            heapq.heapify(self._deadlines)
        return True

    def expire(self, now: float) -> list[T]:
        """Everyone whose deadline has passed, who leave."""
        gone: list[T] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, number = heapq.heappop(self._deadlines)
            item = self._by_number.get(number)
            if item is not None:
                gone.append(item)
                self.remove(item)
        return gone

    def next_deadline(self) -> float | None:
        """The earliest deadline."""
        while self._deadlines and self._deadlines[0][1] not in self._by_number:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def oldest(self) -> float | None:
        """Since when the first has waited."""
        return next(iter(self._held.values())).since if self._held else None

    def _add(self, item: T, size: int, since: float, deadline: float) -> None:
        self._numbers += 1
        self._held[item] = _Held(self._numbers, size, since, deadline)
        self._by_number[self._numbers] = item
        heapq.heappush(self._deadlines, (deadline, self._numbers))
        self.size += size
