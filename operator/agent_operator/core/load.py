"""status.load: the few numbers people ask for. Layer: core, pure; imports core.signals.

The one idea: numbers move all the time and a status must not. They are rounded to two digits, written at
most once a minute, and only if one has moved by a fifth, or between nothing and something. Prometheus has
them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from agent_operator.core.reading import count, formatted, timestamp
from agent_operator.core.signals import Signals

PERIOD = timedelta(seconds=60)
_MOVED = 0.2


def load(signals: Signals, old: Mapping[str, Any], now: datetime) -> dict[str, Any] | None:
    """The status.load to show: the old one as long as it is near enough; None where nothing is known."""
    if not signals.samples and not old:
        return None
    new = _measured(signals, now)
    taken = timestamp(old.get("time"))
    if taken is None:
        return new
    if now - taken < PERIOD or not _moved(new, old):
        return dict(old)
    return new


def next_look(signals: Signals, old: Mapping[str, Any], now: datetime) -> float | None:
    """Seconds until the load shown should be looked at again, None while it is near enough."""
    taken = timestamp(old.get("time"))
    if taken is None or not _moved(_measured(signals, now), old):
        return None
    return max(0.0, (taken + PERIOD - now).total_seconds())


def _measured(signals: Signals, now: datetime) -> dict[str, Any]:
    samples = list(signals.samples.values())
    latencies = [s.p95_seconds for s in samples if s.p95_seconds is not None]
    gpus = [s.gpu_percent for s in samples if s.gpu_percent is not None]
    numbers = {
        "requests": sum(s.load for s in samples),
        "held": signals.held,
        "runs": sum(s.runs for s in samples),
        "p95Milliseconds": max(latencies) * 1000 if latencies else None,
        "tokensPerSecond": sum(s.tokens_per_second for s in samples),
        "gpuPercent": sum(gpus) / len(gpus) if gpus else None,
    }
    rounded = {name: _two_digits(value) for name, value in numbers.items() if value is not None}
    return {"time": formatted(now), **rounded}


def _two_digits(value: float) -> int:
    whole = round(value)
    return whole if whole < 100 else int(float(f"{whole:.1e}"))


def _moved(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    return any(_far(count(new, name), count(old, name)) for name in {*new, *old} - {"time"})


def _far(new: int, old: int) -> bool:
    return (new == 0) != (old == 0) or abs(new - old) > _MOVED * max(new, old)
