"""What the conditions say. Layer: core, pure; imports api and core.diagnosis.

The one idea: five questions, each with one answer and its reason.

- Ready: does the agent answer requests? True as soon as one replica of the serving revision is ready,
  False when none is or none is wanted. Its reason, shown as STATUS by kubectl, is the most important
  thing to know even while it is True: a new revision that finds no GPU gives Ready=True with reason
  InsufficientGPU, because the old one keeps serving.
- Reconciling, Stalled (abnormal when True, as kstatus expects; never both, since kstatus takes the first
  it meets): Reconciling while the cluster is on its way to the newest spec, a fault that may pass by
  itself (a GPU becomes free, a Secret is created) included. Stalled once it will not get there without
  somebody's doing: the spec is refused, a child is refused for good, the progress deadline has passed.
- Degraded: was a fault recognised that keeps replicas from being ready? A restart that was survived is
  no fault; it is told among the diagnoses.
- ScalingActive: does anything but spec.replicas decide how many replicas there are?
- Validated belongs to a feature that is not asked for.

Nothing here narrates a normal start step by step: from Progressing to Ready is one write.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent_operator.api import ConditionStatus, ConditionType, Reason
from agent_operator.core.diagnosis import Diagnosis
from agent_operator.core.diagnosis.text import clean
from agent_operator.core.request import Refusal
from agent_operator.core.verdict import FIXED, Verdict

CALM = frozenset(
    {Reason.READY, Reason.PROGRESSING, Reason.PARTIALLY_READY, Reason.SUSPENDED, Reason.SCALED_TO_ZERO}
    | {Reason.PAUSED, Reason.WAKING}
)
"""Reasons of Ready that nobody needs to be warned of."""

MESSAGE_LIMIT = 900
SHORT_LIMIT = 300


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything the conditions depend on."""

    serve: str | None
    """Revision behind the Service, None when there is none."""
    target: str | None
    """Revision of the newest spec, None when that is refused."""
    wanted: int
    ready: int
    """Ready pods of the serving revision."""
    settled: bool
    """Only the target exists, complete, and serves."""
    refusal: Refusal | None = None
    paused: bool = False
    suspended: bool = False
    stalled: bool = False
    """Nothing goes on without somebody's doing."""
    faults: tuple[Diagnosis, ...] = ()
    restarted: Diagnosis | None = None
    advice: str = ""
    """A sentence about what works and may surprise, told while nothing is wrong."""
    scaling: Verdict = FIXED
    """What condition ScalingActive says."""
    asleep: str = ""
    """Why nothing is wanted although spec.replicas may be more, "" where spec.replicas says so."""
    waking: bool = False
    """Requests are held until the first replica is ready."""


def verdicts(situation: Situation) -> dict[ConditionType, Verdict]:
    """All conditions, in the order in which they are written."""
    return {
        ConditionType.READY: ready(situation),
        ConditionType.RECONCILING: reconciling(situation),
        ConditionType.STALLED: stalled(situation),
        ConditionType.DEGRADED: degraded(situation),
        ConditionType.VALIDATED: Verdict(
            ConditionStatus.UNKNOWN,
            Reason.NOT_CONFIGURED,
            "No analysis is asked for: a revision serves as soon as it is ready.",
        ),
        ConditionType.SCALING_ACTIVE: situation.scaling,
    }


def ready(situation: Situation) -> Verdict:
    """Does the agent answer requests?"""
    status = ConditionStatus.TRUE if situation.ready > 0 and situation.serve else ConditionStatus.FALSE
    if (refusal := situation.refusal) is not None:
        kept = f" Revision {situation.serve} keeps running." if situation.serve else ""
        return Verdict(ConditionStatus.FALSE, refusal.reason, f"{refusal.message}.{kept}")
    if situation.paused:
        return Verdict(status, Reason.PAUSED, f"{_counted(situation)}. Children are left as they are.")
    if situation.suspended:
        return Verdict(
            ConditionStatus.FALSE, Reason.SUSPENDED, "spec.suspend is true; set it to false to serve again."
        )
    if situation.wanted == 0:
        why = situation.asleep or "spec.replicas is 0; raise it to serve."
        return Verdict(ConditionStatus.FALSE, Reason.SCALED_TO_ZERO, why)
    if situation.faults:
        return Verdict(status, situation.faults[0].reason, _explained(situation))
    advice = f" {situation.advice}." if situation.advice else ""
    message = clean(_progress_message(situation) + advice, MESSAGE_LIMIT)
    return Verdict(status, _progress(situation), message)


def reconciling(situation: Situation) -> Verdict:
    """Is the cluster on its way to the newest spec?"""
    if situation.paused and situation.refusal is None:
        message = "The annotation agentoperator.dev/paused is set; remove it to go on."
        return Verdict(ConditionStatus.FALSE, Reason.PAUSED, message)
    if is_stalled(situation) or situation.settled:
        return Verdict(ConditionStatus.FALSE, Reason.AS_EXPECTED, "")
    if situation.faults:
        fault = situation.faults[0]
        return Verdict(ConditionStatus.TRUE, fault.reason, clean(fault.evidence, SHORT_LIMIT))
    return Verdict(ConditionStatus.TRUE, Reason.PROGRESSING, _progress_message(situation))


def stalled(situation: Situation) -> Verdict:
    """Does it need somebody?"""
    if not is_stalled(situation):
        return Verdict(ConditionStatus.FALSE, Reason.AS_EXPECTED, "")
    if situation.refusal is not None:
        message = clean(situation.refusal.message, SHORT_LIMIT)
        return Verdict(ConditionStatus.TRUE, situation.refusal.reason, message)
    fault = situation.faults[0]
    return Verdict(ConditionStatus.TRUE, fault.reason, clean(fault.evidence, SHORT_LIMIT))


def degraded(situation: Situation) -> Verdict:
    """Was a fault recognised?"""
    if situation.refusal is not None or not situation.faults:
        return Verdict(ConditionStatus.FALSE, Reason.AS_EXPECTED, "")
    fault = situation.faults[0]
    return Verdict(ConditionStatus.TRUE, fault.reason, clean(fault.evidence, SHORT_LIMIT))


def is_stalled(situation: Situation) -> bool:
    """Whether nothing goes on without somebody's doing."""
    return situation.refusal is not None or (
        situation.stalled and bool(situation.faults) and not situation.paused
    )


def _progress(situation: Situation) -> Reason:
    if situation.waking and situation.ready == 0:
        return Reason.WAKING
    if situation.serve != situation.target or situation.ready == 0:
        return Reason.PROGRESSING
    return Reason.READY if situation.ready >= situation.wanted else Reason.PARTIALLY_READY


def _progress_message(situation: Situation) -> str:
    if situation.serve != situation.target:
        return f"{_counted(situation)}. It serves until revision {situation.target} is ready."
    if situation.waking and situation.ready == 0:
        return f"{_counted(situation)}. The gateway holds requests until one is."
    restarted = f" {situation.restarted.evidence}." if situation.restarted else ""
    return clean(f"{_counted(situation)}.{restarted}", MESSAGE_LIMIT)


def _counted(situation: Situation) -> str:
    if situation.serve is None:
        return "No Service selects a revision"
    return f"{situation.ready} of {situation.wanted} replicas of revision {situation.serve} are ready"


def _explained(situation: Situation) -> str:
    fault = situation.faults[0]
    return clean(
        f"{_counted(situation)}. {fault.evidence.rstrip('.')}. To mend it: {fault.remedy}.", MESSAGE_LIMIT
    )
