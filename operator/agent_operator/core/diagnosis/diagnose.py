"""From pods to diagnoses. Layer: core, pure; imports core.diagnosis.* and core.reading.

The one idea: each pod that is not ready is told by the first signature that matches it, and equal
reasons are told once: a hundred pods without a GPU are one fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from agent_operator.core.diagnosis.facts import PodFacts, Termination, pod_facts
from agent_operator.core.diagnosis.signatures import SIGNATURES, Diagnosis, Subject, ending
from agent_operator.core.reading import formatted

RUNTIME_RESTARTED = "RuntimeRestarted"
RESTART_REMEMBERED = timedelta(minutes=10)

__all__ = ["RUNTIME_RESTARTED", "Diagnosis", "Subject", "diagnose", "each_once", "recent_restart"]


def diagnose(
    subject: Subject, pods: Iterable[Mapping[str, Any]], mount_errors: Mapping[str, str] | None = None
) -> tuple[Diagnosis, ...]:
    """What keeps the pods of one revision from being ready, in the order of the table."""
    facts = [fact for pod in pods if not (fact := pod_facts(pod, mount_errors)).ready]
    matched = [match for fact in facts if (match := _first_match(subject, fact)) is not None]
    return each_once(diagnosis for _, diagnosis in sorted(matched, key=lambda m: m[0]))


def each_once(found: Iterable[Diagnosis]) -> tuple[Diagnosis, ...]:
    """The first diagnosis of each reason."""
    by_reason: dict[str, Diagnosis] = {}
    for diagnosis in found:
        by_reason.setdefault(diagnosis.reason, diagnosis)
    return tuple(by_reason.values())


def recent_restart(pods: Iterable[Mapping[str, Any]], now: datetime) -> tuple[Diagnosis, timedelta] | None:
    """The latest restart of a runtime that has recovered, and for how long it is still told.

    It is told for RESTART_REMEMBERED after the container ended, and not at all without that time.
    """
    ended = [
        (container.termination.finished_at, fact.name, container.termination)
        for fact in map(pod_facts, pods)
        for container in fact.containers
        if fact.ready and container.termination is not None and container.restarts > 0
        if container.termination.finished_at is not None
    ]
    if not ended:
        return None
    finished_at, pod, termination = max(ended, key=lambda e: (e[0], e[1]))
    left = finished_at + RESTART_REMEMBERED - now
    return (_restarted(pod, termination, finished_at), left) if left > timedelta() else None


def _restarted(pod: str, termination: Termination, finished_at: datetime) -> Diagnosis:
    return Diagnosis(
        reason=RUNTIME_RESTARTED,
        evidence=f"pod {pod} restarted and is ready again; it ended at {formatted(finished_at)} with "
        f"{ending(termination)}",
        remedy=f"nothing if it stays a single event; its last words: kubectl logs {pod} --previous",
    )


def _first_match(subject: Subject, fact: PodFacts) -> tuple[int, Diagnosis] | None:
    for order, signature in enumerate(SIGNATURES):
        if (diagnosis := signature(subject, fact)) is not None:
            return order, diagnosis
    return None
