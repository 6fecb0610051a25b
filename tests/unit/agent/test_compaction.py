"""Conversations that no longer fit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.agent.compaction import compact
from agent_runtime.llm.chat import Message, ToolCall

SYSTEM = Message("system", "Be brief.")


def user(text: str) -> Message:
    return Message("user", text)


def said(text: str) -> Message:
    return Message("assistant", text)


def called(call_id: str) -> list[Message]:
    return [
        Message("assistant", "", (ToolCall(call_id, "look", "{}"), ToolCall(f"{call_id}b", "look", "{}"))),
        Message("tool", "one", tool_call_id=call_id, name="look"),
        Message("tool", "two", tool_call_id=f"{call_id}b", name="look"),
    ]


def at_most(count: int):
    return lambda messages: len(messages) <= count


def test_what_fits_stays_as_it_is() -> None:
    messages = [SYSTEM, user("a"), said("b")]

    assert compact(messages, at_most(3)).messages == tuple(messages)


def test_the_oldest_go_and_one_line_says_how_many() -> None:
    messages = [SYSTEM, user("a"), said("b"), user("c"), said("d"), user("e")]

    compacted = compact(messages, at_most(4))

    assert compacted.messages == (
        SYSTEM,
        Message("system", "(3 earlier messages were left out.)"),
        *messages[-2:],
    )
    assert compacted.dropped == (user("a"), said("b"), user("c"))


def test_a_call_is_never_split_from_its_results() -> None:
    messages = [user("a"), *called("c0"), said("b"), user("c")]

    compacted = compact(messages, at_most(5))

    assert compacted.messages == (
        Message("system", "(4 earlier messages were left out.)"),
        said("b"),
        user("c"),
    )


def test_a_second_compaction_replaces_the_note_of_the_first() -> None:
    once = compact([SYSTEM, user("a"), said("b"), user("c")], at_most(3)).messages

    twice = compact([*once, said("d"), user("e")], at_most(4))

    assert twice.messages == (
        SYSTEM,
        Message("system", "(3 earlier messages were left out.)"),
        said("d"),
        user("e"),
    )


def test_a_summary_takes_the_place_of_the_note() -> None:
    compacted = compact([user("a"), said("b"), user("c")], at_most(2), summary="a was asked")

    assert compacted.messages[0] == Message("system", "(2 earlier messages in short: a was asked)")


groups = st.one_of(
    st.just([user("q")]), st.just([said("a")]), st.integers(0, 99).map(lambda number: called(f"c{number}"))
)


@given(st.booleans(), st.lists(groups, min_size=1, max_size=12), st.integers(1, 40))
def test_whatever_is_dropped_the_rest_can_be_gone_on_with(system, found, bound) -> None:
    """System messages and the newest group stay, order stays, every result follows its call, and no more is
    dropped than had to be."""
    messages = ([SYSTEM] if system else []) + [message for group in found for message in group]

    compacted = compact(messages, at_most(bound))

    kept = [message for message in compacted.messages if message.role != "system"]
    assert kept == [message for message in messages if message.role != "system"][-len(kept) :]
    assert kept[-len(found[-1]) :] == found[-1]
    asked = {call.id for message in kept for call in message.tool_calls}
    assert {message.tool_call_id for message in kept if message.role == "tool"} <= asked
    assert (SYSTEM in compacted.messages) == system
    if len(compacted.messages) > bound and len(found) > 1:
        assert kept == found[-1]  # nothing more could go
    if compacted.dropped:
        assert len(compacted.dropped) + len(kept) + system == len(messages)
