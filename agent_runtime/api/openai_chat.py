"""POST /v1/chat/completions. Layer: api.

The one idea: this file holds the shapes of OpenAI's chat objects and nothing else.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from agent_runtime.api.answer import Answer, Choice
from agent_runtime.api.parse import parse
from agent_runtime.api.schema import ChatRequest
from agent_runtime.api.service import Service
from agent_runtime.api.sse import EventStream, encode, event
from agent_runtime.api.usage import usage
from agent_runtime.llm.base import Chat, Delta, Result, TokenLogprob
from agent_runtime.llm.chat import ToolCall, ToolSpec, with_system_prompt
from agent_runtime.llm.tool_calls import ToolCallStream, parse_tool_calls


async def chat_completions(request: Request) -> Response:
    """Answers a conversation, at once or as a stream."""
    service: Service = request.app.state.service
    backend = service.require_ready().backend
    body = await parse(request, ChatRequest)
    service.check_model(request, body.model)
    messages = with_system_prompt([m.message() for m in body.messages], service.config.agent.system_prompt)
    tools = body.offered_tools
    encoded = await service.encode(backend, Chat(messages, tools), "messages")
    sampling = service.sampling(backend, encoded, body, body.grammar_field)
    stream, choices = bool(body.stream), body.n or 1
    answer = await service.start(
        request, encoded, sampling, "chat",
        choices=choices, stream=stream, grammar_field=body.grammar_field,
    )  # fmt: skip
    head = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": service.config.model.served_name,
        "system_fingerprint": service.config.revision,
    }
    most_calls = 1 if body.parallel_tool_calls is False else None
    try:
        if stream:
            await answer.wait_first()
            chunks = _Chunks(head, choices, tools, most_calls, body.with_usage)
            return EventStream(chunks.of(answer), answer.close, service.stream_failed)
        finished = await answer.collect()
    except BaseException:
        answer.close()
        raise
    answer.close()
    data = completion(head, finished, answer.total(), tools, most_calls)
    return Response(encode(data), media_type="application/json")


def new_call_id(number: int) -> str:
    """An id for a tool call."""
    return f"call_{uuid.uuid4().hex[:24]}"


def completion(
    head: dict[str, Any],
    choices: Sequence[Choice],
    total: Result,
    tools: Sequence[ToolSpec],
    most_calls: int | None,
) -> dict[str, Any]:
    """The whole answer."""
    return head | {
        "choices": [_choice(number, choice, tools, most_calls) for number, choice in enumerate(choices)],
        "usage": usage(total),
    }


def _choice(number: int, choice: Choice, tools: Sequence[ToolSpec], most_calls: int | None) -> dict[str, Any]:
    content = choice.result.text
    calls: tuple[ToolCall, ...] = ()
    if tools:
        content, calls = parse_tool_calls(choice.result.text, tools, new_call_id)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": content if content or not calls else None,
        "refusal": None,
    }
    finish: str = choice.result.finish_reason
    if calls:
        message["tool_calls"] = [tool_call(call) for call in calls[:most_calls]]
        finish = "tool_calls"
    logprobs = {"content": [token(item) for item in choice.logprobs], "refusal": None}
    return {
        "index": number,
        "message": message,
        "logprobs": logprobs if choice.logprobs else None,
        "finish_reason": finish,
    }


def tool_call(call: ToolCall) -> dict[str, Any]:
    """A tool call in OpenAI's shape."""
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def token(item: TokenLogprob) -> dict[str, Any]:
    """A token's log-probability in OpenAI's shape."""

    def entry(text: str, raw: bytes, logprob: float) -> dict[str, Any]:
        return {"token": text, "bytes": list(raw), "logprob": logprob}

    return entry(item.token, item.raw, item.logprob) | {"top_logprobs": [entry(*other) for other in item.top]}


class _Chunks:
    """The answer in pieces: each choice's role, text, tool calls, why it ended and, when asked for, usage."""

    def __init__(
        self,
        head: dict[str, Any],
        choices: int,
        tools: Sequence[ToolSpec],
        most_calls: int | None,
        with_usage: bool,
    ) -> None:
        self._head = head | {"object": "chat.completion.chunk"}
        # OpenAI sends "usage": null in every chunk before the last when usage was asked for.
        self._rest: dict[str, Any] = {"usage": None} if with_usage else {}
        self._with_usage, self._most_calls = with_usage, most_calls
        self._streams = [ToolCallStream(tools, new_call_id) if tools else None for _ in range(choices)]
        # Nearly every chunk is a piece of text and nothing else: all but the text is encoded once.
        self._plain = [self._around(number) for number in range(choices)]

    def _around(self, number: int) -> tuple[bytes, bytes]:
        before, after = self._event(number, {"content": "\0"}).split(b'"\\u0000"')
        return before, after

    def _event(
        self, number: int, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None
    ) -> bytes:
        choice = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return event(self._head | {"choices": [choice]} | self._rest)

    async def of(self, answer: Answer) -> AsyncIterator[bytes]:
        """The encoded events. Raises what `answer.events` raises."""
        for number in range(len(self._streams)):
            yield self._event(number, {"role": "assistant", "content": ""})
        async for number, item in answer.events():
            if isinstance(item, Delta):
                for data in self._piece(number, item):
                    yield data
            else:
                for data in self._end(number, item):
                    yield data
        if self._with_usage:
            yield event(self._head | {"choices": [], "usage": usage(answer.total())})

    def _piece(self, number: int, delta: Delta) -> list[bytes]:
        stream = self._streams[number]
        text = delta.text if stream is None else stream.feed(delta.text)
        if delta.logprobs:
            logprobs = {"content": [token(item) for item in delta.logprobs], "refusal": None}
            return [self._event(number, {"content": text}, logprobs=logprobs)]
        return [self._text(number, text)] if text else []

    def _text(self, number: int, text: str) -> bytes:
        before, after = self._plain[number]
        return before + json.dumps(text, ensure_ascii=False).encode() + after

    def _end(self, number: int, result: Result) -> list[bytes]:
        stream = self._streams[number]
        rest = stream.finish() if stream is not None else ""
        sent = [self._text(number, rest)] if rest else []
        calls = () if stream is None else stream.calls[: self._most_calls]
        for position, call in enumerate(calls):
            sent.append(self._event(number, {"tool_calls": [{"index": position, **tool_call(call)}]}))
        return [*sent, self._event(number, {}, "tool_calls" if calls else result.finish_reason)]
