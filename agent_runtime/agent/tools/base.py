"""What a tool is. Layer: agent, light.

The one idea: how a tool fails is part of what it is. Three exceptions tell the caller what may be done
about it: the tool answered that it failed, the way to it broke after the request may have left, or the
request certainly never left.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_runtime.agent.arguments import check_schema
from agent_runtime.agent.loop import ToolRule
from agent_runtime.agent.run import ANSWER
from agent_runtime.llm.chat import ToolSpec

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What OpenAI's API and chat templates accept as a tool's name."""


class ToolError(Exception):
    """The tool failed; the message is for the model."""


class TransportError(ToolError):
    """The tool could not be reached or did not answer; it may have been reached."""


class NotSentError(TransportError):
    """The request certainly never left, so sending it again is safe."""


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """A tool's answer; `cut_bytes` were left out by the tool itself (0: nothing; -1: an unknown number)."""

    text: str
    is_error: bool = False
    cut_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    """How a tool may be called.

    `timeout_seconds` bounds one attempt. `retries` are further attempts after a transport failure: of any
    kind for an idempotent tool, and only where nothing was sent for another. `require_approval` is a fact
    or a pure function of the arguments. Results longer than `max_result_bytes` of UTF-8 are cut, visibly.
    """

    timeout_seconds: float = 10.0
    retries: int = 1
    require_approval: bool | Callable[[Mapping[str, Any]], bool] = False
    max_result_bytes: int = 16_384
    idempotent: bool = False

    def requires_approval(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a person must approve a call with these arguments."""
        required = self.require_approval
        return bool(required(arguments)) if callable(required) else required


@dataclass(frozen=True, slots=True)
class Tool:
    """Something the agent can call. `parameters` is the JSON schema of an object.

    Raises ValueError when the name or the schema cannot be offered to a model.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    call: Callable[[dict[str, Any]], Awaitable[ToolOutput]] = field(repr=False)
    policy: ToolPolicy = ToolPolicy()

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"tool '{self.name}': a name is 1 to 64 letters, digits, '_' and '-'")
        if self.name == ANSWER:
            raise ValueError(f"tool '{self.name}': this name stands for answering; choose another")
        try:
            check_schema(self.parameters)
        except ValueError as error:
            raise ValueError(f"tool '{self.name}': parameters: {error}") from None

    @property
    def spec(self) -> ToolSpec:
        """What the model is told."""
        return ToolSpec(self.name, self.description, self.parameters)

    @property
    def rule(self) -> ToolRule:
        """What the loop must know."""
        return ToolRule(self.parameters, self.policy.requires_approval, self.policy.idempotent)
