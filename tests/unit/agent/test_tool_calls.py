"""Tool calls in a model's text: every form, believed only when it is certain."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.llm.chat import ToolSpec
from agent_runtime.llm.tool_calls import ToolCallStream, parse_tool_calls

TOOLS = (ToolSpec("weather", "Weather."), ToolSpec("add", "Adds."))


def parse(text: str, tools=TOOLS):
    content, calls = parse_tool_calls(text, tools, lambda number: f"call_{number}")
    return content, [(call.id, call.name, json.loads(call.arguments)) for call in calls]


PARIS = ("call_0", "weather", {"city": "Paris"})


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        '<tool_call>{"name": "weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}',
        '<tool_call>{"function": {"name": "weather", "arguments": {"city": "Paris"}}}</tool_call>',
        '{"name": "weather", "parameters": {"city": "Paris"}}',
        ' {"type": "function", "name": "weather", "parameters": {"city": "Paris"}}\n',
        '<|python_tag|>{"name": "weather", "parameters": {"city": "Paris"}}',
        '[{"name": "weather", "arguments": {"city": "Paris"}}]',
        '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}, "id": "x"}]',
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Paris"}}]',
        '[TOOL_CALLS]weather[ARGS]{"city": "Paris"}',
        '<function=weather>{"city": "Paris"}</function>',
    ],
)
def test_every_form_of_a_call_is_read(text: str) -> None:
    assert parse(text) == ("", [PARIS])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (
            '<tool_call>{"name": "add"}</tool_call>\n<tool_call>{"name": "weather"}</tool_call>',
            ["add", "weather"],
        ),
        ('{"name": "add", "parameters": {}}; {"name": "weather", "parameters": {}}', ["add", "weather"]),
        ('[TOOL_CALLS][{"name": "add", "arguments": {}}, {"name": "add", "arguments": {}}]', ["add", "add"]),
        ("[TOOL_CALLS]add[ARGS]{}[TOOL_CALLS]weather[ARGS]{}", ["add", "weather"]),
    ],
)
def test_several_calls_keep_their_order_and_get_their_own_ids(text: str, names: list[str]) -> None:
    content, calls = parse(text)

    assert content == ""
    assert [(call_id, name) for call_id, name, _ in calls] == [
        (f"call_{n}", name) for n, name in enumerate(names)
    ]


def test_what_is_said_around_a_call_is_content() -> None:
    content, calls = parse('Let me look. \n<tool_call>{"name": "add", "arguments": {}}</tool_call>\n Done.')

    assert content == "Let me look.Done."
    assert len(calls) == 1


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "launch_missiles", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": "Paris"}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": ["Paris"]}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {"city": NaN}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {"city": "\\ud800"}}</tool_call>',
        '<tool_call>{"name": 3, "arguments": {}}</tool_call>',
        "<tool_call>weather(Paris)</tool_call>",
        '<tool_call>{"name": "weather", "arguments": {"city": "Par',
        '{"name": "weather", "parameters": {"city": "Paris"}} is how it is called.',
        '{"city": "Paris"}',
        '{"name": "unknown", "parameters": {}}',
        "[1, 2, 3]",
        "[TOOL_CALLS][]",
        '[TOOL_CALLS][{"name": "weather", "arguments": {}}, {"name": "unknown", "arguments": {}}]',
        "<function=weather>city: Paris</function>",
        "<function=unknown>{}</function>",
        '<think>I could <tool_call>{"name": "weather", "arguments": {}}</tool_call></think>The answer.',
        "2 < 3 and <b>4</b> [TOOLS] <fun",
        "  leading and trailing blanks stay \n",
        '{"name": "weather", "arguments": ' + "[" * 100_000,
    ],
)
def test_what_is_not_certainly_a_call_stays_content(text: str) -> None:
    assert parse(text) == (text, [])


def test_a_call_after_a_thought_is_read() -> None:
    content, calls = parse('<think>Hm.</think>\n{"name": "weather", "parameters": {"city": "Paris"}}')

    assert content == "<think>Hm.</think>"
    assert calls == [PARIS]


def test_without_offered_tools_nothing_is_a_call() -> None:
    text = '<tool_call>{"name": "weather", "arguments": {}}</tool_call>'

    assert parse(text, tools=()) == (text, [])


def test_a_stream_holds_back_what_may_become_a_call_and_nothing_else() -> None:
    stream = ToolCallStream(TOOLS, str)

    sent = [
        stream.feed(piece)
        for piece in ["It is", " 3 <", " 4. <to", "ol_call>{", '"name": "add"}', "</tool_call>"]
    ]

    assert sent == ["It is", " 3", " < 4.", "", "", ""]
    assert stream.finish() == ""
    assert [call.name for call in stream.calls] == ["add"]


def test_a_stream_of_json_that_is_no_call_flows_as_soon_as_that_is_certain() -> None:
    stream = ToolCallStream(TOOLS, str)

    assert stream.feed('{"na') == ""
    assert stream.feed('tion": "France"') == '{"nation": "France"'


fragments = st.sampled_from(
    [
        "<tool_call>", "</tool_call>", '{"name": "add", "arguments": {"x": 1}}', '{"name": "add"}',
        '{"name": "no"}', "[TOOL_CALLS]", '[{"name": "add", "arguments": {}}]', "<function=add>", "{}",
        "</function>", "add[ARGS]{}",
        "<|python_tag|>", "<think>", "</think>", "; ", " ", "\n", "text", "<", "[", '{"', "é", "\"",
    ]
)  # fmt: skip


@given(st.lists(fragments, max_size=12).map("".join), st.lists(st.integers(0, 200), max_size=12))
def test_however_a_text_is_cut_into_pieces_the_result_is_the_same(text: str, cuts: list[int]) -> None:
    """Streaming and parsing are one function: the pieces' content joined, and the calls, do not depend on
    the cuts."""
    whole, expected = parse_tool_calls(text, TOOLS, str)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    stream = ToolCallStream(TOOLS, str)

    sent = "".join(stream.feed(text[a:b]) for a, b in pairwise(edges)) + stream.finish()

    assert (sent, stream.calls) == (whole, expected)


@given(st.text(max_size=60))
def test_a_text_without_calls_comes_through_unchanged(text: str) -> None:
    """Nothing a model says is lost."""
    content, calls = parse_tool_calls(text, TOOLS, str)

    assert (content, calls) == (text, ())
