"""What starts cost: each replica's seconds from creation to Ready. Layer: core, pure; imports api.names,
core.reading and agent_runtime.stats.

The one idea: how long a start takes is measured on every start, and nothing else is believed about it. What
Kubernetes did is in the pod's own times, what the runtime did is in its phases; the autoscaler reads from the
last starts how far ahead it has to decide, and the startup deadline how much patience is due.

Kubernetes writes whole seconds, of several clocks, so a difference may come out below zero: it is zero then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from agent_operator.api.names import RUNTIME_CONTAINER
from agent_operator.core.reading import at, condition, count, formatted, mappings, text, timestamp
from agent_runtime.stats import Stats

MAX_STARTS = 16
"""Starts that are remembered, the newest."""
LEAD_SHARE = 0.9
"""Share of starts that the lead is to cover."""
MIN_DEADLINE_SECONDS = 600
MOST_SECONDS = 999_999.0
"""The largest decimal that the API takes; eleven days."""
DEADLINE_FACTOR = 5
"""A start five times slower than any before it is no slow start."""
PROBE_SECONDS = 60
"""Longest the kubelet takes to see what the runtime says of itself. A readiness that came later came back."""


@dataclass(frozen=True, slots=True)
class Start:
    """One replica's start, in seconds by phase. The runtime's phases are 0 where it did not tell them."""

    pod: str
    at: datetime
    """When it became ready."""
    scheduled_seconds: float
    """From creation to a node."""
    image_seconds: float
    """From the node to the container's start: images and volumes."""
    fetch_seconds: float
    """Getting the model."""
    load_seconds: float
    """Loading its weights."""
    warmup_seconds: float
    """A first generation."""
    first_token_seconds: float | None
    """From a prompt to its first token, once warm; None where nothing was generated."""
    total_seconds: float
    """From creation to Ready: the phases, the process's own start, and the waits between."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The last starts of one revision, the oldest first."""

    starts: tuple[Start, ...] = ()


def read_start(pod: Mapping[str, Any], stats: Stats | None) -> Start | None:
    """The start that led to this pod's readiness; None while it is not ready, after a restart of a container
    (its times are then of two starts), and for a pod that misses one of the times."""
    statuses = mappings(pod, "status", "containerStatuses")
    if any(count(status, "restartCount") > 0 for status in statuses):
        return None
    created = timestamp(at(pod, "metadata", "creationTimestamp"))
    scheduled, ready = _became(pod, "PodScheduled"), _became(pod, "Ready")
    running = _running_since(statuses)
    if created is None or scheduled is None or running is None or ready is None:
        return None
    phases = stats.load_phases if stats is not None else {}
    if (inside := _seconds(phases, "ready")) is not None and inside < MOST_SECONDS:
        said = running + timedelta(seconds=inside)
        ready = said if _between(said, ready) > PROBE_SECONDS else ready
    return Start(
        pod=text(pod, "metadata", "name"),
        at=ready,
        scheduled_seconds=_between(created, scheduled),
        image_seconds=_between(scheduled, running),
        fetch_seconds=_seconds(phases, "fetch") or 0.0,
        load_seconds=_seconds(phases, "load") or 0.0,
        warmup_seconds=_seconds(phases, "warmup") or 0.0,
        first_token_seconds=_seconds(phases, "first_token"),
        total_seconds=_between(created, ready),
    )


def add(ledger: Ledger, start: Start) -> Ledger:
    """The ledger with one more start. A pod is in it once: what was read first stays, as a pod that loses its
    readiness and gets it back has not started anew; only phases that were unknown then are added."""
    known = next((one for one in ledger.starts if one.pod == start.pod), None)
    if known is not None and (_has_phases(known) or not _has_phases(start)):
        return ledger
    others = [one for one in ledger.starts if one is not known]
    starts = sorted((*others, start), key=lambda one: (one.at, one.pod))
    return Ledger(tuple(starts[-MAX_STARTS:]))


def _has_phases(start: Start) -> bool:
    return start.fetch_seconds + start.load_seconds + start.warmup_seconds > 0


def lead_seconds(ledger: Ledger) -> float | None:
    """How long before it is needed a replica has to be asked for: what nine of ten recent starts took at
    most, the slowest left out once there are three, since one bad node is no rule. None before a start."""
    totals = sorted(start.total_seconds for start in ledger.starts)
    if len(totals) > 2:
        totals.pop()
    return totals[math.ceil(LEAD_SHARE * len(totals)) - 1] if totals else None


def startup_deadline(ledger: Ledger) -> int | None:
    """Seconds after which a start may be given up as hung: generous, for a deadline that is too short kills
    what would have come. None before a start."""
    slowest = max((start.total_seconds for start in ledger.starts), default=None)
    return None if slowest is None else max(MIN_DEADLINE_SECONDS, math.ceil(DEADLINE_FACTOR * slowest))


def to_status(start: Start) -> dict[str, str]:
    """What status.lastStart says: decimals as strings."""
    shown = {
        "scheduledSeconds": start.scheduled_seconds,
        "imageSeconds": start.image_seconds,
        "fetchSeconds": start.fetch_seconds,
        "loadSeconds": start.load_seconds,
        "warmupSeconds": start.warmup_seconds,
        "firstTokenSeconds": start.first_token_seconds,
        "readySeconds": start.total_seconds,
    }
    seconds = {name: _decimal(value) for name, value in shown.items() if value is not None}
    return {"pod": start.pod, "time": formatted(start.at), **seconds}


def phases(start: Start) -> dict[str, float]:
    """Seconds by phase, for a histogram."""
    found = {
        "schedule": start.scheduled_seconds,
        "image": start.image_seconds,
        "fetch": start.fetch_seconds,
        "load": start.load_seconds,
        "warmup": start.warmup_seconds,
        "first_token": start.first_token_seconds,
        "ready": start.total_seconds,
    }
    return {phase: seconds for phase, seconds in found.items() if seconds is not None}


def _became(pod: Mapping[str, Any], kind: str) -> datetime | None:
    """When a condition became true; None when it is not."""
    found = condition(pod, kind)
    return timestamp(found.get("lastTransitionTime")) if found.get("status") == "True" else None


def _running_since(statuses: list[Mapping[str, Any]]) -> datetime | None:
    """When the runtime's container started; None while it does not run."""
    own = next((status for status in statuses if status.get("name") == RUNTIME_CONTAINER), None)
    return timestamp(at(own, "state", "running", "startedAt"))


def _between(earlier: datetime, later: datetime) -> float:
    return max(0.0, (later - earlier).total_seconds())


def _seconds(phases: Mapping[str, float], name: str) -> float | None:
    """A phase's seconds; None when it is not told, or told as what no time can be."""
    found = phases.get(name)
    return found if found is not None and 0 <= found < math.inf else None


def _decimal(seconds: float) -> str:
    """Milliseconds are enough; within what the API takes for a decimal."""
    return f"{min(seconds, MOST_SECONDS):.3f}".rstrip("0").rstrip(".")
