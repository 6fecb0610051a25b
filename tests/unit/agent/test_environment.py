"""One call under its policy: arguments, approval, time limit, retries, size."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_runtime.agent.commands import CallTool
from agent_runtime.agent.environment import Environment, cut_to
from agent_runtime.agent.tools import NotSentError, Tool, ToolError, ToolOutput, ToolPolicy, TransportError

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}


class Scripted:
    """A tool whose calls end as written: a text, an output, an exception, or None for never."""

    def __init__(self, *script: Any, **policy: Any) -> None:
        self.script, self.called = list(script), []
        self.tool = Tool("tool", "Does it.", SCHEMA, self.call, ToolPolicy(**policy))

    async def call(self, arguments: dict[str, Any]) -> ToolOutput:
        self.called.append(arguments)
        outcome = self.script[min(len(self.called), len(self.script)) - 1]
        if outcome is None:
            await asyncio.Event().wait()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome if isinstance(outcome, ToolOutput) else ToolOutput(outcome)


class Counts:
    """Remembers what the metrics would count."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def tool_started(self, tool: str) -> None:
        self.calls.append((tool, "started"))

    def tool_finished(self, tool: str, outcome: str, seconds: float, attempts: int) -> None:
        assert seconds >= 0
        self.calls.append((tool, outcome))


async def execute(
    scripted: Scripted, arguments: str = '{"x": 1}', name: str = "tool", approved: bool = False
):
    environment = Environment({"tool": scripted.tool})
    return await environment.execute(CallTool(call_id="c", name=name, arguments=arguments, approved=approved))


async def test_a_call_gives_its_result() -> None:
    scripted = Scripted("42")

    observed = await execute(scripted)

    assert (observed.text, observed.outcome, observed.attempts) == ("42", "ok", 1)
    assert scripted.called == [{"x": 1}]


@pytest.mark.parametrize(
    ("arguments", "name", "outcome"),
    [
        ('{"x": "a"}', "tool", "invalid_arguments"),
        ("{", "tool", "invalid_arguments"),
        ("{}", "other", "unknown_tool"),
    ],
)
async def test_what_cannot_work_is_not_tried(arguments: str, name: str, outcome: str) -> None:
    scripted = Scripted("42")

    observed = await execute(scripted, arguments, name)

    assert (observed.outcome, observed.attempts, scripted.called) == (outcome, 0, [])


def raising(arguments: Any) -> bool:
    raise RuntimeError("not foreseen")


@pytest.mark.parametrize("rule", [True, lambda arguments: arguments["x"] == 1, raising])
async def test_no_path_leads_to_a_tool_that_needs_approval_without_one(rule) -> None:
    scripted = Scripted("42", require_approval=rule)

    refused = await execute(scripted)
    assert (refused.outcome, scripted.called) == ("denied", [])

    assert (await execute(scripted, approved=True)).outcome == "ok"


async def test_a_tool_that_says_it_failed_is_not_tried_again() -> None:
    scripted = Scripted(ToolError("no such city"), idempotent=True, retries=3)

    observed = await execute(scripted)

    assert (observed.text, observed.outcome, observed.attempts) == ("no such city", "error", 1)


async def test_a_tools_defect_does_not_show_its_insides() -> None:
    observed = await execute(Scripted(KeyError("/etc/secret")))

    assert (observed.text, observed.outcome) == ("The tool failed (KeyError).", "error")


@pytest.mark.parametrize(
    ("failure", "idempotent", "attempts"),
    [
        (NotSentError("down"), False, 3),
        (NotSentError("down"), True, 3),
        (TransportError("broke"), False, 1),
        (TransportError("broke"), True, 3),
        (None, False, 1),
        (None, True, 3),
    ],
)
async def test_a_call_is_repeated_only_where_that_can_do_no_harm(failure, idempotent, attempts) -> None:
    scripted = Scripted(failure, idempotent=idempotent, retries=2, timeout_seconds=0.02)

    observed = await execute(scripted)

    assert (observed.attempts, len(scripted.called)) == (attempts, attempts)
    assert observed.outcome == ("timeout" if failure is None else "unavailable")


async def test_a_repeated_call_may_succeed() -> None:
    observed = await execute(Scripted(NotSentError("down"), "42", retries=1))

    assert (observed.text, observed.outcome, observed.attempts) == ("42", "ok", 2)


async def test_a_long_result_is_cut_and_says_by_how_much() -> None:
    observed = await execute(Scripted("x" * 1000, max_result_bytes=100))

    assert observed.text == "x" * 100 + "\n[cut: 900 more bytes]"
    assert observed.cut_bytes == 900


def test_a_result_is_cut_between_characters() -> None:
    assert cut_to("é" * 10, 5) == ("éé\n[cut: 16 more bytes]", 16)


def test_a_result_that_its_source_cut_already_says_so_too() -> None:
    assert cut_to("abc", 100, already=50) == ("abc\n[cut: 50 more bytes]", 50)
    assert cut_to("abc", 100, already=-1)[0] == "abc\n[cut: the rest is not shown]"


def test_half_a_surrogate_pair_does_not_reach_the_conversation() -> None:
    assert cut_to("a\ud800b", 100) == ("a?b", 0)


async def test_every_call_is_counted_once_even_a_cancelled_one() -> None:
    counts, waits = Counts(), []
    scripted = Scripted(None)
    environment = Environment({"tool": scripted.tool}, counts, waits.append)
    task = asyncio.create_task(environment.execute(CallTool(call_id="c", name="tool", arguments="{}")))
    while not scripted.called:
        await asyncio.sleep(0)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert counts.calls == [("tool", "started"), ("tool", "outcome_unknown")]
    assert waits == [1, -1]
