"""Lets a request in when its key allows it. Layer: access, pure ASGI.

The one idea: the check stands before routing and body, so what is behind it cannot be reached, read or
timed without a key. WebSockets are refused: no endpoint speaks them, and a browser sends no key with one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_runtime.access.gate import Admitted, Gate
from agent_runtime.api.errors import ApiError

POLICY_VIOLATION = 1008
"""WebSocket close code; before the handshake servers turn it into HTTP 403 (RFC 6455, section 7.4.1)."""


class AccessMiddleware:
    """Guards the paths that begin with one of `protected`; the Principal is `request.state.principal`."""

    def __init__(
        self,
        app: ASGIApp,
        gate: Gate,
        protected: Sequence[str] = ("/v1/",),
        on_refused: Callable[[str], None] = lambda code: None,
    ) -> None:
        """`on_refused` is told the error code of each refusal."""
        self._app, self._gate = app, gate
        self._protected, self._on_refused = tuple(protected), on_refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        elif scope["type"] == "http" and scope["path"].startswith(self._protected):
            await self._guarded(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.setdefault("state", {})
        try:
            admitted = self._gate.enter(dict(scope["headers"]))
        except ApiError as refusal:
            state["error_code"] = refusal.code
            self._on_refused(refusal.code)
            await refusal.response()(scope, receive, send)
            return
        state["principal"] = admitted.principal
        answer = _Answer(send, self._gate, admitted)
        try:
            await self._app(scope, receive, answer.send)
        finally:
            answer.end()


class _Answer:
    """Adds the rate headers, and gives the place back with the last byte.

    Before it, to be exact: a client that sends its next request on reading the end must find its place free.
    """

    def __init__(self, send: Send, gate: Gate, admitted: Admitted) -> None:
        self._send, self._gate, self._admitted = send, gate, admitted
        self._ended = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in self._admitted.headers.items():
                headers[name] = value
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.end()
        await self._send(message)

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self._gate.leave(self._admitted.principal)
