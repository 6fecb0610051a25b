"""What the samples of the last minutes say: level, noise and trend. Layer: core, pure.

The one idea: a change is believed at once when it stands out of the noise that was there before it, and
only as part of a mean otherwise. So a step shows with its first sample, and a noisy steady load is steady.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

from agent_operator.core.autoscale.model import Policy

TREND_SECONDS = 180.0
"""How far back a trend is looked for."""
GROUPS = 12
"""Means that the trend is fitted to; neighbouring samples share requests, means of 15 s hardly do."""
LEAST_GROUPS = 4
SURE = 3.0
"""Standard deviations by which a change stands out of the noise."""
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
    tokens: float
    """Over the panic window."""


def longest(policy: Policy) -> float:
    """Seconds of samples that are kept."""
    return max(policy.stable_seconds, policy.panic_seconds, TREND_SECONDS)


def width(policy: Policy) -> float:
    """Seconds of one bucket: one, or more where the windows are so long that there would be too many."""
    return max(1.0, ceil(longest(policy) / MOST_BUCKETS))


def read(buckets: tuple[Bucket, ...], policy: Policy) -> Signals:
    """The signals of these buckets, the last of which is now. There is at least one."""
    wide, last = width(policy), buckets[-1]
    stable = _since(buckets, last.slot - max(1, round(policy.stable_seconds / wide)))
    panic = _since(stable, last.slot - max(1, round(policy.panic_seconds / wide)))
    mean, busy = _mean(stable), _mean(panic)
    level, slope = trend(buckets, policy)
    return Signals(
        mean=mean,
        fast=max(mean, _outstanding(stable, panic, busy)),
        busy=busy,
        latest=last.load,
        level=level,
        slope=slope,
        tokens=sum(bucket.tokens for bucket in panic) / len(panic),
    )


def trend(buckets: tuple[Bucket, ...], policy: Policy) -> tuple[float, float]:
    """Level now and rise per second, fitted to means of closed groups; the rise is 0 if it may be noise."""
    span = max(1, round(TREND_SECONDS / GROUPS / width(policy)))
    now = buckets[-1].slot
    sums: dict[int, tuple[float, int]] = {}
    for bucket in buckets:
        group = bucket.slot // span
        if group < now // span:
            total, count = sums.get(group, (0.0, 0))
            sums[group] = (total + bucket.load, count + 1)
    points = [((group + 0.5) * span - now, total / count) for group, (total, count) in sums.items()]
    points = points[-GROUPS:]
    if len(points) < LEAST_GROUPS:
        return 0.0, 0.0
    size = len(points)
    at = sum(x for x, _ in points) / size
    load = sum(y for _, y in points) / size
    spread = sum((x - at) ** 2 for x, _ in points)
    slope = sum((x - at) * (y - load) for x, y in points) / spread
    rest = sum((y - load - slope * (x - at)) ** 2 for x, y in points)
    error = sqrt(rest / (size - 2) / spread)
    level = load - slope * at
    return level, slope / width(policy) if slope > SURE * error else 0.0


def _outstanding(stable: tuple[Bucket, ...], panic: tuple[Bucket, ...], busy: float) -> float:
    """The last sample or the panic window's mean, whichever is greater and no noise; else 0.

    The noise is what the stable window showed before the panic window, and at most that of a Poisson
    process, so that an earlier step does not hide the next one.
    """
    latest = panic[-1].load
    before = stable[: len(stable) - len(panic)]
    if not before:
        return max(latest, busy)
    base = _mean(before)
    noise = min(sqrt(sum((bucket.load - base) ** 2 for bucket in before) / len(before)), sqrt(base))
    threshold = base + SURE * noise
    if latest > threshold:
        return max(latest, busy)
    return busy if busy > base + SURE * noise / sqrt(2) else 0.0


def _since(buckets: tuple[Bucket, ...], slot: int) -> tuple[Bucket, ...]:
    """The buckets after this slot."""
    index = len(buckets)
    while index and buckets[index - 1].slot > slot:
        index -= 1
    return buckets[index:]


def _mean(buckets: tuple[Bucket, ...]) -> float:
    return sum(bucket.load for bucket in buckets) / len(buckets)
