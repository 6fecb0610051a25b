"""From what a caller asks for to a run that may begin. Layer: agent, pure.

The one idea: a request can only tighten what the agent's owner configured: fewer tools, lower limits.
Everything is checked here, before anything is stored or started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent_runtime.agent import errors
from agent_runtime.agent.run import Mode, RunSpec
from agent_runtime.agent.tools.base import Tool
from agent_runtime.contract import AgentConfig, DecisionConfig, Parameters, RunLimits
from agent_runtime.llm.base import Capabilities
from agent_runtime.llm.chat import Message


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the API key's name (None where no keys are configured), the tools it may use (None: all),
    and whether it may see other keys' runs and sessions."""

    name: str | None = None
    tools: frozenset[str] | None = None
    admin: bool = False


ANYBODY = Caller()


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run shall do. `tools` None offers all the caller may use; `limits` are names of RunLimits with
    lower values; `decision` replaces the configured policy. A `background` run belongs to no request: when
    its process dies another one goes on with it."""

    messages: tuple[Message, ...]
    session_id: str | None = None
    tools: tuple[str, ...] | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    decision: DecisionConfig | None = None
    seed: int | None = None
    background: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)


def spec_for(
    request: RunRequest,
    caller: Caller,
    *,
    config: AgentConfig,
    parameters: Parameters,
    capabilities: Capabilities,
    tools: Mapping[str, Tool],
    down: Mapping[str, str],
    approval_seconds: float,
) -> RunSpec:
    """What stays the same through the run. Raises AgentError naming the field that cannot be."""
    limits = tightened(config.limits, request.limits)
    offered = _offered(request, caller, tools, down) if limits.max_tool_calls > 0 else {}
    decision = request.decision or config.decision
    return RunSpec(
        mode=_mode(decision, bool(offered), capabilities),
        tools=tuple(tool.spec for tool in offered.values()),
        limits=limits,
        prices=config.prices,
        decision=decision,
        max_output_tokens=parameters.max_output_tokens,
        approval_seconds=approval_seconds,
        grammar="json_schema" in capabilities.grammar,
        seed=request.seed,
    )


def tightened(configured: RunLimits, asked: Mapping[str, float]) -> RunLimits:
    """The configured limits with lower ones in their place. Raises AgentError for one that is not lower,
    ValueError for one that is none."""
    merged = RunLimits.model_validate(configured.model_dump() | dict(asked))
    for name, value in asked.items():
        bound = getattr(configured, name)
        if bound is not None and value > bound:
            raise errors.limit_not_tightened(name, value, bound)
    return merged


def _offered(
    request: RunRequest, caller: Caller, tools: Mapping[str, Tool], down: Mapping[str, str]
) -> dict[str, Tool]:
    def allowed(name: str) -> bool:
        return caller.tools is None or name in caller.tools

    if request.tools is None:
        return {name: tool for name, tool in tools.items() if allowed(name)}
    for index, name in enumerate(request.tools):
        if name not in tools:
            raise errors.tool_not_found(name, filter(allowed, tools), down, f"tools[{index}]")
        if not allowed(name):
            raise errors.tool_not_allowed(name, f"tools[{index}]")
    return {name: tools[name] for name in dict.fromkeys(request.tools)}


def _mode(decision: DecisionConfig | None, tools: bool, capabilities: Capabilities) -> Mode:
    if decision is not None:
        if not capabilities.score:
            raise errors.decision_unsupported()
        return "scored"
    if capabilities.chat_tools or not tools:
        return "native"
    if not capabilities.score:
        raise errors.tools_unsupported()
    return "scored"
