"""What decisions, runs, sessions and tokens look like, for /openapi.json. Layer: api, pure: pydantic only.

The one idea: as in `openapi_objects`, shapes that are built elsewhere, written down closed.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from agent_runtime.agent.approval import Verdict
from agent_runtime.agent.run import FinishReason, Observation, RunError, Status, StepDecision
from agent_runtime.api.openapi_objects import Shape, ToolCallObject


class DecisionChoice(Shape):
    """The action taken; `text` is null for an action of a matrix of utilities."""

    index: int
    label: str
    text: str | None


class DecisionCandidate(Shape):
    """A candidate and how probable the model finds it; a logprob is null where the probability is 0."""

    label: str
    text: str
    probability: float
    logprob: float | None
    mean_logprob: float | None
    tokens: int
    baseline_logprob: float | None = None


class DecisionUsage(Shape):
    """Token counts of the prompts, the scored candidates and the sampled answers."""

    prompt_tokens: int
    candidate_tokens: int
    completion_tokens: int
    total_tokens: int


class DecisionObject(Shape):
    """Answer of POST /v1/decide. Entropy is in nats; `arithmetic` is how the policy came to its choice."""

    id: str
    object: Literal["decision"]
    created: int
    model: str
    choice: DecisionChoice | None
    label: str | None
    confidence: float
    abstained: bool
    reason: str
    probabilities: dict[str, float]
    candidates: list[DecisionCandidate]
    entropy: float
    normalized_entropy: float
    margin: float
    candidate_mass: float | None
    normalization: str
    policy: dict[str, Any]
    arithmetic: dict[str, Any]
    seed: int | None
    usage: DecisionUsage
    unfinished_samples: int = 0


class TokensObject(Shape):
    """Answer of POST /tokenize; `max_model_len` is in tokens."""

    count: int
    max_model_len: int
    tokens: list[int]


class TextObject(Shape):
    """Answer of POST /detokenize."""

    prompt: str


class RunPlan(Shape):
    """What the model was shown."""

    prompt_tokens: int


class RunApproval(Shape):
    """Who decided what about a call, and why."""

    verdict: Verdict
    by: str | None
    reason: str | None


class RunCall(Shape):
    """A tool call and what came of it; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str
    approval: RunApproval | None
    observation: Observation | None


class StepUsage(Shape):
    """Tokens of one step."""

    input_tokens: int
    output_tokens: int


class RunStep(Shape):
    """One round of plan, decide, act, observe."""

    index: int
    plan: RunPlan
    decision: StepDecision | None
    message: str | None
    tool_calls: list[RunCall]
    usage: StepUsage
    seconds: float


class RequiredAction(Shape):
    """The call that waits for a person."""

    type: Literal["approve_tool_call"]
    call_id: str
    name: str
    arguments: str
    expires_at: int | None


class RunUsage(Shape):
    """What the run has used; `cost` is in the currency of the agent's prices."""

    steps: int
    tool_calls: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    seconds: float
    cost: float


class RunObject(Shape):
    """An agent run. `output` is its answer, or the best there is when it did not complete."""

    id: str
    object: Literal["agent.run"]
    created_at: int
    updated_at: int
    model: str
    status: Status
    finish_reason: FinishReason | None
    output: str | None
    error: RunError | None
    required_action: RequiredAction | None
    session_id: str | None
    metadata: dict[str, str]
    steps: list[RunStep]
    usage: RunUsage


class SessionMessage(Shape):
    """One message of a session."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: list[ToolCallObject] = Field(default_factory=list)
    tool_call_id: str = ""
    name: str | None = None


class SessionObject(Shape):
    """The conversation that runs have in common."""

    id: str
    object: Literal["agent.session"]
    created_at: int
    updated_at: int
    messages: list[SessionMessage]
