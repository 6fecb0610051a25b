"""A real MCP server on loopback, by the MCP SDK itself, that can be taken down and brought back. Layer:
tests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations


class McpStandIn:
    """Serves `tools` at `url`; what was called is in `called`, and cancelled calls are counted."""

    def __init__(self, **http: Any) -> None:
        self.called: list[str] = []
        self.cancelled = 0
        self.headers: list[dict[str, str]] = []
        self._http = http
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to serve, with no memory of earlier sessions."""
        app = self._recording(self._mcp().streamable_http_app(**self._http))
        config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        server.capture_signals = _nothing  # type: ignore[method-assign]
        listener = socket.create_server(("127.0.0.1", self.port))
        self._server = server
        self._thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[listener])), name="mcp-server", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stops serving; connections are closed."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(10)
            self._server = self._thread = None

    def _mcp(self) -> MCPServer:
        mcp = MCPServer("stand-in")
        for function, hints in self._tools():
            mcp.add_tool(function, annotations=hints)
        return mcp

    def _tools(self) -> list[tuple[Callable[..., Any], ToolAnnotations | None]]:
        async def add(a: int, b: int) -> int:
            """Adds two numbers."""
            self.called.append("add")
            return a + b

        async def fail(why: str) -> str:
            """Fails."""
            raise ValueError(why)

        async def hang() -> str:
            """Never answers."""
            self.called.append("hang")
            try:
                await anyio.sleep_forever()
            except BaseException:
                self.cancelled += 1
                raise
            return ""

        async def huge(size: int) -> str:
            """A long text."""
            return "x" * size

        async def answer() -> str:
            """Has a name that means something else here."""
            return "mine"

        read_only = ToolAnnotations(read_only_hint=True)
        return [(add, read_only), (fail, None), (hang, None), (huge, None), (answer, None)]

    def _recording(self, app: Any) -> Any:
        async def record(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                self.headers.append({key.decode(): value.decode() for key, value in scope["headers"]})
            await app(scope, receive, send)

        return record


@contextlib.contextmanager
def _nothing() -> Iterator[None]:
    yield
