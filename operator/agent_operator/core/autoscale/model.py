"""The values of autoscaling: what is wanted, what was seen, what can be had, what follows. Layer: core, pure.

The one idea: a decision is made from these values alone. Times are Unix seconds, durations seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Limit = Literal["", "MinReplicas", "MaxReplicas", "Capacity", "Schedule", "SignalsMissing"]


@dataclass(frozen=True, slots=True)
class Window:
    """A recurring time window with a minimum of its own."""

    name: str
    start: str
    """Cron expression of five fields."""
    end: str
    time_zone: str
    """IANA name."""
    min_replicas: int


@dataclass(frozen=True, slots=True)
class Policy:
    """What spec.autoscaling asks for. Targets are per replica and above zero; 0 <= min <= max, 1 <= max."""

    min_replicas: int
    max_replicas: int
    target_concurrency: float
    target_queued_tokens: int | None = None
    target_p95_seconds: float | None = None
    tolerance: float = 0.1
    """A load this share above what the replicas should carry is no reason to add one."""
    stable_seconds: float = 60
    panic_seconds: float = 6
    panic_threshold: float = 2.0
    """Panic begins when this many times the ready replicas are needed."""
    scale_up_delay_seconds: float = 0
    scale_down_delay_seconds: float = 60
    windows: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True)
class Observation:
    """One sample of an agent's replicas and of the gateway before them."""

    at: float
    concurrency: float
    """Requests running and waiting, summed over the replicas that answered."""
    held: int
    """Requests that a gateway holds because no replica is ready."""
    queued_tokens: float
    """Prompt tokens that wait, summed over the replicas that answered."""
    p95_seconds: float | None
    """None: no request ended lately, or the replicas do not say."""
    ready: int
    answered: int
    """Those of the ready replicas whose sample arrived."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the cluster can place; None: unknown."""

    fits: int | None = None
    """The most replicas that could ever fit."""
    free: int | None = None
    """How many more would fit now."""
    why: str = ""
    """What limits it, as the end of a sentence, e.g. "the quota allows 4 GPUs"."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The number of replicas to ask for, and the sentence that says why."""

    desired: int
    reason: str
    limited_by: Limit
    panic: bool
    again_in: float | None
    """Seconds after which time alone may change the answer; None: only new signals can."""
