"""Rates and quantiles of the last seconds. Layer: pure, standard library only, no clock.

The one idea: time is cut into slices, a ring holds the last few, and a slice that has become too old is
emptied when it is met again; so an event costs the same however many there were, memory never grows, and what
is read is a function of the events and their times alone. One thread may add while others read.

Quantiles are DDSketch's (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch with
relative-error guarantees", PVLDB 12(12), 2019): values are counted in buckets (g^(i-1), g^i] with
g = (1 + a) / (1 - a), so every quantile is within the factor 1 +- a of a true one. The ddsketch package keeps
no window and would have to be merged slice by slice in Python; t-digest packages bound the error of the
rank, which says little about the tail of a latency.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

ACCURACY = 0.02
"""Relative error of a quantile."""
SMALLEST, LARGEST = 1e-6, 1e6
"""Values beyond are counted as these: a microsecond, and eleven days, in seconds."""

_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_PER_LOG = 1 / math.log(_GAMMA)


class Rate:
    """How much of something came in the last `seconds`."""

    def __init__(self, seconds: float = 10.0, slices: int = 20) -> None:
        self.seconds = seconds
        self._width = seconds / slices
        # One more than asked: the present slice is not over yet.
        self._amounts = [0.0] * (slices + 1)
        self._numbers = [-1] * (slices + 1)
        self._began: float | None = None

    def add(self, amount: float, now: float) -> None:
        """`amount` came at `now`, in seconds of a clock that does not go back."""
        if self._began is None:
            self._began = now
        number = int(now / self._width)
        place = number % len(self._amounts)
        if self._numbers[place] != number:
            self._numbers[place], self._amounts[place] = number, 0.0
        self._amounts[place] += amount

    def total(self, now: float) -> float:
        """What came in the window, which is `seconds` and the part of a slice long."""
        number = int(now / self._width)
        oldest = number - len(self._amounts) + 1
        return sum(
            amount for amount, at in zip(self._amounts, self._numbers, strict=True) if oldest <= at <= number
        )

    def per_second(self, now: float) -> float:
        """The mean rate over the window, or over the time since the first event when that is shorter, but at
        least over one slice."""
        if self._began is None:
            return 0.0
        span = self.seconds + now % self._width
        return self.total(now) / max(self._width, min(span, now - self._began))


class Quantiles:
    """The distribution of positive values of the last `seconds`, in slices."""

    def __init__(self, seconds: float = 60.0, slices: int = 12) -> None:
        self.seconds = seconds
        self._width = seconds / slices
        self._counts: list[dict[int, int]] = [{} for _ in range(slices + 1)]
        self._numbers = [-1] * (slices + 1)

    def add(self, value: float, now: float, times: int = 1) -> None:
        """`value` was seen so many times at `now`."""
        number = int(now / self._width)
        place = number % len(self._counts)
        if self._numbers[place] != number:
            self._numbers[place] = number
            self._counts[place].clear()
        counts, bucket = self._counts[place], _bucket(value)
        counts[bucket] = counts.get(bucket, 0) + times

    def count(self, now: float) -> int:
        """Values in the window."""
        return self._merged(now).total()

    def at(self, quantiles: Sequence[float], now: float) -> list[float] | None:
        """The values at these quantiles (0 to 1), or None when the window is empty.

        The q-quantile of n values is the one of rank floor(q * (n - 1)), from 0.
        """
        merged = self._merged(now)
        count = merged.total()
        if not count:
            return None
        ordered = sorted(merged.items())
        found = []
        for quantile in quantiles:
            rank, seen = math.floor(quantile * (count - 1)), 0
            for bucket, times in ordered:
                seen += times
                if seen > rank:
                    found.append(_value(bucket))
                    break
        return found

    def _merged(self, now: float) -> Counter[int]:
        number = int(now / self._width)
        oldest = number - len(self._counts) + 1
        merged: Counter[int] = Counter()
        for counts, at in zip(self._counts, self._numbers, strict=True):
            if oldest <= at <= number:
                merged.update(counts)
        return merged


def _bucket(value: float) -> int:
    if not SMALLEST < value < LARGEST:
        value = min(max(value, SMALLEST), LARGEST)
    return math.ceil(math.log(value) * _PER_LOG)


def _value(bucket: int) -> float:
    """The middle of a bucket, in the sense that its edges are equally wrong."""
    return 2 * _GAMMA**bucket / (_GAMMA + 1)
