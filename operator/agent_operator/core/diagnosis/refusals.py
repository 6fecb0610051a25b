"""What the API server refuses. Layer: core, pure; imports api, core.reading, core.snapshot.

The one idea: a child or a pod that could not be created leaves no pod to look at; the refusal itself is
the evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_operator.api import Reason
from agent_operator.core.diagnosis.signatures import Diagnosis
from agent_operator.core.diagnosis.text import clean
from agent_operator.core.reading import condition, text
from agent_operator.core.snapshot import ApplyFailure


def refused_children(blocked: tuple[ApplyFailure, ...]) -> list[Diagnosis]:
    """Diagnoses of children that could not be written. A Conflict solves itself and is none."""
    found = []
    for failure in blocked:
        what = f"{failure.kind} {failure.name}: {clean(failure.message)}"
        if failure.code == "NameTaken":
            remedy = "delete or rename that object, or give the AgentDeployment another name"
            found.append(Diagnosis(Reason.CHILD_NAME_TAKEN, what, remedy, needs_user=True))
        elif failure.code == "Forbidden":
            found.append(_forbidden(what, failure.message))
        elif failure.code == "Invalid":
            remedy = "correct the field named in the message, as a rule in spec.template or spec.resources"
            found.append(Diagnosis(Reason.CHILD_INVALID, what, remedy, needs_user=True))
        elif failure.code == "Other":
            remedy = "the operator tries again; if it stays, its log says more"
            found.append(Diagnosis(Reason.RECONCILE_ERROR, what, remedy))
    return found


def refused_pods(deployment: Mapping[str, Any] | None) -> list[Diagnosis]:
    """Diagnosis of a Deployment whose pods the API server refuses."""
    failure = condition(deployment, "ReplicaFailure")
    if failure.get("status") != "True":
        return []
    message = text(failure, "message")
    what = f"pods cannot be created: {clean(message)}"
    if "forbidden" in message or "denied the request" in message:
        return [_forbidden(what, message)]
    if "is invalid" in message:
        remedy = "correct the field named in the message, as a rule in spec.template or spec.resources"
        return [Diagnosis(Reason.CHILD_INVALID, what, remedy)]
    return [Diagnosis(Reason.RECONCILE_ERROR, what, "see the events of the Deployment and its ReplicaSet")]


def _forbidden(what: str, message: str) -> Diagnosis:
    if "exceeded quota" in message or "failed quota" in message:
        remedy = (
            "free what the quota counts, lower spec.resources or spec.replicas, or raise the ResourceQuota"
        )
        return Diagnosis(Reason.QUOTA_EXCEEDED, what, remedy)
    if "violates PodSecurity" in message:
        remedy = "remove from spec.template what the namespace's Pod Security Standard forbids"
        return Diagnosis(Reason.ADMISSION_DENIED, what, remedy)
    remedy = "change what the message names, or ask whoever set that policy or the operator's role"
    return Diagnosis(Reason.ADMISSION_DENIED, what, remedy)
