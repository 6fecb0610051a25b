"""What one decision says to do. Layer: core, pure; imports the standard library only.

The one idea: a plan is data. The executor carries it out in order and adds no judgement of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from agent_operator.core.snapshot import ApplyFailure, PodReference

__all__ = ["Apply", "ApplyFailure", "Delete", "Event", "Plan", "PodReference"]


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply of a whole object. `uid` None: expected not to exist yet."""

    object: dict[str, Any]
    uid: str | None
    reason: str
    replacement: dict[str, Any] | None = None
    """Whole object, resourceVersion included, to PUT instead: somebody else's list entry collides with
    ours, and an apply can neither remove it nor be valid beside it."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one object, with its uid as precondition, in the background."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    reason: str


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event about the AgentDeployment. `reason` is a stable CamelCase word."""

    type: Literal["Normal", "Warning"]
    reason: str
    note: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Writes in order, then the status, then the events.

    `status` is the whole status we own, or None when its meaning did not change; `urgent`: somebody may be
    waiting for it, it is not only a report of progress.
    `requeue_after` is in seconds, None when only a change may wake us; `why` says in a sentence what
    was decided (for the log line of this reconcile). `inspect` are pods whose events would tell more:
    with them in the snapshot the decision is to be made again before anything is carried out.
    """

    writes: tuple[Apply | Delete, ...] = ()
    status: dict[str, Any] | None = None
    urgent: bool = False
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
    why: str = ""
    inspect: tuple[PodReference, ...] = ()
