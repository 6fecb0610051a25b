"""Volumes that a pod waits for. Layer: core, pure; imports api.names, core.reading and core.snapshot.

The one idea: while a volume cannot be mounted, for example because its Secret is missing, a pod's status
says ContainerCreating and nothing more; the reason stands only in the kubelet's events. Reading those costs
a request, so they are asked for when a pod has waited longer than mounting takes, and ever more rarely: after
PATIENCE, then each time the wait has doubled, at least every LONGEST_PAUSE.

What the kubelet says is believed when it is recent and not one of its passing states; a missing object at
once, anything else when it has lasted SURE_AFTER (a node may be a little late to attach a disk).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from agent_operator.core.reading import at, condition, mapping, mappings, text, timestamp
from agent_operator.core.snapshot import PodReference

PATIENCE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(minutes=2)
SURE_AFTER = timedelta(seconds=30)
RECENT = timedelta(minutes=10)
"""The kubelet tries again every two minutes and tells it at least every five; what is older is over."""
PODS_LOOKED_AT = 2
"""Pods of a revision have the same volumes, so one or two tell for all of them."""

_CREATING = frozenset({"", "ContainerCreating", "PodInitializing"})
_REASONS = frozenset({"FailedMount", "FailedAttachVolume"})
_PASSING = re.compile(r"failed to sync|not registered|timed out waiting for the condition|^Unable to attach")
MISSING = re.compile(r'\b(secret|configmap)s? "([^"]{1,253})" not found')
"""Kind and name of an object that the kubelet looked for."""
MISSING_KEY = re.compile(r"references non-existent (secret|config) key: ([-._a-zA-Z0-9]{1,253})")
"""Kind of the object and the key it lacks; the kubelet does not name the object."""
_BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Look:
    """Whose events to read now, and after how long to look at the pods again."""

    pods: tuple[PodReference, ...] = ()
    again_after: timedelta | None = None


def look(pods: Iterable[Mapping[str, Any]], now: datetime) -> Look:
    """What to do about pods that may be waiting for their volumes."""
    found = ((since, pod) for pod in pods if (since := waiting_since(pod)) and text(pod, "metadata", "uid"))
    waits = sorted(found, key=lambda wait: wait[0])
    if not waits:
        return Look()
    waited = max(now - waits[0][0], timedelta())
    if waited < PATIENCE:
        return Look(again_after=PATIENCE - waited)
    due = [_reference(pod) for since, pod in waits if now - since >= PATIENCE]
    return Look(tuple(due[:PODS_LOOKED_AT]), min(waited, LONGEST_PAUSE))


def waiting_since(pod: Mapping[str, Any]) -> datetime | None:
    """Since when a pod has a node and not yet the sandbox that comes after its volumes; None otherwise.

    A pod is taken to wait unless it says otherwise: a started container, or the condition that the kubelet
    sets once volumes and network are there.
    """
    scheduled = condition(pod, "PodScheduled")
    statuses = mappings(pod, "status", "containerStatuses") + mappings(pod, "status", "initContainerStatuses")
    started = any(
        at(status, state, phase) is not None
        for status in statuses
        for state, phase in (("state", "running"), ("state", "terminated"), ("lastState", "terminated"))
    )
    waits = scheduled.get("status") == "True" and text(pod, "status", "phase") in ("", "Pending")
    if not waits or started or condition(pod, "PodReadyToStartContainers").get("status") == "True":
        return None
    reasons = {text(status, "state", "waiting", "reason") for status in statuses}
    return timestamp(scheduled.get("lastTransitionTime")) if reasons <= _CREATING else None


def errors(
    pods: Iterable[Mapping[str, Any]], warnings: Iterable[Mapping[str, Any]], now: datetime
) -> dict[str, str]:
    """By pod uid, why its volumes cannot be mounted, in the kubelet's words; only pods with a reason."""
    told = [event for event in warnings if _is_about_mounting(event) and now - _time(event) <= RECENT]
    newest_first = sorted(told, key=_time, reverse=True)
    found = {}
    for pod in pods:
        since, uid = waiting_since(pod), text(pod, "metadata", "uid")
        if since is None or not uid:
            continue
        notes = [text(e, "note") for e in newest_first if text(e, "regarding", "uid") == uid]
        believed = [note for note in notes if MISSING.search(note) or MISSING_KEY.search(note)]
        if now - since >= SURE_AFTER:
            believed += notes
        if believed:
            found[uid] = believed[0]
    return found


def _is_about_mounting(event: Mapping[str, Any]) -> bool:
    return text(event, "reason") in _REASONS and not _PASSING.search(text(event, "note"))


def _time(event: Mapping[str, Any]) -> datetime:
    """When it happened last: the kubelet counts repetitions in one of two ways."""
    times = (
        event.get("deprecatedLastTimestamp"),
        mapping(event, "series").get("lastObservedTime"),
        event.get("eventTime"),
    )
    return max((found for time in times if (found := timestamp(time))), default=_BEGINNING)


def _reference(pod: Mapping[str, Any]) -> PodReference:
    return PodReference(*(text(pod, "metadata", field) for field in ("namespace", "name", "uid")))
