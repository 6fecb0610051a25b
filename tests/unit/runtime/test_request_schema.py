"""A field is honoured or refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from agent_runtime.api.errors import ApiError, from_validation
from agent_runtime.api.schema import ChatRequest, CompletionRequest

HI = [{"role": "user", "content": "Hi"}]
CALL = {"id": "1", "function": {"name": "find", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


def named(tool: str) -> dict[str, Any]:
    """The choice of one tool."""
    return {"type": "function", "function": {"name": tool}}


def refusal(schema: type[BaseModel], body: Any) -> ApiError | None:
    """The error a body gives, or None when it is accepted."""
    try:
        schema.model_validate(body)
    except ValidationError as error:
        return from_validation(error)
    return None


@pytest.mark.parametrize(
    ("extra", "param", "code"),
    [
        ({"messages": None}, "messages", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "Hi"}, "messages", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "invalid_value"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "unsupported_value"),
        ({"messages": [*HI, {"role": "user", "content": 5}]}, "messages[1].content", "invalid_value"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "text": "x"}]}]},
            "messages[0].content[0].type",
            "unsupported_value",
        ),
        ({"messages": [{**HI[0], "tool_calls": [CALL]}]}, "messages[0].tool_calls", "invalid_value"),
        ({"messages": [{**HI[0], "audio": {}}]}, "messages[0].audio", "unsupported_field"),
        ({"temperature": "0.5"}, "temperature", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"temperature": True}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"seed": 1.5}, "seed", "invalid_value"),
        ({"seed": 2**64}, "seed", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": "5"}, "max_tokens", "invalid_value"),
        ({"max_completion_tokens": -1}, "max_completion_tokens", "invalid_value"),
        ({"stop": ["a"] * 17}, "stop", "invalid_value"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"stop": ["a", 5]}, "stop[1]", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "unsupported_field"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 17}, "n", "invalid_value"),
        ({"top_k": -2}, "top_k", "invalid_value"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"presence_penalty": 2.5}, "presence_penalty", "invalid_value"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x", "invalid_value"),
        ({"logit_bias": {"5": 101}}, "logit_bias", "invalid_value"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "invalid_value"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_value"),
        ({"tools": [TOOL, TOOL]}, "tools", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tool_choice": "any"}, "tool_choice", "unsupported_value"),
        ({"tools": [TOOL], "tool_choice": named("other")}, "tool_choice", "invalid_value"),
        (
            {"tools": [TOOL], "tool_choice": "required", "response_format": {"type": "json_object"}},
            "response_format",
            "invalid_value",
        ),
        ({"response_format": {"type": "xml"}}, "response_format", "invalid_value"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
            "invalid_value",
        ),
        ({"store": True}, "store", "unsupported_value"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "unsupported_field"),
        ({"model": 5}, "model", "invalid_value"),
    ],
)
def test_what_cannot_be_honoured_in_a_chat_is_refused_by_its_path(
    extra: dict[str, Any], param: str, code: str
) -> None:
    error = refusal(ChatRequest, {"messages": HI, **extra})

    assert error is not None
    assert (error.status, error.code) == (400, code)
    assert (error.param or "").startswith(param)
    assert param in error.message


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "prompt", "invalid_value"),
        ({"prompt": []}, "prompt", "invalid_value"),
        ({"prompt": ["a", "b"]}, "prompt", "invalid_value"),
        ({"prompt": [1, 2, 3]}, "prompt", "invalid_value"),
        ({"prompt": "Hi", "echo": True}, "echo", "unsupported_value"),
        ({"prompt": "Hi", "best_of": 3}, "best_of", "unsupported_value"),
        ({"prompt": "Hi", "logprobs": 21}, "logprobs", "invalid_value"),
        ({"prompt": "Hi", "suffix": "x"}, "suffix", "unsupported_value"),
        ({"prompt": "Hi", "messages": HI}, "messages", "unsupported_field"),
    ],
)
def test_what_cannot_be_honoured_in_a_completion_is_refused_by_its_path(
    body: dict[str, Any], param: str, code: str
) -> None:
    error = refusal(CompletionRequest, body)

    assert error is not None
    assert (error.status, error.code) == (400, code)
    assert (error.param or "").split("[")[0] == param


def test_values_that_change_nothing_are_accepted() -> None:
    neutral: dict[str, Any] = {
        "n": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "logprobs": False,
        "logit_bias": {},
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "store": False,
        "metadata": {"a": "b"},
        "user": "someone",
        "stop": None,
        "temperature": None,
        "max_tokens": None,
        "stream": False,
    }

    assert refusal(ChatRequest, {"messages": HI, **neutral}) is None


def test_a_forced_call_is_a_grammar_of_one_call_of_the_named_tools() -> None:
    other = {"type": "function", "function": {"name": "other"}}
    body = ChatRequest.model_validate({"messages": HI, "tools": [TOOL, other], "tool_choice": named("find")})

    assert body.grammar is not None
    assert json.loads(body.grammar.text)["properties"]["name"] == {"const": "find"}
    assert body.grammar_field == "tool_choice"
    assert [tool.name for tool in body.offered_tools] == ["find", "other"]


def test_a_conversation_with_tool_calls_keeps_which_result_answers_which_call() -> None:
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ]
    body = ChatRequest.model_validate({"messages": messages})

    call, result = (message.message() for message in body.messages)

    assert (call.content, call.tool_calls[0].name) == ("", "find")
    assert (result.role, result.tool_call_id, result.content) == ("tool", "1", "42")


def test_text_parts_are_joined_and_developer_means_system() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    body = ChatRequest.model_validate({"messages": [{"role": "developer", "content": parts}]})

    message = body.messages[0].message()

    assert (message.role, message.content) == ("system", "one\ntwo")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from([*ChatRequest.model_fields, *CompletionRequest.model_fields, "unknown"])


@given(st.dictionaries(FIELDS, JSON, max_size=5))
def test_any_json_is_accepted_or_refused_with_a_named_field(body: dict[str, Any]) -> None:
    for schema in (ChatRequest, CompletionRequest):
        error = refusal(schema, body)
        assert error is None or (error.status == 400 and error.param)
