"""Around every request: an id, a count and a log line. Layer: request path, pure ASGI.

The one idea: what must hold for every answer, whichever endpoint gives it, is written once. Starlette's
BaseHTTPMiddleware would buffer streams and hide disconnects.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_runtime.drain import InFlight
from agent_runtime.observability.logging import request_id

log = logging.getLogger("agent_runtime.access")

_VALID_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_QUIET = ("/health/", "/metrics")


class RequestMiddleware:
    """Gives each HTTP request its id, counts it as in flight, and logs how it ended."""

    def __init__(self, app: ASGIApp, in_flight: InFlight) -> None:
        self._app, self._in_flight = app, in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response = _Response(send, _id_of(scope))
        token = request_id.set(response.id)
        try:
            if scope["path"].startswith("/v1/"):
                with self._in_flight.request():
                    await self._answer(scope, receive, response)
            else:
                await self._answer(scope, receive, response)
        finally:
            self._log(scope, response)
            request_id.reset(token)

    async def _answer(self, scope: Scope, receive: Receive, response: _Response) -> None:
        try:
            await self._app(scope, receive, response.send)
        except Exception:
            # The application has already answered 500; what remains is to say why, under the request's id.
            log.exception("request failed")

    def _log(self, scope: Scope, response: _Response) -> None:
        seconds = time.monotonic() - response.started
        fields: dict[str, Any] = {
            "method": scope["method"],
            "path": scope["path"],
            "status": response.status,
            "seconds": round(seconds, 4),
        }
        if code := scope.get("state", {}).get("error_code"):
            fields["code"] = code
        level = logging.DEBUG if scope["path"].startswith(_QUIET) else logging.INFO
        log.log(level, "request", extra={"fields": fields})


class _Response:
    """Sends on, and remembers what became of the response."""

    def __init__(self, send: Send, identity: str) -> None:
        self._send, self.id = send, identity
        self.started = time.monotonic()
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", []), (b"x-request-id", self.id.encode())]
        await self._send(message)


def _id_of(scope: Scope) -> str:
    """The client's x-request-id when it is harmless in a header and a log, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text: str = value.decode("latin-1")
            if _VALID_ID.fullmatch(text):
                return text
    return uuid.uuid4().hex
