"""The response object and the events that tell of its making, as OpenAI defines them. Layer: api, pure.

The one idea: a whole response and a streamed one come from one reading of one answer, so they cannot differ.
`Reading` takes the pieces of the answer and gives the events; whoever wants only the object drops them.

The message comes first and the calls after it, in one order whichever way they are asked for: a call is
certain only at its end. Log-probabilities belong to the message's text; those of tokens that made a call are
not part of this API.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from agent_runtime.api import errors
from agent_runtime.api.openai_chat import token
from agent_runtime.api.responses_schema import (
    FunctionTool,
    NamedFunctionChoice,
    ResponsesRequest,
    SchemaFormat,
)
from agent_runtime.api.sse import event as encoded_event
from agent_runtime.llm.base import Delta, Result, Sampling, TokenLogprob
from agent_runtime.llm.chat import ToolCall, ToolSpec
from agent_runtime.llm.tool_calls import ToolCallStream

Event = tuple[str, dict[str, Any]]
"""Its name, and its fields but for the name and the sequence number."""

_TEXT = "response.output_text.delta"


def echoed(body: ResponsesRequest, sampling: Sampling) -> dict[str, Any]:
    """What a response repeats of its request: the settings in force, defaults filled in."""
    return {
        "background": False,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "temperature": sampling.temperature,
        "text": {"format": _format(body), "verbosity": "medium"},
        "tool_choice": _tool_choice(body),
        "tools": [_tool(tool, tool.name in body.forced_tools) for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": sampling.top_p,
        "truncation": "disabled",
        "user": body.user,
    }


def _format(body: ResponsesRequest) -> dict[str, Any]:
    form = None if body.text is None else body.text.format
    if not isinstance(form, SchemaFormat):
        return {"type": "text" if form is None else form.type}
    return {
        "type": form.type,
        "name": form.name,
        "description": form.description,
        "schema": form.schema_,
        "strict": True,
    }


def _tool_choice(body: ResponsesRequest) -> str | dict[str, Any]:
    if isinstance(body.tool_choice, NamedFunctionChoice):
        return body.tool_choice.model_dump()
    return body.tool_choice or "auto"


def _tool(tool: FunctionTool, forced: bool) -> dict[str, Any]:
    """`strict` says whether the arguments are certain to follow the schema; a forced call's are."""
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": forced,
    }


def usage(result: Result) -> dict[str, Any]:
    """Token counts; the end-of-sequence token counts as generated. There is neither a cache nor reasoning to
    count."""
    return {
        "input_tokens": result.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": result.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": result.prompt_tokens + result.completion_tokens,
    }


