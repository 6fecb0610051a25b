"""The environment interaction module: makes one tool call under its policy. Layer: agent.

The one idea: whatever happens out there, the outcome is an observation; only the caller's own cancellation
comes through. The order is fixed: the arguments are checked against the tool's schema, then approval, then
the call with its time limit, then (where sending again cannot do harm) a retry with jitter, then the cut of
the result.

The loop has checked arguments and approval already. They are checked here again, because this is where the
call is made: no path leads to a tool that needs approval without one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from agent_runtime.agent.arguments import ArgumentsError, parse_json, validate
from agent_runtime.agent.commands import CallTool, Observed
from agent_runtime.agent.loop import Rules
from agent_runtime.agent.observer import NoObserver, ToolObserver
from agent_runtime.agent.tools.base import NotSentError, Tool, ToolError, ToolOutput, TransportError
from agent_runtime.observability import tracing

log = logging.getLogger("agent_runtime.agent")

LONGEST_BACKOFF_SECONDS = 5.0


class Environment:
    """The tools of one run. `waits` is told +1 and -1 as calls begin and end."""

    def __init__(
        self,
        tools: Mapping[str, Tool],
        observer: ToolObserver | None = None,
        waits: Callable[[int], None] = lambda change: None,
    ) -> None:
        self._tools = dict(tools)
        self._observer = observer or NoObserver()
        self._waits = waits

    @property
    def rules(self) -> Rules:
        """What the loop must know of the tools."""
        return {name: tool.rule for name, tool in self._tools.items()}

    async def execute(self, call: CallTool) -> Observed:
        """Makes the call. Never raises but CancelledError."""
        started = time.monotonic()
        observed = Observed(call.call_id, "The call was cancelled.", "outcome_unknown")
        self._waits(1)
        self._observer.tool_started(call.name)
        try:
            with tracing.execute_tool(call.name, call.call_id) as span:
                observed = await self._execute(call)
                if observed.outcome != "ok":
                    span.fail(observed.outcome)
        finally:
            seconds = time.monotonic() - started
            self._waits(-1)
            self._observer.tool_finished(call.name, observed.outcome, seconds, observed.attempts)
        return replace(observed, seconds=seconds)

    async def _execute(self, call: CallTool) -> Observed:
        tool = self._tools.get(call.name)
        if tool is None:
            return Observed(call.call_id, f"There is no tool '{call.name}'.", "unknown_tool", attempts=0)
        try:
            arguments = parse_json(call.arguments)
            validate(tool.parameters, arguments)
        except ArgumentsError as error:
            return Observed(call.call_id, f"The call was not made: {error}.", "invalid_arguments", attempts=0)
        if not call.approved and _needs_approval(tool, arguments):
            return Observed(call.call_id, "The call was not made: nobody approved it.", "denied", attempts=0)
        return await _attempts(tool, call.call_id, arguments)


def _needs_approval(tool: Tool, arguments: Mapping[str, object]) -> bool:
    try:
        return tool.policy.requires_approval(arguments)
    except Exception:
        log.exception("the approval rule of tool %s failed; the call is not made", tool.name)
        return True


async def _attempts(tool: Tool, call_id: str, arguments: dict[str, object]) -> Observed:
    """The call, as often as its policy allows and it may help."""
    retrying = AsyncRetrying(
        stop=stop_after_attempt(tool.policy.retries + 1),
        wait=wait_random_exponential(multiplier=0.2, max=LONGEST_BACKOFF_SECONDS),
        retry=retry_if_exception(lambda error: _worth_retrying(tool, error)),
        reraise=True,
    )
    attempts = 0
    try:
        async for attempt in retrying:
            with attempt:
                attempts += 1
                output = await _once(tool, dict(arguments))
    except TimeoutError:
        text = f"The tool did not answer within {tool.policy.timeout_seconds:g} s; it may have taken effect."
        return Observed(call_id, text, "timeout", attempts=attempts)
    except TransportError as error:
        return Observed(call_id, str(error), "unavailable", attempts=attempts)
    except ToolError as error:
        output = ToolOutput(str(error) or "The tool failed.", is_error=True)
    except Exception as error:  # a tool's defect is its own, not the run's
        log.exception("tool %s raised", tool.name)
        output = ToolOutput(f"The tool failed ({type(error).__name__}).", is_error=True)
    text, cut = cut_to(output.text, tool.policy.max_result_bytes, output.cut_bytes)
    return Observed(call_id, text, "error" if output.is_error else "ok", attempts=attempts, cut_bytes=cut)


async def _once(tool: Tool, arguments: dict[str, object]) -> ToolOutput:
    async with asyncio.timeout(tool.policy.timeout_seconds):
        return await tool.call(arguments)


def _worth_retrying(tool: Tool, error: BaseException) -> bool:
    if isinstance(error, NotSentError):
        return True
    return tool.policy.idempotent and isinstance(error, TransportError | TimeoutError)


def cut_to(text: str, limit: int, already: int = 0) -> tuple[str, int]:
    """The text in at most `limit` bytes of UTF-8 plus a note of how many bytes are missing, and that number.
    Half surrogate pairs, which no UTF-8 has, become question marks.

    `already` were left out before; -1 stands for an unknown number.
    """
    raw = text.encode("utf-8", "replace")
    if len(raw) <= limit and already == 0:
        return raw.decode(), 0
    kept = raw[:limit].decode("utf-8", "ignore")
    if already < 0:
        return f"{kept}\n[cut: the rest is not shown]", max(1, len(raw) - limit)
    cut = len(raw) - len(kept.encode()) + already
    return f"{kept}\n[cut: {cut} more bytes]", cut
