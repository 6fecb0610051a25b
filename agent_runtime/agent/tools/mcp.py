"""Tools of an MCP server, by the maintained client over streamable HTTP. Layer: agent; mcp and httpx2.

The one idea: a connection is held by one task that opens it, lists the tools, waits for it to break and
opens it again with growing pauses; calls borrow it. So a server that is down, slow or restarted takes only
its own tools away, with a reason, and they come back by themselves.

A call fails as NotSentError where the server certainly did not run it (nothing could be sent, or the server
had forgotten the session), and as TransportError otherwise. Cancelling a call tells the server
(notifications/cancelled, or a closed request since protocol 2026-07-28). A server's hints (readOnlyHint,
idempotentHint) are believed for one thing only: whether sending a call again is harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
import mcp_types as types
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from agent_runtime.agent.tools.base import (
    NotSentError,
    Tool,
    ToolError,
    ToolOutput,
    ToolPolicy,
    TransportError,
)

log = logging.getLogger("agent_runtime.agent")

CONNECT_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 30.0
IDLE_SECONDS = 60.0
"""How long an answer that nobody waits for any more may keep its connection."""
GOODBYE_SECONDS = 2.0
MAX_PAGES = 50
MAX_RESPONSE_BYTES = 8 * 2**20
"""Of one HTTP response: what a server may make this process hold before a result is cut."""

_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout)


@dataclass(frozen=True, slots=True)
class RemoteTool:
    """A tool as the server lists it."""

    name: str
    description: str
    parameters: dict[str, Any]
    idempotent: bool


@dataclass(slots=True)
class _Connection:
    """One connection. `forgotten`: the server does not know its session any more. `unsent` is known once it
    has ended: nothing could be sent over it."""

    client: Client | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    forgotten: bool = False
    unsent: bool = False

    async def inspect(self, response: httpx2.Response) -> None:
        """Looks at every response first: the client reads JSON whole, however long, and tells a lost session
        from any other error by the server's words only."""
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise httpx2.DecodingError("compressed answers are not accepted", request=response.request)
        if response.status_code == 404 and "mcp-session-id" in response.request.headers:
            self.forgotten = True
        if response.request.method == "POST" and isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _Capped(response.stream, MAX_RESPONSE_BYTES)


class McpServer:
    """One server: `tools` are those it offers now; `reason` says why there are none."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        tool_names: Collection[str] = (),
        policy: ToolPolicy | None = None,
        bearer: Callable[[], str | None] = lambda: None,
        connect_seconds: float = CONNECT_SECONDS,
        mode: str = "auto",
    ) -> None:
        """`tool_names` are those that may be offered, all when empty; `mode` is how the protocol's version
        is agreed on, see mcp.client.Client."""
        self.name, self.url = name, url
        self.tools: tuple[RemoteTool, ...] = ()
        self.reason: str | None = "not connected yet"
        self._allowed = frozenset(tool_names)
        self._policy = policy or ToolPolicy()
        self._bearer = bearer
        self._connect_seconds, self._mode = connect_seconds, mode
        self._connection: _Connection | None = None
        self._settled = asyncio.Event()
        self._wanted_anew = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Returns once the server was reached or the first attempt has failed."""
        self._task = asyncio.create_task(self._hold(), name=f"mcp {self.name}")
        await self._settled.wait()

    async def close(self) -> None:
        """Ends the connection; tells the server so if it listens."""
        self._closing = True
        self._wanted_anew.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=GOODBYE_SECONDS)
            self._task.cancel()
            await asyncio.wait({self._task})

    def tool(self, remote: RemoteTool, name: str) -> Tool:
        """The server's tool under the name that the model is told. Raises ValueError when it cannot be
        offered."""

        async def call(arguments: dict[str, Any]) -> ToolOutput:
            return await self.call(remote.name, arguments)

        policy = replace(self._policy, idempotent=remote.idempotent)
        return Tool(name, remote.description, remote.parameters, call, policy)

    async def call(self, tool: str, arguments: dict[str, Any]) -> ToolOutput:
        """The result of one call. Raises ToolError, TransportError or NotSentError."""
        await self._settled.wait()
        connection = self._connection
        if connection is None or connection.client is None:
            raise NotSentError(f"The tool server '{self.name}' is not available: {self.reason}.")
        try:
            return output(await connection.client.call_tool(tool, arguments))
        except MCPError as error:
            raise await self._meaning(error, connection) from error
        except ValidationError as error:
            raise ToolError(f"The tool server '{self.name}' sent a result that is not one.") from error

    async def _meaning(self, error: MCPError, connection: _Connection) -> ToolError:
        """What a failed call means."""
        closed = error.code == types.CONNECTION_CLOSED
        if closed or connection.forgotten:
            if self._connection is connection:
                self._connection = None
                self._settled.clear()
                self._wanted_anew.set()
            await connection.ended.wait()
            unsent = connection.unsent if closed else connection.forgotten
            kind = NotSentError if unsent else TransportError
            return kind(f"The connection to the tool server '{self.name}' broke.")
        if error.code == types.INTERNAL_ERROR:
            return TransportError(f"The tool server '{self.name}' failed: {error.message}")
        return ToolError(f"The tool server '{self.name}' refused the call: {error.message}")

    async def _hold(self) -> None:
        """The owner of the connections, one after the other, until it is closed."""
        failures = 0
        while not self._closing:
            self._settled.clear()
            self._wanted_anew.clear()
            connection: _Connection | None = None
            try:
                async with self._connected() as connection:
                    failures = 0
                    await self._wanted_anew.wait()
                self._lost(connection, None)
            except Exception as error:
                self._lost(connection, error)
            failures += 1
            if failures > 1 and not self._closing:
                pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(failures, 10))
                # jitter: many agents must not come back to a restarted server at the same moment
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[_Connection]:
        connection = _Connection()
        async with contextlib.AsyncExitStack() as stack:
            http = await stack.enter_async_context(
                httpx2.AsyncClient(
                    auth=_Bearer(self._bearer),
                    event_hooks={"response": [connection.inspect]},
                    headers={"Accept-Encoding": "identity"},
                    timeout=httpx2.Timeout(
                        self._connect_seconds, read=self._policy.timeout_seconds + IDLE_SECONDS
                    ),
                )
            )
            # asyncio's time limit and not anyio's: the client's task group outlives this block.
            async with asyncio.timeout(self._connect_seconds):
                streams = streamable_http_client(self.url, http_client=http)
                client = await stack.enter_async_context(Client(streams, mode=self._mode, cache=None))
                offered = await _listed(client)
            self._offer(offered)
            connection.client = client
            self._connection = connection
            self._settled.set()
            yield connection

    def _offer(self, offered: Sequence[RemoteTool]) -> None:
        self.reason = None
        self.tools = tuple(tool for tool in offered if not self._allowed or tool.name in self._allowed)
        if missing := self._allowed - {tool.name for tool in self.tools}:
            log.warning("mcp server %s does not offer: %s", self.name, ", ".join(sorted(missing)))

    def _lost(self, connection: _Connection | None, error: Exception | None) -> None:
        self.tools, self.reason = (), "the connection was closed" if error is None else describe(error)
        self._connection = None
        if connection is not None:
            connection.unsent = error is not None and all(isinstance(leaf, _UNSENT) for leaf in leaves(error))
            connection.ended.set()
        if not self._closing:
            log.warning("mcp server %s is not available: %s", self.name, self.reason)
        if connection is None or self._closing:
            self._settled.set()  # else the next attempt, which begins at once, settles it


