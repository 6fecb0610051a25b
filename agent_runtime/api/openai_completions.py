"""POST /v1/completions. Layer: api.

The one idea: this file holds the shapes of OpenAI's text completion objects and nothing else. The prompt
reaches the model unchanged: no system prompt, no chat template.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from agent_runtime.api.answer import Answer, Choice
from agent_runtime.api.parse import parse
from agent_runtime.api.schema import CompletionRequest
from agent_runtime.api.service import Service
from agent_runtime.api.sse import EventStream, encode, event
from agent_runtime.api.usage import usage
from agent_runtime.llm.base import Delta, Result, Text, TokenLogprob


async def completions(request: Request) -> Response:
    """Completes a prompt, at once or as a stream."""
    service: Service = request.app.state.service
    backend = service.require_ready().backend
    body = await parse(request, CompletionRequest)
    service.check_model(request, body.model)
    encoded = await service.encode(backend, Text(body.text), "prompt")
    sampling = service.sampling(backend, encoded, body, body.grammar_field)
    stream, choices = bool(body.stream), body.n or 1
    answer = await service.start(
        request, encoded, sampling, "text_completion",
        choices=choices, stream=stream, grammar_field=body.grammar_field,
    )  # fmt: skip
    head = {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": service.config.model.served_name,
        "system_fingerprint": service.config.revision,
    }
    try:
        if stream:
            await answer.wait_first()
            return EventStream(chunks(head, answer, body.with_usage), answer.close, service.stream_failed)
        finished = await answer.collect()
    except BaseException:
        answer.close()
        raise
    answer.close()
    return Response(encode(completion(head, finished, answer.total())), media_type="application/json")


def completion(head: dict[str, Any], choices: Sequence[Choice], total: Result) -> dict[str, Any]:
    """The whole answer."""
    return head | {
        "choices": [
            _choice(number, choice.result.text, choice.result.finish_reason, choice.logprobs)
            for number, choice in enumerate(choices)
        ],
        "usage": usage(total),
    }


async def chunks(head: dict[str, Any], answer: Answer, with_usage: bool) -> AsyncIterator[bytes]:
    """The answer in pieces: text, the reason it ended and, when asked for, usage."""
    rest: dict[str, Any] = {"usage": None} if with_usage else {}
    offsets: dict[int, int] = {}
    async for number, item in answer.events():
        if isinstance(item, Delta):
            offset = offsets.get(number, 0)
            offsets[number] = offset + len(item.text)
            yield event(head | {"choices": [_choice(number, item.text, None, item.logprobs, offset)]} | rest)
        else:
            yield event(head | {"choices": [_choice(number, "", item.finish_reason)]} | rest)
    if with_usage:
        yield event(head | {"choices": [], "usage": usage(answer.total())})


def _choice(
    number: int, text: str, finish: str | None, tokens: Sequence[TokenLogprob] = (), offset: int = 0
) -> dict[str, Any]:
    logprobs = _logprobs(tokens, offset) if tokens else None
    return {"index": number, "text": text, "logprobs": logprobs, "finish_reason": finish}


def _logprobs(tokens: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
    """The older shape: parallel lists, and where each token begins in the answer's text (characters)."""
    offsets = []
    for item in tokens:
        offsets.append(offset)
        offset += len(item.token)
    return {
        "tokens": [item.token for item in tokens],
        "token_logprobs": [item.logprob for item in tokens],
        "top_logprobs": [{text: logprob for text, _, logprob in item.top} for item in tokens],
        "text_offset": offsets,
    }
