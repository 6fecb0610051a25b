"""POST /v1/responses, and the responses it keeps. Layer: api.

The one idea: this file joins the parts (the request, the conversation so far, an answer, the shelf) and holds
none of their rules. A response is kept by default where `agent.sessions` is configured; its `store` says
whether it was, and becomes false when the store fails at the very end of a request that did not insist.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_runtime.access.gate import principal_of
from agent_runtime.api import errors
from agent_runtime.api.answer import Answer
from agent_runtime.api.parse import parse
from agent_runtime.api.responses_items import Item, messages
from agent_runtime.api.responses_objects import Numbering, Reading, echoed, without_logprobs
from agent_runtime.api.responses_schema import ResponsesRequest
from agent_runtime.api.responses_store import (
    MAX_CONVERSATION_BYTES,
    NOT_KEPT,
    Kept,
    Shelf,
    conversation_bytes,
    not_background,
    previous_not_found,
    response_not_found,
)
from agent_runtime.api.service import Service
from agent_runtime.api.sse import EventStream, encode
from agent_runtime.llm.base import Backend, Chat, Delta, Encoded, GenerationError
from agent_runtime.llm.chat import with_system_prompt

log = logging.getLogger("agent_runtime.api")


async def create_response(request: Request) -> Response:
    """Answers, at once or as a stream, perhaps going on from a kept response."""
    service: Service = request.app.state.service
    backend = service.require_ready().backend
    body = await parse(request, ResponsesRequest)
    service.check_model(request, body.model)
    shelf = _shelf(request)
    items = await _conversation(body, shelf)
    keeping = _keeping(body, shelf, items)
    encoded = await _encode(service, backend, body, items)
    if body.wants_logprobs and backend.capabilities.top_logprobs < 0:
        raise errors.unsupported_value("include", "this model gives no log-probabilities: leave it out.")
    sampling = service.sampling(backend, encoded, body.wanted, body.grammar_field)
    head = _head(service, keeping) | echoed(body, sampling)
    most_calls = 1 if body.parallel_tool_calls is False else None
    reading = Reading(head, body.offered_tools, most_calls, new_id)
    answer = await service.start(
        request, encoded, sampling, "chat", stream=bool(body.stream), grammar_field=body.grammar_field
    )
    if body.stream:
        return await _streamed(answer, reading, keeping, service)
    try:
        await _read(answer, reading)
    finally:
        answer.close()
    return Response(encode(await _kept(reading.response, keeping)), media_type="application/json")


async def get_response(request: Request) -> Response:
    """A kept response, without log-probabilities."""
    for name, value in request.query_params.multi_items():
        if (name, value) != ("stream", "false"):
            raise errors.unsupported_field(name)
    return Response((await _find(request)).response, media_type="application/json")


async def delete_response(request: Request) -> Response:
    """Forgets a kept response; later ones that went on from it stay."""
    shelf, response_id = _shelf(request), request.path_params["id"]
    if shelf is None or not await shelf.delete(response_id):
        raise response_not_found(response_id, shelf is not None)
    return JSONResponse({"id": response_id, "object": "response", "deleted": True})


async def cancel_response(request: Request) -> Response:
    """Refuses: there are no background responses."""
    await _find(request)
    raise not_background()


def new_id(prefix: str) -> str:
    """A new id of this kind."""
    return f"{prefix}_{uuid.uuid4().hex}"


@dataclass(frozen=True, slots=True)
class _Keeping:
    """Where a response will be kept, with which conversation, and whether its maker insists."""

    shelf: Shelf
    items: tuple[Item, ...]
    insists: bool


def _shelf(request: Request) -> Shelf | None:
    """The caller's kept responses; None where sessions are not configured."""
    service: Service = request.app.state.service
    agent = service.require_ready().agent
    if agent is None or service.config.agent.sessions is None:
        return None
    principal = principal_of(request.scope)
    return Shelf(agent.store, None if principal is None else principal.name)


