"""What one condition says. Layer: core, pure; imports api."""

from __future__ import annotations

from dataclasses import dataclass

from agent_operator.api import ConditionStatus, Reason


@dataclass(frozen=True, slots=True)
class Verdict:
    """Status, reason and message of one condition."""

    status: ConditionStatus
    reason: str
    message: str


FIXED = Verdict(ConditionStatus.FALSE, Reason.FIXED_REPLICAS, "spec.replicas decides.")
"""ScalingActive where nothing scales."""
