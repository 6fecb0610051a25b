"""POST /v1/completions. Layer: api.

The one idea: this file holds the shapes of OpenAI's text completion objects and nothing else. The prompt
reaches the model unchanged: no system prompt, no chat template.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_runtime.api.parse import parse
from agent_runtime.api.schema import CompletionRequest
from agent_runtime.api.service import Answer, Service
from agent_runtime.api.sse import EventStream
from agent_runtime.api.usage import usage
from agent_runtime.llm.base import Result


async def completions(request: Request) -> Response:
    """Completes a prompt, at once or as a stream."""
    service: Service = request.app.state.service
    serving = service.require_ready()
    body = await parse(request, CompletionRequest)
    service.check_model(body.model)
    prompt = serving.engine.encode(body.text)
    service.check_length(prompt, "prompt")
    sampling = service.sampling(body.token_limit, body.temperature, body.top_p, body.seed, body.stop_strings)
    answer = await service.start(request.receive, serving, prompt, sampling)
    head = {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": service.config.model.served_name,
        "system_fingerprint": service.config.revision,
    }
    if body.stream:
        return EventStream(answer, chunks(head, answer, body.with_usage))
    return JSONResponse(completion(head, await answer.collect(request.receive)))


def completion(head: dict[str, Any], result: Result) -> dict[str, Any]:
    """The whole answer."""
    return head | {"choices": [_choice(result.text, result.finish_reason)], "usage": usage(result)}


async def chunks(head: dict[str, Any], answer: Answer, with_usage: bool) -> AsyncIterator[dict[str, Any]]:
    """The answer in pieces: text, the reason it ended and, when asked for, usage."""
    rest: dict[str, Any] = {"usage": None} if with_usage else {}
    async for event in answer.events():
        if isinstance(event, str):
            yield head | {"choices": [_choice(event, None)]} | rest
        else:
            yield head | {"choices": [_choice("", event.finish_reason)]} | rest
            if with_usage:
                yield head | {"choices": [], "usage": usage(event)}


def _choice(text: str, finish: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
