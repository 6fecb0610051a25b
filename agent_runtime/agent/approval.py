"""Approvals: a person decides whether one call is made. Layer: agent, pure.

The one idea: that a call needs approval is decided by code (a tool's policy, on the call's own arguments),
never by the model; silence is a no, because an approval expires and then counts as denied.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal["pending", "approved", "denied", "expired"]


class Approval(BaseModel):
    """One question and its answer. Times are Unix seconds; `by` names the caller's API key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requested: float
    expires: float
    verdict: Verdict = "pending"
    by: str | None = None
    reason: str | None = None
    decided: float | None = None

    @property
    def pending(self) -> bool:
        """Nobody has answered yet."""
        return self.verdict == "pending"


def requested(now: float, seconds: float) -> Approval:
    """A question asked now that may be answered for this many seconds."""
    return Approval(requested=now, expires=now + seconds)


def resolved(approval: Approval, approve: bool, by: str | None, reason: str | None, now: float) -> Approval:
    """The question after somebody answered; too late is `expired`, and what was answered stays."""
    if not approval.pending:
        return approval
    if now >= approval.expires:
        return expired(approval, now)
    verdict: Verdict = "approved" if approve else "denied"
    return approval.model_copy(update={"verdict": verdict, "by": by, "reason": reason, "decided": now})


def expired(approval: Approval, now: float) -> Approval:
    """The question after nobody answered in time."""
    return approval.model_copy(update={"verdict": "expired", "decided": now})


def denial(approval: Approval) -> str:
    """What the model is told of a call that was not approved."""
    if approval.verdict == "expired":
        return "The call was not made: nobody approved it in time."
    because = f" Reason: {approval.reason}" if approval.reason else ""
    return f"The call was not made: it was denied.{because}"
