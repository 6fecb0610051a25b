"""A run as data. Layer: agent, pure.

The one idea: the run is its own checkpoint. It holds everything the loop looks at (what was asked, what it
may use, what happened, what is being carried out), so its JSON is enough to go on in another process, and
its steps are enough to tell anybody what happened.

Status: queued -> running <-> awaiting_approval -> completed | failed | cancelled | exhausted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent_runtime.agent.approval import Approval
from agent_runtime.agent.commands import Budget, Command, Outcome
from agent_runtime.contract import DecisionConfig, Prices, RunLimits
from agent_runtime.llm.chat import Message, ToolSpec

Status = Literal["queued", "running", "awaiting_approval", "completed", "failed", "cancelled", "exhausted"]
ENDED: frozenset[Status] = frozenset({"completed", "failed", "cancelled", "exhausted"})

Mode = Literal["native", "scored"]
"""How an action is chosen: by the model's own tool calls, or from the exact P(action | context)."""

FinishReason = Literal["answer", "length", "abstained", "error", "loop_detected", "cancelled"] | Budget
"""Why a run ended. `length`: the answer was cut at the limit of one generation. `abstained`: the policy
found no action probable enough. A budget's name: it was used up."""

ANSWER = "answer"
"""The candidate action that is not a tool; no tool may have this name."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunSpec(_Frozen):
    """What stays the same through a run. `max_output_tokens` bounds one generation; `approval_seconds` is
    how long a call waits for a person; `grammar` says that arguments are generated under the tool's
    schema."""

    mode: Mode
    tools: tuple[ToolSpec, ...] = ()
    limits: RunLimits = RunLimits()
    prices: Prices = Prices()
    decision: DecisionConfig | None = None
    max_output_tokens: int = Field(default=512, ge=1)
    approval_seconds: float = Field(default=3600.0, gt=0)
    grammar: bool = False
    seed: int | None = None

    def tool(self, name: str) -> ToolSpec | None:
        """The offered tool of this name."""
        return next((tool for tool in self.tools if tool.name == name), None)


class Use(_Frozen):
    """What a run has used. Seconds are those it was running, not those it waited for an approval."""

    steps: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Read and generated."""
        return self.input_tokens + self.output_tokens

    def cost(self, prices: Prices) -> float:
        """In the prices' currency; computed from the counts, so nothing accumulates rounding."""
        return (
            self.input_tokens * prices.per_million_input_tokens / 1e6
            + self.output_tokens * prices.per_million_output_tokens / 1e6
            + self.tool_calls * prices.per_tool_call
        )


class StepDecision(_Frozen):
    """How the step's action was chosen; entropy in nats. `label` None is an abstention."""

    label: str | None
    reason: str
    probabilities: dict[str, float]
    confidence: float
    entropy: float
    seed: int | None = None


class Observation(_Frozen):
    """What a call gave. `cut_bytes` of the result were left out; `attempts` counts how often it was sent."""

    text: str
    outcome: Outcome
    seconds: float = 0.0
    attempts: int = 1
    cut_bytes: int = 0

    @property
    def ok(self) -> bool:
        """The tool did what it was asked."""
        return self.outcome == "ok"


class Call(_Frozen):
    """One tool call of a step. `started` is when it was sent, in Unix seconds."""

    id: str
    name: str
    arguments: str
    approval: Approval | None = None
    started: float | None = None
    observation: Observation | None = None


class Step(_Frozen):
    """One round of plan, decide, act, observe. `prompt_tokens` is the longest prompt the model was shown in
    it; input and output tokens are all that was read and generated; `text` is what the model said."""

    index: int
    started: float
    prompt_tokens: int = 0
    decision: StepDecision | None = None
    text: str = ""
    calls: tuple[Call, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0


class RunError(_Frozen):
    """Why a run failed, in words a caller can act on."""

    code: str
    message: str


class Run(_Frozen):
    """One run. The first `given` messages were there before it (system prompt, session); the others are its
    own and go to the session when it ends. `pending` is what is being carried out, `failures` counts how
    often the model failed at it. A `background` run belongs to no request, so it outlives its process.
    `version` grows by one with every change, and `writer` names the process that saved it. Times are Unix
    seconds."""

    id: str
    created: float
    updated: float
    spec: RunSpec
    conversation: tuple[Message, ...]
    given: int
    owner: str | None = None
    session_id: str | None = None
    background: bool = False
    metadata: dict[str, str] = Field(default_factory=dict)
    status: Status = "queued"
    steps: tuple[Step, ...] = ()
    use: Use = Use()
    pending: Command | None = None
    failures: int = 0
    warned: bool = False
    finish_reason: FinishReason | None = None
    result: str | None = None
    error: RunError | None = None
    version: int = 0
    writer: str | None = None

    @property
    def ended(self) -> bool:
        """Nothing happens any more."""
        return self.status in ENDED

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call so far, in order."""
        return tuple(call for step in self.steps for call in step.calls)

    @property
    def awaited(self) -> Call | None:
        """The call that waits for a person."""
        return next((c for c in self.calls if c.approval is not None and c.approval.pending), None)

    @property
    def cost(self) -> float:
        """So far, in the prices' currency."""
        return self.use.cost(self.spec.prices)

    def changed(self, **update: Any) -> Run:
        """A copy with these fields."""
        return self.model_copy(update=update)

    def with_step(self, **update: Any) -> Run:
        """A copy whose last step has these fields."""
        return self.changed(steps=(*self.steps[:-1], self.steps[-1].model_copy(update=update)))

    def with_call(self, call_id: str, **update: Any) -> Run:
        """A copy in whose last step this call has these fields."""
        calls = tuple(
            call.model_copy(update=update) if call.id == call_id else call for call in self.steps[-1].calls
        )
        return self.with_step(calls=calls)


def new_run(
    run_id: str,
    spec: RunSpec,
    conversation: Sequence[Message],
    now: float,
    *,
    owner: str | None = None,
    session_id: str | None = None,
    metadata: Mapping[str, str] | None = None,
    background: bool = False,
    given: int = 0,
) -> Run:
    """A queued run; the first `given` messages of the conversation are not its own."""
    return Run(
        id=run_id,
        created=now,
        updated=now,
        spec=spec,
        conversation=tuple(conversation),
        given=given,
        owner=owner,
        session_id=session_id,
        background=background,
        metadata=dict(metadata or {}),
    )


def best_answer(run: Run) -> str | None:
    """What an unfinished run can still offer: its newest words, else its newest successful result."""
    texts = [step.text for step in run.steps if step.text.strip()]
    if texts:
        return texts[-1]
    results = [c.observation.text for c in run.calls if c.observation is not None and c.observation.ok]
    return results[-1] if results else None
