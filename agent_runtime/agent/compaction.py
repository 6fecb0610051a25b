"""Shortens a conversation to what fits. Layer: agent, pure.

The one idea: what must stay together is dropped together. System messages stay; the rest falls into groups
(a user message, an answer, or an answer's tool calls with all their results), and the oldest groups go
until the others fit. One line tells the model how many messages are missing, or, when somebody wrote one, a
summary of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent_runtime.llm.chat import Message


@dataclass(frozen=True, slots=True)
class Compacted:
    """The messages that stay, with the note in the place of those that do not."""

    messages: tuple[Message, ...]
    dropped: tuple[Message, ...] = ()


def compact(
    messages: Sequence[Message],
    fits: Callable[[Sequence[Message]], bool],
    summary: str | None = None,
) -> Compacted:
    """The conversation with as few of its oldest messages dropped as make it fit; pure as far as `fits` is.

    `fits` must stay true when messages are taken away; it is asked about log2(n) times. The newest group is
    never dropped: whoever gets a conversation that does not fit even so must refuse it.
    """
    if fits(messages):
        return Compacted(tuple(messages))
    system = [
        message for message in messages if message.role == "system" and not _NOTE.match(message.content)
    ]
    missing = sum(_missing(message) for message in messages)
    groups = _groups([message for message in messages if message.role != "system"])
    low, high = 1, max(1, len(groups) - 1)
    while low < high:
        middle = (low + high) // 2
        if fits(_without(system, groups, middle, missing, summary).messages):
            high = middle
        else:
            low = middle + 1
    return _without(system, groups, low, missing, summary) if len(groups) > 1 else Compacted(tuple(messages))


def note(count: int, summary: str | None = None) -> str:
    """The line in the place of dropped messages."""
    if summary:
        return f"({count} earlier messages in short: {summary})"
    return f"({count} earlier messages were left out.)" if count > 1 else "(1 earlier message was left out.)"


def _without(
    system: Sequence[Message],
    groups: Sequence[Sequence[Message]],
    number: int,
    missing: int,
    summary: str | None,
) -> Compacted:
    dropped = [message for group in groups[:number] for message in group]
    kept = [message for group in groups[number:] for message in group]
    said = Message("system", note(missing + len(dropped), summary))
    return Compacted((*system, said, *kept), tuple(dropped))


_NOTE = re.compile(r"\((\d+) earlier messages? (?:in short:|was left out|were left out)")


def _missing(message: Message) -> int:
    """How many messages this one stands for; a note of an earlier compaction is replaced, not kept."""
    found = _NOTE.match(message.content) if message.role == "system" else None
    return 0 if found is None else int(found[1])


def _groups(messages: Sequence[Message]) -> list[list[Message]]:
    groups: list[list[Message]] = []
    for message in messages:
        if message.role == "tool" and groups:
            groups[-1].append(message)
        else:
            groups.append([message])
    return groups
