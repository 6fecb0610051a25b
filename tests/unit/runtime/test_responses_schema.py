"""POST /v1/responses: a field is honoured or refused by its path, and items become messages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from agent_runtime.api.errors import ApiError, from_validation
from agent_runtime.api.responses_items import Item, messages
from agent_runtime.api.responses_schema import ResponsesRequest
from agent_runtime.llm.chat import Message, ToolCall

HI: dict[str, Any] = {"input": "Hi"}
USER = {"role": "user", "content": "Hi"}
CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Rome"}'}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}
TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
LOGPROBS = {"include": ["message.output_text.logprobs"]}
ITEM: TypeAdapter[Item] = TypeAdapter(Item)


def refusal(body: Any) -> ApiError | None:
    """The error a body gives, or None when it is accepted."""
    try:
        ResponsesRequest.model_validate(body)
    except ValidationError as error:
        return from_validation(error)
    return None


def said(*items: Any, new: int | None = None) -> tuple[Message, ...]:
    """Items as messages; all of them are the request's own, or the last `new`."""
    found = [ITEM.validate_python(item) for item in items]
    return messages(found, len(found) if new is None else new)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("extra", "param", "code"),
    [
        ({"input": None}, "input", "invalid_value"),
        ({"input": ""}, "input", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": {"role": "user"}}, "input", "invalid_value"),
        ({"input": ["Hi"]}, "input[0]", "invalid_value"),
        ({"input": [{"role": "user"}]}, "input[0].content", "invalid_value"),
        ({"input": [{**USER, "role": "tool"}]}, "input[0].role", "unsupported_value"),
        ({"input": [{**USER, "name": "x"}]}, "input[0].name", "unsupported_field"),
        ({"input": [{**USER, "content": 5}]}, "input[0].content", "invalid_value"),
        ({"input": [{**USER, "content": []}]}, "input[0].content", "invalid_value"),
        ({"input": [{**USER, "content": ["Hi"]}]}, "input[0].content[0]", "invalid_value"),
        (
            {"input": [{**USER, "content": [{"type": "input_text", "text": 5}]}]},
            "input[0].content[0].text",
            "invalid_value",
        ),
        ({"input": [{**USER, "phase": "commentary"}]}, "input[0].phase", "unsupported_value"),
        ({"input": [USER, {**CALL, "name": "a b"}]}, "input[1].name", "invalid_value"),
        ({"input": [USER, {**CALL, "arguments": {}}]}, "input[1].arguments", "invalid_value"),
        ({"input": [USER, {**CALL, "call_id": ""}]}, "input[1].call_id", "invalid_value"),
        ({"input": [USER, {**RESULT, "output": None}]}, "input[1].output", "invalid_value"),
        ({"instructions": ["x"]}, "instructions", "invalid_value"),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
        ({"max_output_tokens": 1.5}, "max_output_tokens", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"temperature": "1"}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"top_logprobs": 21, **LOGPROBS}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"include": ["reasoning.encrypted_content"]}, "include[0]", "unsupported_value"),
        ({"stream": 1}, "stream", "invalid_value"),
        ({"stream_options": {}}, "stream_options", "invalid_value"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}},
         "stream_options.include_obfuscation", "unsupported_value"),
        ({"stream": True, "stream_options": {"include_usage": True}},
         "stream_options.include_usage", "unsupported_field"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "invalid_value"),
        ({"tools": [{**TOOL, "function": {}}]}, "tools[0].function", "unsupported_field"),
        ({"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading", "unsupported_value"),
        ({"tools": [TOOL, TOOL]}, "tools", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tool_choice": "any", "tools": [TOOL]}, "tool_choice", "unsupported_value"),
        ({"tool_choice": {"type": "function"}, "tools": [TOOL]}, "tool_choice.name", "invalid_value"),
        ({"tool_choice": {"type": "function", "name": "x"}, "tools": [TOOL]},
         "tool_choice", "invalid_value"),
        ({"tool_choice": "required", "tools": [TOOL], "text": {"format": {"type": "json_object"}}},
         "tool_choice", "invalid_value"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", "invalid_value"),
        ({"text": {"format": {"type": "json_schema", "name": "a b", "schema": {}}}},
         "text.format.name", "invalid_value"),
        ({"text": {"format": "text"}}, "text.format", "invalid_value"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "unsupported_value"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_value"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a", "invalid_value"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "invalid_value"),
        ({"previous_response_id": ""}, "previous_response_id", "invalid_value"),
        ({"background": True}, "background", "unsupported_value"),
        ({"background": 0}, "background", "invalid_value"),
        ({"truncation": "auto"}, "truncation", "unsupported_value"),
        ({"service_tier": "flex"}, "service_tier", "unsupported_value"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort", "unsupported_value"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary", "unsupported_value"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "unsupported_value"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_value"),
        ({"max_tool_calls": 3}, "max_tool_calls", "unsupported_value"),
        ({"prompt_cache_key": "k"}, "prompt_cache_key", "unsupported_value"),
        ({"seed": 1}, "seed", "unsupported_field"),
        ({"stop": ["x"]}, "stop", "unsupported_field"),
        ({"max_tokens": 5}, "max_tokens", "unsupported_field"),
        ({"messages": [USER]}, "messages", "unsupported_field"),
        ({"response_format": {"type": "text"}}, "response_format", "unsupported_field"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_its_path(extra: Any, param: str, code: str) -> None:
    error = refusal(HI | extra)

    assert error is not None
    assert (error.status, error.param, error.code) == (400, param, code)
    assert param in error.message


@pytest.mark.parametrize(
    ("extra", "param", "named"),
    [
        ({"input": [USER, {"type": "reasoning", "id": "rs_1", "summary": []}]}, "input[1]", "reasoning"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]", "item_reference"),
        ({"input": [{"type": "computer_call_output"}]}, "input[0]", "computer_call_output"),
        ({"input": [{**USER, "content": [{"type": "input_image", "image_url": "x"}]}]},
         "input[0].content[0]", "input_image"),
        ({"input": [{**USER, "content": [{"type": "refusal", "refusal": "x"}]}]},
         "input[0].content[0]", "refusal"),
        ({"input": [CALL, {**RESULT, "output": [{"type": "input_file", "file_id": "x"}]}]},
         "input[1].output[0]", "input_file"),
        ({"tools": [TOOL, {"type": "web_search"}]}, "tools[1]", "web_search"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0]", "mcp"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}, "tools": [TOOL]},
         "tool_choice", "allowed_tools"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format", "grammar"),
    ],
)  # fmt: skip
def test_items_parts_and_tools_of_other_types_are_refused_by_their_type(
    extra: Any, param: str, named: str
) -> None:
    error = refusal(HI | extra)

    assert error is not None
    assert (error.param, error.code) == (param, "unsupported_value")
    assert f"'{named}'" in error.message


# ---------------------------------------------------------------- what is taken


def test_everything_that_is_supported_is_accepted() -> None:
    full = {
        "model": "m", "input": [USER, CALL, RESULT], "instructions": "Be brief.",
        "previous_response_id": "resp_" + "0" * 32, "store": False, "max_output_tokens": 5,
        "temperature": 1, "top_p": 0.5, **LOGPROBS, "top_logprobs": 3, "stream": True,
        "stream_options": {"include_obfuscation": False},
        "text": {"format": {"type": "json_schema", "name": "x", "schema": {}, "strict": True}},
        "tools": [{**TOOL, "strict": True, "description": "d"}], "tool_choice": "auto",
        "parallel_tool_calls": False, "metadata": {"a": "b"}, "user": "u", "safety_identifier": "s",
    }  # fmt: skip

    assert refusal(full) is None


def test_values_that_change_nothing_are_accepted() -> None:
    neutral = {
        "background": False, "truncation": "disabled", "service_tier": "auto", "reasoning": {},
        "conversation": None, "prompt": None, "max_tool_calls": None, "prompt_cache_key": None,
        "moderation": None, "context_management": [], "text": {"verbosity": "medium"},
        "include": [], "top_logprobs": 0, "tools": [], "tool_choice": "none", "previous_response_id": None,
        "prompt_cache_retention": None, "metadata": {}, "store": None,
    }  # fmt: skip

    assert refusal(HI | neutral) is None
    assert refusal(HI | {"reasoning": {"effort": "none", "summary": None}}) is None
    assert refusal({"input": [{**CALL, "async": None, "caller": None, "namespace": None}]}) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
TYPES = st.sampled_from(["message", "function_call", "function_call_output", "function", "text", "x"])
TYPED = st.fixed_dictionaries(
    {}, optional={"type": TYPES | JSON, "role": st.just("user") | JSON, "content": JSON, "name": JSON}
)
ANY = JSON | TYPED | st.lists(TYPED, max_size=3)
FIELDS = dict.fromkeys([*ResponsesRequest.model_fields, "unknown"], ANY)


@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_any_json_is_accepted_or_refused_with_a_named_field(body: dict[str, Any]) -> None:
    error = refusal(body)

    assert error is None or (error.status == 400 and error.param)


# ---------------------------------------------------------------- what is asked of the model


def test_a_text_is_one_user_message() -> None:
    request = ResponsesRequest.model_validate(HI)

    assert messages(request.items, 1) == (Message("user", "Hi"),)


def test_log_probabilities_are_asked_for_by_include_and_their_number_by_top_logprobs() -> None:
    def asked(**extra: Any) -> int | None:
        return ResponsesRequest.model_validate(HI | extra).wanted.logprobs_asked

    assert asked() is None
    assert asked(**LOGPROBS) == 0
    assert asked(**LOGPROBS, top_logprobs=3) == 3


def test_formats_and_forced_calls_are_grammars() -> None:
    def grammar(**extra: Any) -> Any:
        found = ResponsesRequest.model_validate(HI | extra).wanted.grammar
        return None if found is None else json.loads(found.text)

    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    two = [TOOL, {"type": "function", "name": "time"}]

    assert grammar(text={"format": {"type": "text"}}) is None
    assert grammar(tools=[TOOL], tool_choice="auto") is None
    assert grammar(text={"format": {"type": "json_object"}}) == {"type": "object"}
    assert grammar(text={"format": {"type": "json_schema", "name": "x", "schema": schema}}) == schema
    named = grammar(tools=two, tool_choice={"type": "function", "name": "time"})
    assert named["properties"]["name"] == {"const": "time"}
    anyone = grammar(tools=two, tool_choice="required")
    assert [one["properties"]["name"]["const"] for one in anyone["anyOf"]] == ["weather", "time"]


def test_tools_are_not_offered_when_none_shall_be_called() -> None:
    body = HI | {"tools": [TOOL], "tool_choice": "none"}

    assert ResponsesRequest.model_validate(body).offered_tools == ()


# ---------------------------------------------------------------- items as messages


def test_developer_is_system_and_parts_are_joined_by_newlines() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}]

    assert said({"role": "developer", "content": "x"}, {"role": "user", "content": parts}) == (
        Message("system", "x"),
        Message("user", "a\nb"),
    )


def test_calls_join_the_assistants_message_before_them_and_results_know_their_tool() -> None:
    second = {**CALL, "call_id": "c2", "name": "time"}

    found = said(
        USER, {"role": "assistant", "content": "Let me see."}, CALL, second, RESULT,
        {**RESULT, "call_id": "c2", "output": [{"type": "input_text", "text": "noon"}]}, second,
    )  # fmt: skip

    first = ToolCall("c1", "weather", '{"city": "Rome"}')
    other = ToolCall("c2", "time", '{"city": "Rome"}')
    assert found == (
        Message("user", "Hi"),
        Message("assistant", "Let me see.", (first, other)),
        Message("tool", "sunny", tool_call_id="c1", name="weather"),
        Message("tool", "noon", tool_call_id="c2", name="time"),
        Message("assistant", "", (other,)),
    )


def test_a_result_of_a_call_that_nobody_made_is_refused_by_its_place_in_the_input() -> None:
    with pytest.raises(ApiError) as refused:
        said(USER, CALL, RESULT, USER, {**RESULT, "call_id": "c9"}, new=2)

    assert refused.value.param == "input[1].call_id"
    assert said(USER, CALL, RESULT, new=1)[-1].role == "tool"
