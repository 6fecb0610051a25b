"""What the loop asks for and what came of it. Layer: agent, pure.

The one idea: the loop and the world talk in two small vocabularies. A command is stored in the run while it
is carried out, so a process that died knows after its restart what was going on; an event is never stored,
because the run that took it in is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Purpose = Literal["act", "decide", "arguments", "answer"]
"""What a prompt is for: `act` shows the tools to a model that was taught to call them; the other three are
the parts of a scored step (choose the action, write its arguments, write the answer)."""

Budget = Literal["max_steps", "max_tool_calls", "max_tokens", "timeout_seconds", "max_cost"]
"""A hard bound of a run, by its name in RunLimits."""


Outcome = Literal[
    "ok",
    "error",
    "timeout",
    "invalid_arguments",
    "unknown_tool",
    "unavailable",
    "denied",
    "approval_expired",
    "outcome_unknown",
    "not_called",
]
"""What came of a call. `error`: the tool says it failed. `unavailable`: it could not be reached.
`outcome_unknown`: it was sent, and nobody knows whether it happened. `not_called`: the run ended before."""


class _Command(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Draft(_Command):
    """Arguments that were not valid, and why; the model is shown both once."""

    text: str
    error: str


class Plan(_Command):
    """Render the prompt and count its tokens; after `delay` seconds, when the model failed before.
    `candidates` are the actions to choose from (purpose decide), `tool` is the one whose arguments are
    wanted."""

    kind: Literal["plan"] = "plan"
    purpose: Purpose
    candidates: tuple[str, ...] = ()
    tool: str | None = None
    draft: Draft | None = None
    delay: float = 0.0


class Decide(_Command):
    """Score the candidate actions and let the policy choose."""

    kind: Literal["decide"] = "decide"
    candidates: tuple[str, ...]
    seed: int | None = None


class Generate(_Command):
    """Generate at most `max_tokens`; `limited_by` names the budget that made it fewer than usual."""

    kind: Literal["generate"] = "generate"
    purpose: Purpose
    tool: str | None = None
    draft: Draft | None = None
    max_tokens: int
    limited_by: Budget | None = None
    seed: int | None = None


class CallTool(_Command):
    """Call a tool. `approved` is true where a person approved exactly this call."""

    kind: Literal["call_tool"] = "call_tool"
    call_id: str
    name: str
    arguments: str
    approved: bool = False


class AwaitApproval(_Command):
    """Nothing to do until somebody answers or the time (Unix seconds) has come."""

    kind: Literal["await_approval"] = "await_approval"
    call_id: str
    expires: float


class Finish(_Command):
    """The run has ended: keep its conversation, tell everybody."""

    kind: Literal["finish"] = "finish"


Command = Annotated[Plan | Decide | Generate | CallTool | AwaitApproval | Finish, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class Started:
    """Begin."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The prompt has this many tokens; scoring would read `candidate_tokens` more, at most. `room` is how
    many the model's context leaves for an answer, None when that is not bounded."""

    prompt_tokens: int
    candidate_tokens: int = 0
    room: int | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """The policy's choice; `label` None is an abstention. Tokens are those read for it."""

    label: str | None
    reason: str
    probabilities: Mapping[str, float] = field(default_factory=dict)
    confidence: float = 1.0
    entropy: float = 0.0
    seed: int | None = None
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Generated:
    """The model's text; `complete` is false when it was cut at max_tokens."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Observed:
    """A tool call's outcome. See run.Observation for the fields."""

    call_id: str
    text: str
    outcome: Outcome = "ok"
    seconds: float = 0.0
    attempts: int = 1
    cut_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """The model could not be asked, or the prompt does not fit it. `code` is base.ErrorCode or our own."""

    code: str
    message: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """Somebody approved or denied a call."""

    call_id: str
    approve: bool
    by: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Nobody wants the run any more."""

    reason: str = "cancelled by request"


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The run's seconds were used up while a command was carried out."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """Another process goes on from the checkpoint; what was being carried out may or may not have
    happened."""


Event = (
    Started
    | Planned
    | Decided
    | Generated
    | Observed
    | Failed
    | Answered
    | Cancelled
    | TimedOut
    | Tick
    | Resumed
)
