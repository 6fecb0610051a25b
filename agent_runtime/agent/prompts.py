"""The prompts of a run. Layer: agent, pure.

The one idea: a scored run shows its conversation as short regular lines without braces or markup, because
T5's vocabulary has none and a small model learns a form only when it never varies. The renderings below are
a contract: models are trained on exactly these lines. System messages stay what they are and are not shown
here.

Which action (the candidates follow `Action:`):

    User: What is the capital of France?
    Action: capital (country: France)
    Result: Paris
    Actions: capital - Capital of a country. | answer - Answer the user.
    Action:

Its arguments, and once more after a mistake:

    User: What is the capital of France?
    Tool: capital - Capital of a country.
    Parameters: country (string) - A country's name.
    Arguments: Paris, France
    Error: 'Paris, France' is not a country
    Arguments:

expecting `country: France`, several parameters separated by `; `. Where the backend guarantees a grammar,
the third line is `Schema:` with the tool's JSON schema, and JSON is generated under it.

The answer: the conversation as it is while no tool was called, so a single question reaches the model
unchanged (see llm.chat); after tool calls the lines of the first form up to the last result, and `Answer:`.

A native run shows the conversation and the tools and leaves the rendering to the model's own template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agent_runtime.agent.arguments import parameters
from agent_runtime.agent.commands import Draft, Plan
from agent_runtime.agent.run import ANSWER, RunSpec
from agent_runtime.llm.base import Chat, Prompt
from agent_runtime.llm.chat import Message, ToolSpec

ANSWER_DESCRIPTION = "Answer the user."
LONGEST_DESCRIPTION = 200


def prompt(plan: Plan, messages: Sequence[Message], spec: RunSpec) -> Prompt:
    """What the model is shown for this plan, given the conversation."""
    tool = spec.tool(plan.tool or "")
    match plan.purpose:
        case "act":
            return Chat(tuple(messages), spec.tools)
        case "decide":
            return _shown(messages, decision_lines(plan.candidates, spec.tools))
        case "arguments" if tool is not None:
            return _shown(messages, argument_lines(tool, plan.draft, spec.grammar))
    if any(message.role == "tool" or message.tool_calls for message in messages):
        return _shown(messages, ["Answer:"])
    return Chat(tuple(messages))


def decision_lines(candidates: Sequence[str], tools: Sequence[ToolSpec]) -> list[str]:
    """The question which action comes next."""
    described = {tool.name: tool.description for tool in tools} | {ANSWER: ANSWER_DESCRIPTION}
    actions = " | ".join(f"{name} - {_one_line(described[name])}" for name in candidates)
    return [f"Actions: {actions}", "Action:"]


def argument_lines(tool: ToolSpec, draft: Draft | None, grammar: bool) -> list[str]:
    """The question what to call the tool with."""
    lines = [f"Tool: {tool.name} - {_one_line(tool.description)}"]
    if grammar:
        lines.append(f"Schema: {json.dumps(dict(tool.parameters), ensure_ascii=False)}")
    else:
        lines.append(f"Parameters: {' | '.join(_parameters(tool.parameters))}")
    if draft is not None:
        lines += [f"Arguments: {_one_line(draft.text)}", f"Error: {_one_line(draft.error)}"]
    return [*lines, "Arguments:"]


def transcript(messages: Sequence[Message]) -> list[str]:
    """The conversation as lines, without its system messages."""
    lines: list[str] = []
    for message in messages:
        if message.role == "user":
            lines.append(f"User: {message.content}")
        elif message.role == "tool":
            lines.append(f"Result: {message.content}")
        elif message.role == "assistant":
            if message.content:
                lines.append(f"Assistant: {message.content}")
            lines += [f"Action: {call.name} ({_pairs(call.arguments)})" for call in message.tool_calls]
    return lines


def _shown(messages: Sequence[Message], question: Sequence[str]) -> Chat:
    """One user message, so a chat template adds its markers and a model without one reads the lines
    alone."""
    system = tuple(message for message in messages if message.role == "system")
    return Chat((*system, Message("user", "\n".join([*transcript(messages), *question]))))


def _parameters(schema: Mapping[str, Any]) -> list[str]:
    required = schema.get("required", ())
    shown = []
    for name, part in parameters(schema).items():
        kind = " or ".join(map(str, part["enum"])) if "enum" in part else part.get("type", "any")
        if isinstance(kind, list):
            kind = " or ".join(kind)
        optional = "" if name in required else ", optional"
        description = f" - {_one_line(part['description'])}" if part.get("description") else ""
        shown.append(f"{name} ({kind}{optional}){description}")
    return shown


def _pairs(arguments: str) -> str:
    """Arguments as they are asked for: `name: value; name: value`."""
    try:
        values = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    if not isinstance(values, dict):
        return arguments
    return "; ".join(
        f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in values.items()
    )


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_DESCRIPTION else f"{line[: LONGEST_DESCRIPTION - 3]}..."
