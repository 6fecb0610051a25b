"""Conversations, tools, and the plain rendering for a model without a chat template. Layer: llm, pure.

The one idea: T5 was never taught roles, so a single question must reach it unchanged; only what a
conversation really adds is added. The rendering:

- system messages come first, in order, each followed by a newline;
- tools, when there are any, come next, one JSON line each under a heading;
- a single user message is its content and nothing else;
- a longer conversation is one line per message, `User: ...`, `Assistant: ...` or `Tool NAME: ...`, and ends
  with `Assistant:`; a call is `Assistant: {"name": ..., "arguments": ...}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool the model wants called. `arguments` is JSON text, as in OpenAI's API."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `tool_call_id` and `name` tell which call a tool message answers."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What a model is told about a tool. `parameters` is a JSON schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})

    def openai(self) -> dict[str, Any]:
        """The tool as OpenAI's API and chat templates write it."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": dict(self.parameters),
            },
        }


def with_system_prompt(messages: Sequence[Message], system_prompt: str | None) -> tuple[Message, ...]:
    """The conversation with the agent's own system prompt before everything else."""
    if not system_prompt:
        return tuple(messages)
    return (Message("system", system_prompt), *messages)


def render_plain(messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> str:
    """The prompt text of a conversation, by the rules above."""
    system = "".join(f"{message.content}\n" for message in messages if message.role == "system")
    if tools:
        lines = "".join(f"{_compact(tool.openai()['function'])}\n" for tool in tools)
        system += f"Tools:\n{lines}"
    turns = [message for message in messages if message.role != "system"]
    if len(turns) == 1 and turns[0].role == "user":
        return system + turns[0].content
    return system + "\n".join([*(_line(turn) for turn in turns), "Assistant:"])


def template_message(message: Message) -> dict[str, Any]:
    """The message as Jinja chat templates expect it: arguments as an object, not as text."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {"id": call.id, "type": "function",
             "function": {"name": call.name, "arguments": _arguments(call.arguments)}}
            for call in message.tool_calls
        ]  # fmt: skip
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        turn["name"] = message.name
    return turn


def _line(turn: Message) -> str:
    if turn.role == "user":
        return f"User: {turn.content}"
    if turn.role == "tool":
        return f"Tool {turn.name}: {turn.content}" if turn.name else f"Tool: {turn.content}"
    calls = [
        _compact({"name": call.name, "arguments": _arguments(call.arguments)}) for call in turn.tool_calls
    ]
    return "Assistant: " + "\n".join(filter(None, [turn.content, *calls]))


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
