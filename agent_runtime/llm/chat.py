"""Renders a conversation for a model without a chat template. Layer: llm, pure.

The one idea: T5 was never taught roles, so a single question must reach it unchanged; only what a
conversation really adds is added. The rendering:

- system messages come first, in order, each followed by a newline;
- a single user message is its content and nothing else;
- a longer conversation is one line per message, `User: ...` or `Assistant: ...`, and ends with `Assistant:`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_LABELS = {"user": "User", "assistant": "Assistant"}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


def with_system_prompt(messages: Sequence[Message], system_prompt: str | None) -> tuple[Message, ...]:
    """The conversation with the agent's own system prompt before everything else."""
    if not system_prompt:
        return tuple(messages)
    return (Message("system", system_prompt), *messages)


def render_plain(messages: Sequence[Message]) -> str:
    """The prompt text of a conversation, by the rules above."""
    system = "".join(f"{message.content}\n" for message in messages if message.role == "system")
    turns = [message for message in messages if message.role != "system"]
    if len(turns) == 1 and turns[0].role == "user":
        return system + turns[0].content
    lines = [f"{_LABELS[turn.role]}: {turn.content}" for turn in turns]
    return system + "\n".join([*lines, "Assistant:"])
