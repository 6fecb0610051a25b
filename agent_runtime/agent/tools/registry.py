"""Every tool an agent has, wherever it lives. Layer: agent.

The one idea: the tools of this moment are a snapshot. MCP servers come and go; a run is offered what is
there when it starts, and a server that is not there takes away its own tools, with a reason, and nothing
else. A tool of an MCP server keeps its own name unless another tool has it too; then it is `server__tool`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import httpx2

from agent_runtime.agent.run import ANSWER
from agent_runtime.agent.tools.base import NotSentError, Tool, ToolPolicy
from agent_runtime.agent.tools.http import IDEMPOTENT, http_tool
from agent_runtime.contract import McpServerConfig, ToolConfig
from agent_runtime.observability.logging import register_secret

if TYPE_CHECKING:
    from agent_runtime.agent.tools.mcp import McpServer, RemoteTool

log = logging.getLogger("agent_runtime.agent")

MAX_CONNECTIONS = 100


class ToolRegistry:
    """The tools; opened and closed with the runtime, on its event loop."""

    def __init__(self, tools: Sequence[Tool] = (), configs: Sequence[ToolConfig] = ()) -> None:
        """Raises ValueError naming the configuration's field when a tool cannot be."""
        self._http = httpx2.AsyncClient(limits=httpx2.Limits(max_connections=MAX_CONNECTIONS))
        self._fixed: dict[str, Tool] = {}
        self._servers: list[McpServer] = []
        self._unusable: set[str] = set()
        for tool in tools:
            self._add(tool, f"tools: '{tool.name}'")
        for index, config in enumerate(configs):
            self._configure(config, f"agent.tools[{index}]")

    async def __aenter__(self) -> Self:
        """Connects to the servers, all at once; a server that cannot be reached is tried again later."""
        await asyncio.gather(*(server.open() for server in self._servers))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends every connection."""
        await asyncio.gather(*(server.close() for server in self._servers))
        await self._http.aclose()

    @property
    def unavailable(self) -> dict[str, str]:
        """The servers that offer no tools now, and why."""
        return {server.name: server.reason for server in self._servers if server.reason is not None}

    def snapshot(self) -> Mapping[str, Tool]:
        """The tools that can be called now, by the name that the model is told."""
        found = dict(self._fixed)
        remote = [(server, tool, _offered(tool.name)) for server in self._servers for tool in server.tools]
        taken = Counter(name for _, _, name in remote) + Counter(found.keys()) + Counter([ANSWER])
        for server, tool, name in remote:
            unique = name if taken[name] == 1 else _offered(f"{server.name}__{name}")
            if unique not in found and (offered := self._tool(server, tool, unique)) is not None:
                found[unique] = offered
        return found

    def _tool(self, server: McpServer, remote: RemoteTool, name: str) -> Tool | None:
        try:
            return server.tool(remote, name)
        except ValueError as error:
            if str(error) not in self._unusable:
                self._unusable.add(str(error))
                log.warning("mcp server %s: %s", server.name, error)
            return None

    def _configure(self, config: ToolConfig, where: str) -> None:
        if (config.mcp_server is None) == (config.http is None):
            raise ValueError(f"{where} ('{config.name}'): give exactly one of mcp_server and http")
        bearer = _bearer(config.token_file)
        if config.http is not None:
            policy = _policy(config, config.http.method in IDEMPOTENT)
            try:
                self._add(http_tool(config.name, config.http, policy, self._http, bearer), where)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        elif config.mcp_server is not None:
            self._servers.append(self._server(config, config.mcp_server, bearer, where))

    def _server(
        self, config: ToolConfig, server: McpServerConfig, bearer: Callable[[], str | None], where: str
    ) -> McpServer:
        from agent_runtime.agent.tools.mcp import McpServer  # 28 MiB that many agents never need

        if any(other.name == config.name for other in self._servers):
            raise ValueError(f"{where}: there are two MCP servers named '{config.name}'")
        policy = _policy(config, idempotent=False)
        return McpServer(config.name, server.url, tool_names=server.tool_names, policy=policy, bearer=bearer)

    def _add(self, tool: Tool, where: str) -> None:
        if tool.name in self._fixed:
            raise ValueError(f"{where}: there are two tools named '{tool.name}'")
        self._fixed[tool.name] = tool


def _policy(config: ToolConfig, idempotent: bool) -> ToolPolicy:
    return ToolPolicy(
        timeout_seconds=config.timeout_seconds,
        retries=config.retries,
        require_approval=config.require_approval,
        max_result_bytes=config.max_result_bytes,
        idempotent=idempotent,
    )


def _bearer(token_file: str | None) -> Callable[[], str | None]:
    """Reads the token at every call: a mounted Secret is rotated in place."""
    if token_file is None:
        return lambda: None

    def token() -> str:
        try:
            value = Path(token_file).read_text().strip()
        except OSError as error:
            raise NotSentError(f"The tool's token file cannot be read ({type(error).__name__}).") from error
        if value not in known:
            known.append(value)
            register_secret(value)
        return value

    known: list[str] = []
    return token


def _offered(name: str) -> str:
    """The name in the letters and the length that a model may be told."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64]
