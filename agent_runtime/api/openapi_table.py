"""What can be called, as a table. Layer: api, pure.

The one idea: one row per method and path, with its body, its answers and its errors; everything that
/openapi.json says about an endpoint is in its row. A test holds the table against the routes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from agent_runtime.api import openapi_agent_objects as agents
from agent_runtime.api import openapi_objects as objects
from agent_runtime.api.agent_schema import ApprovalBody, RunBody
from agent_runtime.api.decide_schema import DecideRequest
from agent_runtime.api.responses_schema import ResponsesRequest
from agent_runtime.api.schema import ChatRequest, CompletionRequest
from agent_runtime.api.tokenize import DetokenizeRequest, TokenizeRequest

Shape = type[BaseModel]

ERRORS: Mapping[int, str] = {
    400: "The request is wrong, or asks for what this server or model cannot do; `param` names the field.",
    401: "No key, or not a valid one.",
    403: "The key may not use the model or the tool.",
    404: "There is no such thing here, or it has expired, or it is another key's.",
    409: "Not in this state of the run.",
    413: "The body, or what it asks for, is too large.",
    429: "At capacity, or the key's limit is reached; see Retry-After.",
    500: "A defect, or the model failed on this request; the log tells by request id.",
    502: "The remote model failed.",
    503: "Not ready: loading, draining or failed, or a store or a remote model does not answer.",
    504: "The deadline passed.",
}

READING = (500, 503)
KEPT = (404, 500, 503)
WRITING = (400, 404, 413, 500, 503)
GENERATING = (400, 404, 413, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method on a path. `answers` are the successes by status; `streams` says that a success may be
    server-sent events instead; `headers` are optional ones that are read."""

    method: Literal["get", "post", "delete"]
    path: str
    name: str
    summary: str
    answers: Mapping[int, Shape | None]
    errors: tuple[int, ...] = READING
    body: Shape | None = None
    streams: bool = False
    headers: Mapping[str, Mapping[str, Any]] | None = None


_LAST_EVENT = {
    "Last-Event-ID": {
        "description": "The number of the last event that was read; all when absent.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
    }
}


def _generating(
    path: str, name: str, summary: str, body: Shape, answer: Shape, *, streams: bool = True
) -> Endpoint:
    return Endpoint("post", path, name, summary, {200: answer}, GENERATING, body, streams)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("get", "/openapi.json", "describe", "This document.", {200: None}, (500,)),
    *(
        Endpoint(
            "get", f"/health/{probe}", f"probe_{probe}", f"Kubernetes' {probe} probe.",
            {200: objects.ProbeObject, 503: objects.ProbeObject}, (),
        )
        for probe in ("startup", "ready", "live")
    ),
    Endpoint("get", "/v1/models", "list_models", "The served model.", {200: objects.ModelListObject}),
    Endpoint(
        "get", "/v1/models/{model}", "get_model", "The served model.", {200: objects.ModelObject}, KEPT
    ),
    _generating(
        "/v1/chat/completions", "create_chat_completion",
        "Answers a conversation. A stream is `chat.completion.chunk` objects, then `[DONE]`.",
        ChatRequest, objects.ChatCompletionObject,
    ),
    _generating(
        "/v1/completions", "create_completion",
        "Completes a text. A stream is `text_completion` objects, then `[DONE]`.",
        CompletionRequest, objects.TextCompletionObject,
    ),
    _generating(
        "/v1/responses", "create_response",
        "Answers items. A stream is OpenAI's `response.*` events, by name and numbered, or an `error`.",
        ResponsesRequest, objects.ResponseObject,
    ),
    Endpoint(
        "get", "/v1/responses/{id}", "get_response", "A kept response, without log-probabilities.",
        {200: objects.ResponseObject}, (400, *KEPT),
    ),
    Endpoint(
        "delete", "/v1/responses/{id}", "delete_response", "Forgets a kept response.",
        {200: objects.DeletedObject}, KEPT,
    ),
    Endpoint(
        "post", "/v1/responses/{id}/cancel", "cancel_response",
        "Refused: there are no background responses.", {}, (400, *KEPT),
    ),
    _generating(
        "/v1/decide", "decide", "Chooses one of several answers by their probabilities and a policy.",
        DecideRequest, agents.DecisionObject, streams=False,
    ),
    Endpoint(
        "post", "/tokenize", "tokenize", "Token ids of a text or a conversation, as generation reads it.",
        {200: agents.TokensObject}, WRITING, TokenizeRequest,
    ),
    Endpoint(
        "post", "/detokenize", "detokenize", "Text of token ids.",
        {200: agents.TextObject}, WRITING, DetokenizeRequest,
    ),
    Endpoint(
        "post", "/v1/agent/runs", "create_run",
        "Begins an agent run: 200 once it has ended, 202 while it goes on or waits for an approval. A stream "
        "is its events, then ends.",
        {200: agents.RunObject, 202: agents.RunObject}, (403, 409, 429, *WRITING), RunBody, True,
    ),
    Endpoint(
        "get", "/v1/agent/runs/{id}", "get_run", "The run as it is now.", {200: agents.RunObject}, KEPT
    ),
    Endpoint(
        "get", "/v1/agent/runs/{id}/events", "run_events", "The run's events as they come, until it ends.",
        {200: None}, (400, *KEPT), streams=True, headers=_LAST_EVENT,
    ),
    Endpoint(
        "post", "/v1/agent/runs/{id}/cancel", "cancel_run", "Ends the run.",
        {200: agents.RunObject}, (409, *KEPT),
    ),
    Endpoint(
        "post", "/v1/agent/runs/{id}/approve", "approve_call",
        "Approves or denies the call the run waits with; 202 while the run goes on.",
        {200: agents.RunObject, 202: agents.RunObject}, (409, *WRITING), ApprovalBody,
    ),
    Endpoint(
        "get", "/v1/sessions/{id}", "get_session", "The conversation of a session.",
        {200: agents.SessionObject}, KEPT,
    ),
    Endpoint(
        "delete", "/v1/sessions/{id}", "delete_session", "Forgets a session.",
        {200: objects.DeletedObject}, KEPT,
    ),
)  # fmt: skip