class Reading:
    """One response in the making: `begin`, `piece` for each piece, then `end` or `failed`.

    `head` is the response without what the answer decides; `new_id` makes ids from their prefix.
    """

    def __init__(
        self,
        head: dict[str, Any],
        tools: Sequence[ToolSpec],
        most_calls: int | None,
        new_id: Callable[[str], str],
    ) -> None:
        self._head, self._most_calls, self._new_id = head, most_calls, new_id
        self._calls = ToolCallStream(tools, lambda number: new_id("call")) if tools else None
        self._message: str | None = None
        self._text: list[str] = []
        self._tokens: list[dict[str, Any]] = []
        self._waiting: list[TokenLogprob] = []
        self._output: list[dict[str, Any]] = []
        self.response = self._state("in_progress")

    def begin(self) -> list[Event]:
        """The events before any output."""
        return [(f"response.{name}", {"response": self.response}) for name in ("created", "in_progress")]

    def piece(self, delta: Delta) -> list[Event]:
        """The events of a piece; none while its text may turn out to be a call."""
        text = delta.text if self._calls is None else self._calls.feed(delta.text)
        self._waiting += delta.logprobs
        return self._said(text) if text or (self._calls is None and self._waiting) else []

    def end(self, result: Result, now: float) -> list[Event]:
        """The events of the rest of the output; `response` is finished then. `now` is in Unix seconds."""
        rest = "" if self._calls is None else self._calls.finish()
        calls = () if self._calls is None else self._calls.calls[: self._most_calls]
        cut = result.finish_reason == "length"
        events: list[Event] = []
        if rest or (not calls and (self._message is None or self._waiting)):
            events += self._said(rest)
        if self._message is not None:
            events += self._message_done("incomplete" if cut else "completed")
        for call in calls:
            events += self._called(call)
        state = self._state("incomplete" if cut else "completed") | {"usage": usage(result)}
        ended = {"incomplete_details": {"reason": "max_output_tokens"}} if cut else {"completed_at": int(now)}
        self.response = state | ended
        return events

    def ended(self, response: dict[str, Any]) -> Event:
        """The last event, with the response as it became."""
        return f"response.{response['status']}", {"response": response}

    def failed(self, error: errors.ApiError) -> Event:
        """The last event of a response that cannot be finished; what was said so far is in it."""
        if self._message is not None and not self._output:
            self._output.append(self._message_item("incomplete"))
        why = {
            "code": _FAILURE.get(error.status, "server_error"),
            "message": error.message,
            "param": error.param,
            "type": error.kind,
        }
        return "response.failed", {"response": self._state("failed") | {"error": why}}

    # ------------------------------------------------------------ the parts

    def _state(self, status: str) -> dict[str, Any]:
        return self._head | {
            "status": status,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "output": list(self._output),
            "usage": None,
        }

    def _said(self, text: str) -> list[Event]:
        events: list[Event] = []
        if self._message is None:
            self._message = self._new_id("msg")
            item = self._message_item("in_progress") | {"content": []}
            events.append(("response.output_item.added", {"output_index": 0, "item": item}))
            events.append(("response.content_part.added", self._place() | {"part": self._part()}))
        tokens = [token(item) for item in self._waiting]
        self._waiting = []
        self._text.append(text)
        self._tokens += tokens
        if text or tokens:
            events.append((_TEXT, self._place() | {"logprobs": tokens, "delta": text}))
        return events

    def _message_done(self, status: str) -> list[Event]:
        item, part = self._message_item(status), self._part()
        self._output.append(item)
        whole = {"text": part["text"], "logprobs": part["logprobs"]}
        return [
            ("response.output_text.done", self._place() | whole),
            ("response.content_part.done", self._place() | {"part": part}),
            ("response.output_item.done", {"output_index": 0, "item": item}),
        ]

    def _called(self, call: ToolCall) -> list[Event]:
        index = len(self._output)
        item = {
            "id": self._new_id("fc"),
            "type": "function_call",
            "status": "completed",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
        }
        self._output.append(item)
        begun = item | {"status": "in_progress", "arguments": ""}
        place = {"item_id": item["id"], "output_index": index}
        return [
            ("response.output_item.added", {"output_index": index, "item": begun}),
            ("response.function_call_arguments.delta", place | {"delta": call.arguments}),
            ("response.function_call_arguments.done", place | {"arguments": call.arguments}),
            ("response.output_item.done", {"output_index": index, "item": item}),
        ]

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._message, "output_index": 0, "content_index": 0}

    def _part(self) -> dict[str, Any]:
        text = "".join(self._text)
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(self._tokens)}

    def _message_item(self, status: str) -> dict[str, Any]:
        return {
            "id": self._message,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [self._part()],
        }


_FAILURE = {400: "invalid_prompt", 413: "invalid_prompt", 429: "rate_limit_exceeded"}
"""OpenAI's code of a failed response by the HTTP status the error would have had; server_error otherwise."""


class Numbering:
    """Encodes the events of one stream, numbered from 0."""

    def __init__(self) -> None:
        self._next = 0
        self._before_text = b""

    def encode(self, event: Event) -> bytes:
        """The event as sent."""
        name, fields = event
        number, self._next = self._next, self._next + 1
        if name == _TEXT and not fields["logprobs"]:
            return self._text(fields, number)
        return encoded_event({"type": name, "sequence_number": number, **fields}, name)

    def error(self, error: errors.ApiError) -> bytes:
        """The event of a defect, after which nothing follows."""
        return self.encode(("error", {"code": error.code, "message": error.message, "param": error.param}))

    def _text(self, fields: dict[str, Any], number: int) -> bytes:
        """Nearly every event is a piece of text, and a response has one text: what is before it in the event
        is encoded once."""
        if not self._before_text:
            around = encoded_event({"type": _TEXT, **fields, "delta": "\0"}, _TEXT)
            self._before_text, _ = around.split(b'"\\u0000"')
        text = json.dumps(fields["delta"], ensure_ascii=False).encode()
        return self._before_text + text + b',"sequence_number":%d}\n\n' % number


def without_logprobs(response: dict[str, Any]) -> dict[str, Any]:
    """The response without the log-probabilities of its tokens, which are most of its size."""
    return response | {"output": [_without(item) for item in response["output"]]}


def _without(item: dict[str, Any]) -> dict[str, Any]:
    if item["type"] != "message":
        return item
    return item | {"content": [part | {"logprobs": []} for part in item["content"]]}
