"""Which transitions are told as Events. Layer: core, pure; imports api, core.plan and core.reading.

The one idea: an Event is the difference between the status that is stored and the one that will be;
no difference, no event, so a restart of the operator tells nothing twice. A start that goes as it should is
no event: the conditions say it, and every event is a write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_operator.api import ConditionType, Reason
from agent_operator.core.conditions import CALM
from agent_operator.core.diagnosis import RUNTIME_RESTARTED
from agent_operator.core.diagnosis.text import clean
from agent_operator.core.plan import Event
from agent_operator.core.reading import at, condition_in, mappings, text

NOTE_LIMIT = 1000
SCALED = "Scaled"
PROMOTED = "RevisionPromoted"
STARTED = "RevisionStarted"


def events(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Event, ...]:
    """What to tell about the step from one status to the next."""
    told = [*_revisions(old, new), *_scaling(old, new), *_readiness(old, new), *_restarts(old, new)]
    return tuple(Event(e.type, e.reason, clean(e.note, NOTE_LIMIT)) for e in told)


def _revisions(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    told = []
    target, serving = text(new, "updateRevision"), text(new, "currentRevision")
    if target and text(old, "updateRevision") not in ("", target):
        told.append(Event("Normal", STARTED, f"The spec asks for revision {target}"))
    if serving and text(old, "currentRevision") not in ("", serving):
        told.append(Event("Normal", PROMOTED, f"Revision {serving} serves now"))
    return told


def _scaling(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    before, after = at(old, "scaling", "desired"), at(new, "scaling", "desired")
    if before is None or after is None or before == after:
        return []
    return [Event("Normal", SCALED, f"From {before} to {after} replicas: {text(new, 'scaling', 'reason')}")]


def _readiness(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    before, after = (condition_in(status, ConditionType.READY) for status in (old, new))
    reason, message = text(after, "reason"), text(after, "message")
    same_reason, was_ready = text(before, "reason") == reason, before.get("status") == "True"
    if reason not in CALM:
        return [] if same_reason else [Event("Warning", reason, message)]
    if reason == Reason.PROGRESSING:
        lost = was_ready and after.get("status") == "False"
        return [Event("Warning", "NotReady", message)] if lost else []
    if reason in (Reason.READY, Reason.PARTIALLY_READY):
        recovered = text(before, "reason") not in CALM or not was_ready
        return [Event("Normal", reason, message)] if recovered and text(old, "currentRevision") else []
    return [Event("Normal", reason, message)] if before and not same_reason else []


def _restarts(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Event]:
    before, after = _restart(old), _restart(new)
    if not after or after == before:
        return []
    return [Event("Warning", RUNTIME_RESTARTED, after)]


def _restart(status: Mapping[str, Any]) -> str:
    found = (d for d in mappings(status, "diagnoses") if d.get("reason") == RUNTIME_RESTARTED)
    return text(next(found, {}), "evidence")
