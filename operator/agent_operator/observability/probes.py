"""Health, readiness and metrics over HTTP. Layer: observability; imports aiohttp and prometheus-client.

The one idea: the server answers from the same event loop that does the work, so an answer is already
proof that the loop turns; what else must hold is handed in as functions that name what is wrong.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

Check = Callable[[], str]
"""Returns what is wrong, or an empty string."""


class ProbeServer:
    """Serves /healthz, /readyz and /metrics, and `routes` beside them. `host` empty: all addresses."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        healthy: Check,
        ready: Check,
        host: str,
        port: int,
        routes: Iterable[web.RouteDef] = (),
    ) -> None:
        self._registry = registry
        self._host = host or None
        self._port = port
        app = web.Application()
        app.router.add_get("/healthz", _answer(healthy))
        app.router.add_get("/readyz", _answer(ready))
        app.router.add_get("/metrics", self._metrics)
        app.router.add_routes(routes)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is in use or not allowed.
        """
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    @property
    def port(self) -> int:
        """The port listened on, also when 0 (any) was asked for."""
        return int(self._runner.addresses[0][1])

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})


def _answer(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(_: web.Request) -> web.Response:
        problem = check()
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    return handler
