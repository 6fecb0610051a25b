"""POST /tokenize and /detokenize, as vLLM has them. Layer: api.

The one idea: a client that budgets tokens must count as the server counts, chat template and system prompt
included.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_runtime.api import errors
from agent_runtime.api.parse import parse
from agent_runtime.api.schema import MAX_TOOLS, Body, ChatMessage, ToolDefinition
from agent_runtime.api.service import Service
from agent_runtime.llm.base import Chat, Prompt, Text
from agent_runtime.llm.chat import with_system_prompt


class TokenizeRequest(Body):
    """Body of POST /tokenize: a prompt or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)] | None = None
    tools: Annotated[list[ToolDefinition], Field(max_length=MAX_TOOLS)] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("one_of", "exactly one of prompt and messages is required")
        if self.tools and self.messages is None:
            raise PydanticCustomError("one_of", "tools need messages")
        return self


class DetokenizeRequest(Body):
    """Body of POST /detokenize."""

    model: str | None = None
    tokens: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=1_000_000)]


async def tokenize(request: Request) -> Response:
    """Token ids of a prompt or a conversation, as generation would read it."""
    service: Service = request.app.state.service
    backend = service.require_ready().backend
    body = await parse(request, TokenizeRequest)
    service.check_model(request, body.model)
    _require_ids(service)
    prompt: Prompt = Text(body.prompt or "")
    if body.messages is not None:
        messages = with_system_prompt(
            [m.message() for m in body.messages], service.config.agent.system_prompt
        )
        prompt = Chat(messages, tuple(tool.spec() for tool in body.tools or ()))
    encoded = backend.encode(prompt)
    return JSONResponse(
        {
            "count": encoded.count,
            "max_model_len": service.context(),
            "tokens": list(encoded.ids or ()),
        }
    )


async def detokenize(request: Request) -> Response:
    """Text of token ids."""
    service: Service = request.app.state.service
    backend = service.require_ready().backend
    body = await parse(request, DetokenizeRequest)
    service.check_model(request, body.model)
    _require_ids(service)
    vocabulary = backend.limits.vocabulary or 0
    if wrong := [number for number, token in enumerate(body.tokens) if token >= vocabulary]:
        raise errors.invalid_field(f"tokens[{wrong[0]}]", f"the largest token id is {vocabulary - 1}.")
    return JSONResponse({"prompt": backend.decode(body.tokens)})


def _require_ids(service: Service) -> None:
    if not service.require_ready().backend.capabilities.token_ids:
        raise errors.unsupported_value("model", "a remote model's tokens are not known here.")
