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
from agent_operator.core.signals import Signals, totals

PERIOD = timedelta(seconds=60)
_MOVED = 0.2


def load(signals: Signals, old: Mapping[str, Any], now: datetime) -> dict[str, Any] | None:
    """The status.load to show: the old one as long as it is near enough; None where nothing is known."""
    return _measured(signals, now) if is_due(signals, old, now) else dict(old) or None


def is_due(signals: Signals, old: Mapping[str, Any], now: datetime) -> bool:
    """Whether another load than the old one is to be shown. Asked at every answer of a replica."""
    taken = timestamp(old.get("time"))
    if taken is None:
        return bool(signals.samples)
    return now - taken >= PERIOD and _moved(_measured(signals, now), old)


def _measured(signals: Signals, now: datetime) -> dict[str, Any]:
    all_told = totals(signals.samples.values())
    numbers = {
        "requests": all_told["requests_running"] + all_told["requests_waiting"],
        "held": signals.held,
        "runs": all_told["runs"],
        "tokensPerSecond": all_told["tokens_per_second"],
    }
    if (seconds := all_told.get("latency_p95_seconds")) is not None:
        numbers["p95Milliseconds"] = 1000 * seconds
    if (ratio := all_told.get("gpu_utilization_ratio")) is not None:
        numbers["gpuPercent"] = 100 * ratio
    rounded = {name: _two_digits(value) for name, value in numbers.items()}
    return {"time": formatted(now), **rounded}


def _two_digits(value: float) -> int:
    whole = round(value)
    return whole if whole < 100 else int(float(f"{whole:.1e}"))


def _moved(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    return any(_far(count(new, name), count(old, name)) for name in {*new, *old} - {"time"})


def _far(new: int, old: int) -> bool:
    return (new == 0) != (old == 0) or abs(new - old) > _MOVED * max(new, old)
