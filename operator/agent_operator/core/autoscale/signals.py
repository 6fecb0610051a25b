"""What the samples of the last minutes say: level, noise and trend. Layer: core, pure.

The one idea: a change is believed at once when it stands out of the noise that was there before it, and
only as part of a mean otherwise. So a step shows with its first sample, and a noisy steady load is steady.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

from agent_operator.core.autoscale.model import Policy

GROUP_SECONDS = 15.0
"""Neighbouring samples share requests; the means of so many seconds hardly do."""
GROUPS = 12
"""Closed groups that trend and noise are read from: three minutes."""
LEAST_GROUPS = 6
SURE = 4.5
"""Standard errors by which a rise stands out of the noise."""
SUDDEN = 4.0
"""Standard deviations by which a single sample does."""
CALM = 0.4
"""A load that varies less than this share of what chance does is not one of many independent requests."""
MOST_BUCKETS = 600


@dataclass(frozen=True, slots=True)
class Bucket:
    """The mean of the samples of one slot of time; `slot` counts widths since the epoch."""

    slot: int
    samples: int
    load: float
    """Requests in flight or held."""
    tokens: float
    """Prompt tokens that wait."""


@dataclass(frozen=True, slots=True)
class Group:
    """The samples of GROUP_SECONDS, summed up; `slot` counts groups since the epoch."""

    slot: int
    samples: int
    total: float
    squares: float

    @property
    def mean(self) -> float:
        """Mean load."""
        return self.total / self.samples


@dataclass(frozen=True, slots=True)
class Signals:
    """The load as of the last sample, in requests in flight."""

    mean: float
    """Over the stable window."""
    fast: float
    """What stands out of it: the last sample, or the panic window's mean; else the mean."""
    busy: float
    """Over the panic window."""
    latest: float
    level: float
    """Where the trend says the load is now."""
    slope: float
    """Requests in flight per second; 0 unless it rises and stands out of the noise."""
    noise: float
    """Standard error of the mean: what chance alone adds to it."""
    tokens: float
    """Over the panic window."""


def longest(policy: Policy) -> float:
    """Seconds of samples that are kept."""
    return max(policy.stable_seconds, policy.panic_seconds, 1.0)


def width(policy: Policy) -> float:
    """Seconds of one bucket: one, or more where the windows are so long that there would be too many."""
    return max(1.0, ceil(longest(policy) / MOST_BUCKETS))


def read(buckets: tuple[Bucket, ...], groups: tuple[Group, ...], policy: Policy) -> Signals:
    """The signals of these samples. The last bucket is now, the last group is not closed yet."""
    wide, last = width(policy), buckets[-1]
    stable = _since(buckets, last.slot - max(1, round(policy.stable_seconds / wide)))
    panic = _since(stable, last.slot - max(1, round(policy.panic_seconds / wide)))
    mean, busy = _mean(stable), _mean(panic)
    closed = groups[:-1]
    level, slope, rest = _trend(closed, (last.slot + 0.5) * wide)
    sudden = max(last.load, busy)
    before = stable[: len(stable) - len(panic)]
    if before:
        base = _mean(before)
        sudden = sudden if sudden > base + _chance(base, _deviation(closed)) else 0.0
    return Signals(
        mean=mean,
        fast=max(mean, sudden),
        busy=busy,
        latest=last.load,
        level=level,
        slope=slope,
        noise=min(rest, sqrt(mean)) / sqrt(max(1.0, policy.stable_seconds / GROUP_SECONDS)),
        tokens=sum(bucket.tokens for bucket in panic) / len(panic),
    )


def _trend(closed: tuple[Group, ...], now: float) -> tuple[float, float, float]:
    """Level now, rise per second (0 if it may be noise), and the deviation of the groups' means from it."""
    size = len(closed)
    if size < LEAST_GROUPS:
        return 0.0, 0.0, 0.0
    points = [((group.slot + 0.5) * GROUP_SECONDS - now, group.mean) for group in closed]
    at = sum(x for x, _ in points) / size
    load = sum(y for _, y in points) / size
    spread = sum((x - at) ** 2 for x, _ in points)
    slope = sum((x - at) * (y - load) for x, y in points) / spread
    rest = sqrt(sum((y - load - slope * (x - at)) ** 2 for x, y in points) / (size - 2))
    rising = slope > SURE * rest / sqrt(spread)
    return load - slope * at, slope if rising else 0.0, rest


def _deviation(groups: tuple[Group, ...]) -> float:
    """Standard deviation of the samples; 0 if there are none."""
    samples = sum(group.samples for group in groups)
    if not samples:
        return 0.0
    mean = sum(group.total for group in groups) / samples
    return sqrt(max(0.0, sum(group.squares for group in groups) / samples - mean * mean))


def _chance(base: float, seen: float) -> float:
    """What chance may add to a mean, seen to vary by a standard deviation.

    Requests of many clients make a Poisson process, whose deviation is known better from its mean than from
    a minute of samples that share their requests; an earlier step does not hide the next one either.
    """
    if seen < CALM * sqrt(base):
        return SUDDEN * seen
    return SUDDEN * sqrt(base) + SUDDEN**2 / 4


def _since(buckets: tuple[Bucket, ...], slot: int) -> tuple[Bucket, ...]:
    """The buckets after this slot."""
    index = len(buckets)
    while index and buckets[index - 1].slot > slot:
        index -= 1
    return buckets[index:]


def _mean(buckets: tuple[Bucket, ...]) -> float:
    return sum(bucket.load for bucket in buckets) / len(buckets)
