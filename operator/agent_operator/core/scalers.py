"""Scalers that others run: HPA and KEDA. Layer: core, pure; imports api and core.*.

The one idea: one of them at most writes spec.replicas. The operator says what it shall keep to, follows the
number and never writes it; when another provider is chosen, the old scaler is gone before the new one comes.
"""

from __future__ import annotations

import re
from typing import Any

from agent_operator.api import AgentDeploymentSpec, ConditionStatus, Reason
from agent_operator.api.autoscaling import AutoscalingProvider
from agent_operator.core import naming
from agent_operator.core.children import hpa, scaled_object
from agent_operator.core.children.metadata import Owner
from agent_operator.core.conditions import SHORT_LIMIT
from agent_operator.core.diagnosis.text import clean
from agent_operator.core.observed import Object, Observed, terminating
from agent_operator.core.reading import condition, text
from agent_operator.core.snapshot import ApplyFailure, Defaults
from agent_operator.core.verdict import Verdict

HEALTH = {hpa.KIND_NAME: "ScalingActive", scaled_object.KIND_NAME: "Ready"}
"""Each kind of scaler and its own condition that says whether it works."""

NO_KEDA = (
    "spec.autoscaling.provider is KEDA, which this operator does not use: install KEDA and set keda.enabled "
    "and keda.prometheusAddress in the operator's chart, or name another provider. Until then spec.replicas "
    "decides"
)

_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]{0,126}[A-Za-z0-9_])?")


def child(
    owner: Owner, spec: AgentDeploymentSpec, defaults: Defaults, seen: Observed
) -> dict[str, Any] | None:
    """The scaler that should exist; None while another one of ours does: KEDA's webhook refuses a target
    that has a scaler, and two would fight."""
    kind = _kind(spec, defaults)
    if kind is None or spec.autoscaling is None or _others(kind, seen):
        return None
    if kind == hpa.KIND_NAME:
        return hpa.hpa(owner, spec.autoscaling)
    return scaled_object.scaled_object(owner, spec.autoscaling, defaults.keda_prometheus_address or "")


def verdict(
    owner: Owner,
    spec: AgentDeploymentSpec,
    defaults: Defaults,
    seen: Observed,
    blocked: tuple[ApplyFailure, ...],
) -> Verdict | None:
    """Whether another scaler works for the agent; None when none is asked for."""
    scaling = spec.autoscaling
    if scaling is None or scaling.provider is AutoscalingProvider.NATIVE:
        return None
    kind = _kind(spec, defaults)
    if kind is None:
        return Verdict(ConditionStatus.FALSE, Reason.SCALER_NOT_AVAILABLE, f"{NO_KEDA}.")
    name = naming.agent_stem(owner.name)
    what = f"{kind} {name}"
    if (refused := next((f for f in blocked if f.kind == kind), None)) is not None:
        message = clean(f"{what} cannot be written: {refused.message}", SHORT_LIMIT)
        return Verdict(ConditionStatus.FALSE, Reason.SCALER_NOT_AVAILABLE, message)
    live = seen.by_name.get((kind, name))
    if live is None or terminating(live):
        return Verdict(ConditionStatus.FALSE, Reason.PROGRESSING, f"{what} does not exist yet.")
    own = condition(live, HEALTH[kind])
    if own.get("status") == "False":
        reason = text(own, "reason")
        told = reason if _REASON.fullmatch(reason) else Reason.SCALER_NOT_AVAILABLE
        return Verdict(ConditionStatus.FALSE, told, clean(f"{what}: {text(own, 'message')}", SHORT_LIMIT))
    bounds = f"between {scaling.min_replicas} and {scaling.max_replicas}"
    return Verdict(ConditionStatus.TRUE, Reason.EXTERNAL_SCALER, f"{what} sets spec.replicas, {bounds}.")


def _kind(spec: AgentDeploymentSpec, defaults: Defaults) -> str | None:
    """The kind of scaler that is asked for and can be had."""
    provider = spec.autoscaling.provider if spec.autoscaling else AutoscalingProvider.NATIVE
    if provider is AutoscalingProvider.HPA:
        return hpa.KIND_NAME
    keda = provider is AutoscalingProvider.KEDA and defaults.keda_prometheus_address is not None
    return scaled_object.KIND_NAME if keda else None


def _others(kind: str | None, seen: Observed) -> list[Object]:
    return [live for (found, _), live in sorted(seen.by_name.items()) if found in HEALTH and found != kind]
