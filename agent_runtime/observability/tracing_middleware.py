"""Around every request: its span, and its caller's trace. Layer: observability, pure ASGI.

The one idea: it stands outermost, so that every log line of the request, the line about its end included,
carries the trace's ids. Probes, metrics and stats are not traced: they are many and alike.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_runtime.observability import tracing

_CARRIER = frozenset({b"traceparent", b"tracestate"})
_QUIET = ("/health/", "/metrics", "/stats")


class TracingMiddleware:
    """Gives each HTTP request a span."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"].startswith(_QUIET):
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _CARRIER
        }
        if not headers and not tracing.enabled():
            await self._app(scope, receive, send)
            return
        method, path, scheme = scope["method"], scope["path"], scope.get("scheme", "http")
        with (
            tracing.received(headers.get("traceparent", ""), headers.get("tracestate", "")),
            tracing.http_request(method, path, scheme, headers) as span,
        ):
            seen = _Seen(send)
            await self._app(scope, receive, seen.send)
            if seen.request_id is not None:
                span.set(tracing.REQUEST_ID, seen.request_id)
            tracing.answered(span, method, getattr(scope.get("route"), "path", None), seen.status)


class _Seen:
    """Sends on, and remembers status and request id."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None
        self.request_id: str | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for name, value in message.get("headers", ()):
                if name == b"x-request-id":
                    self.request_id = value.decode("latin-1")
        await self._send(message)
