"""Sessions to one API server. Layer: shell; imports aiohttp and the credentials.

The one idea: every session made here, ours and the one kopf watches with, takes the current token per
request and counts the request.
"""

from __future__ import annotations

import time

import aiohttp
from aiohttp import ClientMiddlewareType

from agent_operator.observability.metrics import Metrics
from agent_operator.shell.credentials import Credentials

CONNECT_TIMEOUT_SECONDS = 5.0
REQUEST_TIMEOUT_SECONDS = 15.0
REQUEST_CONNECTIONS = 32


def direct_session(limit: int) -> aiohttp.ClientSession:
    """A session to pods and gateways: no credentials, no proxy, at most `limit` connections (0: any)."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limit, ssl=False),
        headers={"User-Agent": "agent-operator"},
    )


class Connection:
    """Sessions to one API server. Create inside the event loop; close when done."""

    def __init__(self, credentials: Credentials, metrics: Metrics) -> None:
        self._credentials = credentials
        self._metrics = metrics
        self._ssl = credentials.ssl_context
        self.server = credentials.server
        self.last_answer: float | None = None
        self.session = self.new_session(REQUEST_CONNECTIONS)

    def url(self, path: str) -> str:
        """Absolute URL of an API path."""
        return self.server + path

    def new_session(self, limit: int, *middlewares: ClientMiddlewareType) -> aiohttp.ClientSession:
        """A session with at most `limit` connections, closed by the caller; `middlewares` come first."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=limit, ssl=self._ssl if self._ssl is not None else True),
            timeout=aiohttp.ClientTimeout(
                total=REQUEST_TIMEOUT_SECONDS, sock_connect=CONNECT_TIMEOUT_SECONDS
            ),
            headers={"User-Agent": "agent-operator"},
            middlewares=(*middlewares, self._count(), self._authenticate()),
            proxy=self._credentials.proxy,
        )

    def seconds_since_answer(self) -> float | None:
        """Age of the last answer from the API server, None before the first."""
        return None if self.last_answer is None else time.monotonic() - self.last_answer

    async def close(self) -> None:
        """Close our own session."""
        await self.session.close()

    def _authenticate(self) -> ClientMiddlewareType:
        async def middleware(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            if authorization := await self._credentials.authorization():
                request.headers["Authorization"] = authorization
            return await handler(request)

        return middleware

    def _count(self) -> ClientMiddlewareType:
        async def middleware(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            host = f"{request.url.host}:{request.url.port}"
            started = time.monotonic()
            try:
                response = await handler(request)
            except (aiohttp.ClientError, TimeoutError, OSError):
                self._metrics.requests.labels("<error>", request.method, host).inc()
                raise
            self.last_answer = time.monotonic()
            self._metrics.requests.labels(str(response.status), request.method, host).inc()
            self._metrics.request_seconds.labels(request.method, host).observe(self.last_answer - started)
            return response

        return middleware
