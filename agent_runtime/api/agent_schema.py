"""What a request to the agent may hold. Layer: api, pure: pydantic and the contract.

The one idea: as in `schema`, a field is honoured or refused by name. Limits are checked here for their
shape and by the agent for being lower than its own.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from agent_runtime.agent.request import RunRequest
from agent_runtime.api.schema import MAX_TOOLS, NAME, Body, ChatMessage
from agent_runtime.contract import DecisionConfig
from agent_runtime.llm.chat import Message

MAX_MESSAGES = 1000
MAX_METADATA = 16
SESSION = r"^[A-Za-z0-9._:-]{1,128}$"

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Limits(Body):
    """Lower limits than the agent's own; see contract.RunLimits."""

    max_steps: int | None = Field(default=None, ge=1, le=1000)
    max_tool_calls: int | None = Field(default=None, ge=0, le=10_000)
    max_tokens: int | None = Field(default=None, ge=1)
    timeout_seconds: float | None = Field(default=None, gt=0, le=86_400, allow_inf_nan=False)
    max_cost: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class Decision(Body):
    """Another policy than the agent's own; see contract.DecisionConfig."""

    policy: Literal["Greedy", "Softmax", "ExpectedUtility", "CVaR"]
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    risk_aversion: Share = 0.0
    abstain_below: Share = 0.0


class RunBody(Body):
    """Body of POST /v1/agent/runs.

    `input` is short for one user message. `tools` names those that may be used, all when absent, none when
    empty. `background` answers at once and lets the run go on without the caller; otherwise the run is
    cancelled when the caller leaves.
    """

    model: str | None = None
    input: str | None = Field(default=None, min_length=1)
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None
    session_id: str | None = Field(default=None, pattern=SESSION)
    tools: Annotated[list[Annotated[str, Field(pattern=NAME)]], Field(max_length=MAX_TOOLS)] | None = None
    limits: Limits | None = None
    decision: Decision | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stream: bool | None = None
    background: bool | None = None
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
            Field(max_length=MAX_METADATA),
        ]
        | None
    ) = None
    user: str | None = None

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.input is None) == (self.messages is None):
            raise PydanticCustomError("input", "give exactly one of 'input' and 'messages'")
        return self

    def request(self) -> RunRequest:
        """The request as the agent takes it."""
        said = (Message("user", self.input),) if self.input is not None else ()
        return RunRequest(
            messages=said or tuple(message.message() for message in self.messages or ()),
            session_id=self.session_id,
            tools=None if self.tools is None else tuple(self.tools),
            limits={} if self.limits is None else self.limits.model_dump(exclude_none=True),
            decision=None if self.decision is None else DecisionConfig(**self.decision.model_dump()),
            seed=self.seed,
            background=bool(self.background),
            metadata=self.metadata or {},
        )


class ApprovalBody(Body):
    """Body of POST /v1/agent/runs/{id}/approve: the call as it is, or not; its arguments cannot be
    changed."""

    call_id: str = Field(min_length=1, max_length=256)
    approve: bool
    reason: str | None = Field(default=None, max_length=1000)
