"""The agent for other agents: A2A agent card and JSON-RPC endpoint, by the maintained SDK. Layer: api; extra
`a2a`.

The one idea: an A2A task is a run and an A2A context is a session. What the protocol's verbs mean for runs
is in `a2a_executor`; here are the routes. The SDK is imported when the first request for them comes,
because it takes 23 MiB that most agents never need. Versions 0.3 (message/send, message/stream, tasks/get,
tasks/cancel) and 1.0 (SendMessage, ...) are served alike.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive

from agent_runtime.agent.service import AgentService
from agent_runtime.api import errors
from agent_runtime.api.parse import MAX_BODY_BYTES

log = logging.getLogger("agent_runtime.api")

CARD_PATH = "/.well-known/agent-card.json"
RPC_PATH = "/v1/a2a"
"""Under /v1, so that a key is needed where keys are configured; the card is public."""


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the card says of the agent: `url` is the endpoint's, `secured` whether a bearer key is needed."""

    description: str
    version: str
    url: str
    secured: bool


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What answers, once the SDK is there."""

    card: Callable[[Request], Awaitable[Response]]
    rpc: Callable[[Request], Awaitable[Response]]
    close: Callable[[], Awaitable[None]]


def a2a_routes(
    agent: AgentService, *, description: str, version: str, base_url: str, secured: bool
) -> list[Route]:
    """The routes; none, with a line in the log, without the extra.

    `base_url` is how other agents reach this server. Closing the agent closes what is opened here.
    """
    if importlib.util.find_spec("a2a") is None:
        log.info("A2A is not served: install 'agent-operator[a2a]' for it")
        return []
    lazy = _Lazy(agent, CardFacts(description, version, f"{base_url.rstrip('/')}{RPC_PATH}", secured))
    return [Route(CARD_PATH, lazy.card), Route(RPC_PATH, lazy.rpc, methods=["POST"])]


class _Lazy:
    """Imports the SDK at the first request, beside the event loop."""

    def __init__(self, agent: AgentService, facts: CardFacts) -> None:
        self._agent, self._facts = agent, facts
        self._lock = asyncio.Lock()
        self._endpoints: Endpoints | None = None

    async def card(self, request: Request) -> Response:
        """The agent's card."""
        return await (await self._ready()).card(request)

    async def rpc(self, request: Request) -> Response:
        """One JSON-RPC request."""
        bounded = await _bounded(request)
        return await (await self._ready()).rpc(bounded)

    async def _ready(self) -> Endpoints:
        async with self._lock:
            if self._endpoints is None:
                executor = await asyncio.to_thread(importlib.import_module, "agent_runtime.api.a2a_executor")
                made: Endpoints = executor.endpoints(self._agent, self._facts)
                self._agent.on_close(made.close)
                self._endpoints = made
            return self._endpoints


async def _bounded(request: Request) -> Request:
    """The request with its body read already, up to the limit: the SDK reads bodies of any size."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise errors.too_large(MAX_BODY_BYTES)
    unread: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]
    rest: Receive = request.receive

    async def receive() -> Message:
        return unread.pop() if unread else await rest()

    return Request(request.scope, receive)
