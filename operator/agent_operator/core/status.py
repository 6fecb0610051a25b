"""The status, whole and bounded. Layer: core, pure; imports api and core.*.

The one idea: it is computed anew each time and written only when its meaning changed. Times are the
only memory: a condition keeps the time of its last change of status, a diagnosis the time it was first
seen. What only reports progress can wait a moment: often the next thing to say is already on its way.

`replicas` is what is asked of the serving revision, or what exists while the API server refuses pods:
the number of pods follows within milliseconds, and telling each step would cost writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent_operator.api import ConditionStatus, ConditionType
from agent_operator.api.status import MAX_DIAGNOSES
from agent_operator.core import naming
from agent_operator.core.children.metadata import Owner
from agent_operator.core.children.service import url
from agent_operator.core.conditions import CALM, Situation, verdicts
from agent_operator.core.diagnosis import Diagnosis
from agent_operator.core.diagnosis.text import clean
from agent_operator.core.reading import at, condition_in, count, formatted, mapping, mappings, text
from agent_operator.core.verdict import Verdict

EVIDENCE_LIMIT = 600
REMEDY_LIMIT = 350


@dataclass(frozen=True, slots=True)
class Report:
    """What the status tells beside the conditions."""

    replicas: int
    ready_replicas: int
    model: str | None
    gpu: str | None
    current_revision: str | None
    update_revision: str | None
    scaling: Mapping[str, Any] | None = None
    load: Mapping[str, Any] | None = None
    last_start: Mapping[str, Any] | None = None


def build(
    agent: Mapping[str, Any], owner: Owner, situation: Situation, report: Report, now: datetime
) -> dict[str, Any]:
    """The whole status we own."""
    old = mapping(agent, "status")
    generation = count(agent, "metadata", "generation")
    told = [*situation.faults, *([situation.restarted] if situation.restarted else [])][:MAX_DIAGNOSES]
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "replicas": report.replicas,
        "readyReplicas": report.ready_replicas,
        "ready": f"{report.ready_replicas}/{situation.wanted}",
        "selector": ",".join(f"{k}={v}" for k, v in naming.selector(owner.name).items()),
        "model": report.model,
        "gpu": report.gpu,
        "url": url(owner),
        "currentRevision": report.current_revision,
        "updateRevision": report.update_revision,
        "conditions": [
            _condition(kind, verdict, generation, old, now) for kind, verdict in verdicts(situation).items()
        ],
        "scaling": report.scaling,
        "load": report.load,
        "lastStart": report.last_start,
        "diagnoses": [_diagnosis(diagnosis, old, now) for diagnosis in told],
    }
    return {key: value for key, value in status.items() if value not in (None, [])}


def same_meaning(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether a status says what the stored one says already.

    Order of keys and of conditions, empty lists, and conditions of other writers do not matter.
    """
    return _normal(new, new) == _normal(old, new)


def urgent(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether a changed status says more than that things are on their way."""
    before, after = (condition_in(status, ConditionType.READY) for status in (old, new))
    if text(after, "status") != (text(before, "status") or ConditionStatus.FALSE):
        return True
    if at(new, "scaling", "desired") != at(old, "scaling", "desired"):
        return True  # the next decision goes by this number
    return text(after, "reason") not in CALM


def _normal(status: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    types = {text(c, "type") for c in mappings(ours, "conditions")}
    conditions = [dict(c) for c in mappings(status, "conditions") if text(c, "type") in types]
    return {
        **{key: value for key, value in status.items() if value not in (None, [], {})},
        "conditions": sorted(conditions, key=lambda c: text(c, "type")),
    }


def _condition(
    kind: ConditionType, verdict: Verdict, generation: int, old: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    before = condition_in(old, kind)
    since = text(before, "lastTransitionTime") if before.get("status") == verdict.status else ""
    return {
        "type": kind.value,
        "status": verdict.status.value,
        "reason": str(verdict.reason),
        "message": verdict.message,
        "observedGeneration": generation,
        "lastTransitionTime": since or formatted(now),
    }


def _diagnosis(diagnosis: Diagnosis, old: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    before = (d for d in mappings(old, "diagnoses") if d.get("reason") == diagnosis.reason)
    return {
        "reason": str(diagnosis.reason),
        "evidence": clean(diagnosis.evidence, EVIDENCE_LIMIT),
        "remedy": clean(diagnosis.remedy, REMEDY_LIMIT),
        "firstSeen": text(next(before, {}), "firstSeen") or formatted(now),
    }
