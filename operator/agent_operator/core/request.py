"""What was asked for, or why it cannot be done. Layer: core, pure; imports api and core.*.

The one idea: a specification is either understood and possible in this version as a whole, or refused
as a whole with every field named; nothing is done by halves and nothing is silently ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from agent_operator.api import AgentDeploymentSpec, ModelUri, Reason, parse_model_uri
from agent_operator.api.agent import SessionStore
from agent_operator.api.features import unsupported
from agent_operator.core import autoscale
from agent_operator.core.children.hpa import cpu_problem
from agent_operator.core.children.volumes import log_problem
from agent_operator.core.diagnosis.text import clean
from agent_operator.core.policy import windows

_NAMED = 5
"""Faults that are told in full; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Request:
    """A specification that can be carried out."""

    spec: AgentDeploymentSpec
    model: ModelUri | None
    """Where the weights are, None for a remote model."""
    scaled: int | None = None
    """Replicas by the operator's own measure, None where spec.replicas decides."""

    @property
    def wanted(self) -> int:
        """Replicas that shall run now."""
        if self.spec.suspend:
            return 0
        return self.spec.replicas if self.scaled is None else self.scaled

    @property
    def most(self) -> int:
        """The most replicas there may be without another specification."""
        scaling = self.spec.autoscaling
        return self.spec.replicas if scaling is None else scaling.max_replicas

    @property
    def gpus(self) -> int:
        """Devices per replica."""
        return self.spec.resources.gpu.count if self.spec.resources and self.spec.resources.gpu else 0

    @property
    def model_name(self) -> str:
        """Short name of the model, for tables."""
        remote = self.spec.model.remote
        return clean(self.model.display if self.model else remote.model if remote else "", 253)

    @property
    def advice(self) -> str:
        """A sentence about what works and may surprise, "" when there is none."""
        sessions = self.spec.agent.sessions if self.spec.agent else None
        if sessions is None or sessions.store is not SessionStore.MEMORY or self.most <= 1:
            return ""
        return (
            "Each session lives in the memory of one replica, and only that one knows it; to share sessions, "
            "use spec.agent.sessions.store Redis"
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """A specification that cannot: reason and message of the condition."""

    reason: Reason
    message: str


def read(agent: Mapping[str, Any]) -> Request | Refusal:
    """The request in an AgentDeployment."""
    try:
        spec = AgentDeploymentSpec.model_validate(agent.get("spec"))
    except ValidationError as error:
        return _invalid([f"{_path(e['loc'])}: {e['msg']}" for e in error.errors(include_url=False)])
    if missing := unsupported(spec):
        faults = [f"{field.path}: {field.why}; {field.remedy}" for field in missing]
        return Refusal(Reason.FEATURE_NOT_SUPPORTED, _listed(faults))
    if (spec.model.uri is None) == (spec.model.remote is None):
        return _invalid(["spec.model: set exactly one of model.uri and model.remote"])
    try:
        model = parse_model_uri(spec.model.uri) if spec.model.uri is not None else None
    except ValueError as error:
        return _invalid([f"spec.model.uri: {error}"])
    problems = {
        "spec.runtime.logging.path": log_problem(spec, model),
        "spec.autoscaling.targetCPUUtilizationPercent": cpu_problem(spec),
    }
    faults = [f"{path}: {problem}" for path, problem in problems.items() if problem is not None]
    faults += autoscale.problems(windows(spec.autoscaling))
    return _invalid(faults) if faults else Request(spec, model)


def _invalid(faults: list[str]) -> Refusal:
    return Refusal(Reason.INVALID_SPEC, _listed(faults))


def _listed(faults: list[str]) -> str:
    told = " | ".join(clean(fault, 300) for fault in faults[:_NAMED])
    more = len(faults) - _NAMED
    return clean(f"{told} | and {more} more" if more > 0 else told, 900)


def _path(location: tuple[int | str, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "spec" + "".join(parts)
