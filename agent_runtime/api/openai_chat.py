"""POST /v1/chat/completions. Layer: api.

The one idea: this file holds the shapes of OpenAI's chat objects and nothing else.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_runtime.api.parse import parse
from agent_runtime.api.schema import ChatRequest
from agent_runtime.api.service import Answer, Service
from agent_runtime.api.sse import EventStream
from agent_runtime.api.usage import usage
from agent_runtime.llm.base import Result
from agent_runtime.llm.chat import with_system_prompt


async def chat_completions(request: Request) -> Response:
    """Answers a conversation, at once or as a stream."""
    service: Service = request.app.state.service
    serving = service.require_ready()
    body = await parse(request, ChatRequest)
    service.check_model(body.model)
    messages = with_system_prompt([m.message() for m in body.messages], service.config.system_prompt)
    prompt = serving.engine.encode_chat(messages)
    service.check_length(prompt, "messages")
    sampling = service.sampling(body.token_limit, body.temperature, body.top_p, body.seed, body.stop_strings)
    answer = await service.start(request.receive, serving, prompt, sampling)
    head = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": service.config.model.served_name,
        "system_fingerprint": service.config.revision,
    }
    if body.stream:
        return EventStream(answer, chunks(head, answer, body.with_usage))
    return JSONResponse(completion(head, await answer.collect(request.receive)))


def completion(head: dict[str, Any], result: Result) -> dict[str, Any]:
    """The whole answer."""
    message = {"role": "assistant", "content": result.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": result.finish_reason}
    return head | {"choices": [choice], "usage": usage(result)}


async def chunks(head: dict[str, Any], answer: Answer, with_usage: bool) -> AsyncIterator[dict[str, Any]]:
    """The answer in pieces: the role, text, the reason it ended and, when asked for, usage."""
    head = head | {"object": "chat.completion.chunk"}
    # OpenAI sends "usage": null in every chunk before the last when usage was asked for.
    rest: dict[str, Any] = {"usage": None} if with_usage else {}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return head | {"choices": [choice]} | rest

    yield chunk({"role": "assistant", "content": ""})
    async for event in answer.events():
        if isinstance(event, str):
            yield chunk({"content": event})
        else:
            yield chunk({}, event.finish_reason)
            if with_usage:
                yield head | {"choices": [], "usage": usage(event)}