async def _find(request: Request) -> Kept:
    shelf, response_id = _shelf(request), request.path_params["id"]
    kept = None if shelf is None else await shelf.find(response_id)
    if kept is None:
        raise response_not_found(response_id, shelf is not None)
    return kept


async def _conversation(body: ResponsesRequest, shelf: Shelf | None) -> tuple[Item, ...]:
    """Everything said before, then the input. Raises ApiError when there is nothing to go on from."""
    if body.previous_response_id is None:
        return body.items
    if shelf is None:
        raise errors.unsupported_value("previous_response_id", NOT_KEPT)
    before = await shelf.find(body.previous_response_id)
    if before is None:
        raise previous_not_found(body.previous_response_id)
    return (*before.items, *body.items)


def _keeping(body: ResponsesRequest, shelf: Shelf | None, items: tuple[Item, ...]) -> _Keeping | None:
    """Where the response goes, if anywhere. Raises ApiError when it was asked for and cannot be."""
    if body.store is False:
        return None
    if shelf is None:
        if body.store:
            raise errors.unsupported_value("store", NOT_KEPT)
        return None
    size = conversation_bytes(items)
    if size > MAX_CONVERSATION_BYTES:
        if body.store:
            raise errors.invalid_field(
                "store", f"the conversation has {size} bytes; at most {MAX_CONVERSATION_BYTES} are kept."
            )
        return None
    return _Keeping(shelf, items, bool(body.store))


async def _encode(
    service: Service, backend: Backend, body: ResponsesRequest, items: tuple[Item, ...]
) -> Encoded:
    # One system message, because many chat templates know no second one.
    system = "\n".join(filter(None, (service.config.agent.system_prompt, body.instructions)))
    turns = with_system_prompt(messages(items, len(body.items)), system)
    try:
        return await service.encode(backend, Chat(turns, body.offered_tools), "input")
    except GenerationError as error:
        refusal = errors.from_generation(error)
        if error.code == "invalid_prompt":
            refusal.param = "input"
        raise refusal from error


def _head(service: Service, keeping: _Keeping | None) -> dict[str, Any]:
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "model": service.config.model.served_name,
        "store": keeping is not None,
    }


async def _read(answer: Answer, reading: Reading) -> None:
    async for _, item in answer.events():
        if isinstance(item, Delta):
            reading.piece(item)
        else:
            reading.end(item, time.time())


async def _streamed(answer: Answer, reading: Reading, keeping: _Keeping | None, service: Service) -> Response:
    """Begins once there is something to tell, so that an error before it has a status of its own."""
    try:
        await answer.wait_first()
    except BaseException:
        answer.close()
        raise
    numbering = Numbering()
    events = _events(answer, reading, numbering, keeping, service)
    return EventStream(events, answer.close, service.stream_failed, last=b"", encode_error=numbering.error)


async def _events(
    answer: Answer, reading: Reading, numbering: Numbering, keeping: _Keeping | None, service: Service
) -> AsyncIterator[bytes]:
    """The encoded events. A failure of the model or the store is the last of them; raises ClientGoneError."""
    for event in reading.begin():
        yield numbering.encode(event)
    try:
        async for _, item in answer.events():
            found = reading.piece(item) if isinstance(item, Delta) else reading.end(item, time.time())
            for event in found:
                yield numbering.encode(event)
        response = await _kept(reading.response, keeping)
    except errors.ApiError as error:
        service.stream_failed(error)
        yield numbering.encode(reading.failed(error))
        return
    yield numbering.encode(reading.ended(response))


async def _kept(response: dict[str, Any], keeping: _Keeping | None) -> dict[str, Any]:
    """Keeps the response; gives it as it is told to the client. Raises ApiError 503 when it cannot be kept
    and its maker insists."""
    if keeping is None:
        return response
    try:
        await keeping.shelf.put(without_logprobs(response), keeping.items)
    except errors.ApiError as error:
        if keeping.insists:
            raise
        log.warning("a response was not kept", extra={"fields": {"code": error.code, "id": response["id"]}})
        return response | {"store": False}
    return response
