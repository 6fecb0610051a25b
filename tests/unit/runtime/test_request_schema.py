"""A field is honoured or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from agent_runtime.api.errors import ApiError, from_validation
from agent_runtime.api.schema import ChatRequest, CompletionRequest

HI = [{"role": "user", "content": "Hi"}]


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
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "unsupported_value"),
        ({"messages": [*HI, {"role": "user", "content": 5}]}, "messages[1].content", "invalid_value"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "text": "x"}]}]},
            "messages[0].content[0].type",
            "unsupported_value",
        ),
        ({"messages": [{**HI[0], "tool_calls": []}]}, "messages[0].tool_calls", "unsupported_field"),
        ({"temperature": "0.5"}, "temperature", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"temperature": True}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"seed": 1.5}, "seed", "invalid_value"),
        ({"seed": 2**64}, "seed", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": "5"}, "max_tokens", "invalid_value"),
        ({"max_completion_tokens": -1}, "max_completion_tokens", "invalid_value"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "invalid_value"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"stop": ["a", 5]}, "stop[1]", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "unsupported_field"),
        ({"n": 2}, "n", "unsupported_value"),
        ({"logprobs": True}, "logprobs", "unsupported_value"),
        ({"presence_penalty": 0.5}, "presence_penalty", "unsupported_value"),
        ({"logit_bias": {"50256": -100}}, "logit_bias", "unsupported_value"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_value"),
        ({"tool_choice": "required"}, "tool_choice", "unsupported_value"),
        ({"response_format": {"type": "json_object"}}, "response_format.type", "unsupported_value"),
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
    assert (error.status, error.param, error.code) == (400, param, code)
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
        ({"prompt": "Hi", "logprobs": 3}, "logprobs", "unsupported_value"),
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