class _Bearer(httpx2.Auth):
    """Reads the token anew for every request, because mounted secrets are rotated."""

    def __init__(self, bearer: Callable[[], str | None]) -> None:
        self._bearer = bearer

    def auth_flow(self, request: httpx2.Request) -> Any:
        """Adds the header."""
        if (token := self._bearer()) is not None:
            request.headers["Authorization"] = f"Bearer {token}"
        yield request


class _Capped(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, limit: int) -> None:
        self._inner, self._left = inner, limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            self._left -= len(chunk)
            if self._left < 0:
                raise httpx2.StreamError("the response is longer than the client accepts")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _listed(client: Client) -> list[RemoteTool]:
    """Every tool, page by page."""
    tools: list[RemoteTool] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            hints = tool.annotations or types.ToolAnnotations()
            idempotent = bool(hints.read_only_hint or hints.idempotent_hint)
            described = tool.description or tool.title or tool.name
            tools.append(RemoteTool(tool.name, described, dict(tool.input_schema), idempotent))
        cursor = page.next_cursor
        if cursor is None:
            break
    return tools


def output(result: types.CallToolResult) -> ToolOutput:
    """A result as text: text as it is, structured content as JSON when there is no text, the rest by
    kind."""
    parts: list[str] = []
    for block in result.content:
        match block:
            case types.TextContent():
                parts.append(block.text)
            case types.EmbeddedResource(resource=types.TextResourceContents() as resource):
                parts.append(resource.text)
            case types.ResourceLink():
                parts.append(f"[{block.uri}]")
            case _:
                parts.append(f"[{getattr(block, 'mime_type', None) or block.type}]")
    if not parts and result.structured_content is not None:
        parts.append(json.dumps(result.structured_content, ensure_ascii=False))
    return ToolOutput("\n".join(parts), is_error=bool(result.is_error))


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a group, however nested."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def describe(error: Exception) -> str:
    """Why a server is not available, in one line without its URL's secrets."""
    leaf = leaves(error)[0]
    if isinstance(leaf, TimeoutError):
        return "it did not answer in time"
    if isinstance(leaf, _UNSENT):
        return "it cannot be reached"
    if isinstance(leaf, ToolError):
        return str(leaf)
    if isinstance(leaf, MCPError):
        return f"it answered: {leaf.message[:200]}"
    return type(leaf).__name__
