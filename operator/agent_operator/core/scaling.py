"""How many replicas an agent shall have, and who says so. Layer: core, pure; imports api and core.*.

The one idea: one number, one writer. `spec.replicas` is what people, an HPA or KEDA write and the operator
never does; what the operator itself wants with provider Native stands in `status.scaling`, and the Deployment
gets the result. So `kubectl scale` beside the native autoscaler is a request: noticed because spec.replicas
differs from what was noted last, followed at once, and subject to the next need like any other number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent_operator.api import ConditionStatus, Reason
from agent_operator.api.autoscaling import Autoscaling, AutoscalingProvider
from agent_operator.api.status import MAX_SCALING_HISTORY
from agent_operator.core import autoscale
from agent_operator.core.autoscale import Recommendation
from agent_operator.core.diagnosis.text import clean
from agent_operator.core.policy import policy
from agent_operator.core.reading import at, count, formatted, mapping, mappings
from agent_operator.core.request import Request
from agent_operator.core.signals import Signals
from agent_operator.core.verdict import FIXED, Verdict

REASON_LIMIT = 300


@dataclass(frozen=True, slots=True)
class Scaling:
    """What was decided about the number of replicas."""

    wanted: int
    """Replicas that shall run now; 0 while suspended."""
    status: Mapping[str, Any] | None
    """status.scaling, None where nothing scales."""
    verdict: Verdict | None
    """Condition ScalingActive, None where it depends on a scaler that others run."""
    requeue_after: float | None = None
    """Seconds after which time alone may change the number."""


def decide(
    agent: Mapping[str, Any], request: Request, signals: Signals, ready: int, now: datetime
) -> Scaling:
    """The number of replicas of one agent. `ready`: how many of them can answer now."""
    rules = request.spec.autoscaling
    if rules is None:
        return Scaling(request.wanted, None, FIXED)
    old = mapping(agent, "status", "scaling")
    if rules.provider is not AutoscalingProvider.NATIVE:
        why = f"spec.replicas is {request.spec.replicas}, by {rules.provider.value} or by hand"
        return Scaling(request.wanted, _noted(old, request.spec.replicas, why, now), None)
    if request.spec.suspend:
        verdict = Verdict(ConditionStatus.FALSE, Reason.SUSPENDED, "spec.suspend is true.")
        return Scaling(0, dict(old) or None, verdict)
    return _native(request, rules, signals, ready=ready, old=old, now=now)


def _native(
    request: Request,
    rules: Autoscaling,
    signals: Signals,
    *,
    ready: int,
    old: Mapping[str, Any],
    now: datetime,
) -> Scaling:
    asked = request.spec.replicas
    first = at(old, "desired") is None
    by_hand = not first and asked != count(old, "requested")
    memory = signals.memory
    if first or by_hand:
        memory = autoscale.requested(memory, asked, now.timestamp())
    current = min(max(asked, rules.min_replicas), rules.max_replicas) if first else count(old, "desired")
    found = autoscale.recommend(
        memory, policy(rules), current, signals.capacity, signals.lead_seconds or 0.0, now
    )
    why = f"spec.replicas was set to {asked}: {found.reason}" if by_hand else found.reason
    status = dict(_noted(old, found.desired, why, now)) | {"requested": asked}
    return Scaling(found.desired, status, _verdict(rules, found, signals, ready), found.again_in)


def _noted(old: Mapping[str, Any], desired: int, why: str, now: datetime) -> dict[str, Any]:
    """status.scaling with a number: the reason and an entry of the history only where it changed."""
    before = at(old, "desired")
    if before == desired:
        return dict(old)
    reason = clean(why, REASON_LIMIT)
    entry = {
        "time": formatted(now),
        "fromReplicas": count(old, "desired"),
        "toReplicas": desired,
        "reason": reason,
    }
    history = [entry, *mappings(old, "history")] if before is not None else mappings(old, "history")
    return {**old, "desired": desired, "reason": reason, "history": history[:MAX_SCALING_HISTORY]}


def _verdict(rules: Autoscaling, found: Recommendation, signals: Signals, ready: int) -> Verdict:
    """What does not move with every request: the figures stand in status.scaling."""
    span = f"Between {rules.min_replicas} and {rules.max_replicas} replicas by the agent's own load."
    if ready > 0 and not signals.samples:
        message = "No replica tells its load; the number of replicas is left as it is."
        return Verdict(ConditionStatus.FALSE, Reason.SIGNALS_MISSING, message)
    if found.limited_by == "Capacity":
        message = clean(f"{span} More are needed than can be placed: {signals.capacity.why}", REASON_LIMIT)
        return Verdict(ConditionStatus.TRUE, Reason.LIMITED_BY_CAPACITY, message)
    return Verdict(ConditionStatus.TRUE, Reason.AUTOSCALING, span)
