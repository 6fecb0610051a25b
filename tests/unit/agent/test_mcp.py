"""Tools of a real MCP server: listed, called, cancelled, lost and found again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from agent_runtime.agent.commands import CallTool
from agent_runtime.agent.environment import Environment
from agent_runtime.agent.tools import NotSentError, ToolError, ToolPolicy, TransportError, function_tool
from agent_runtime.agent.tools.mcp import McpServer
from agent_runtime.agent.tools.registry import ToolRegistry
from agent_runtime.contract import McpServerConfig, ToolConfig
from tests.support.mcp_server import McpStandIn


@pytest.fixture
def standin() -> Iterator[McpStandIn]:
    server = McpStandIn()
    server.start()
    yield server
    server.stop()


@asynccontextmanager
async def connected(standin: McpStandIn, **options) -> AsyncIterator[McpServer]:
    server = McpServer("numbers", standin.url, connect_seconds=5, **options)
    await server.open()
    try:
        yield server
    finally:
        await server.close()


async def patiently(condition) -> None:
    """Waits on the event loop for something another thread does."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("still not so after 20 s")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_tools_are_listed_and_called(standin: McpStandIn, mode: str) -> None:
    async with connected(standin, mode=mode) as server:
        add = next(tool for tool in server.tools if tool.name == "add")

        assert server.reason is None
        assert (add.description, add.idempotent) == ("Adds two numbers.", True)
        assert add.parameters["required"] == ["a", "b"]
        assert (await server.call("add", {"a": 1, "b": 2})).text == "3"


async def test_only_allowed_tools_are_offered(standin: McpStandIn) -> None:
    async with connected(standin, tool_names=("add", "missing")) as server:
        assert [tool.name for tool in server.tools] == ["add"]


async def test_a_tool_that_fails_says_so(standin: McpStandIn) -> None:
    async with connected(standin) as server:
        output = await server.call("fail", {"why": "no"})

        assert output.is_error


async def test_an_unknown_tool_is_the_servers_refusal(standin: McpStandIn) -> None:
    async with connected(standin) as server:
        try:
            output = await server.call("unknown", {})
        except ToolError as error:
            assert not isinstance(error, TransportError)
        else:
            assert output.is_error


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_cancelling_a_call_cancels_it_at_the_server(standin: McpStandIn, mode: str) -> None:
    async with connected(standin, mode=mode) as server:
        call = asyncio.create_task(server.call("hang", {}))
        await patiently(lambda: standin.called)

        call.cancel()

        await patiently(lambda: standin.cancelled == 1)
        assert (await server.call("add", {"a": 1, "b": 2})).text == "3"


async def test_a_call_that_takes_too_long_is_an_observation(standin: McpStandIn) -> None:
    policy = ToolPolicy(timeout_seconds=0.2)
    async with connected(standin, policy=policy) as server:
        tools = {tool.name: server.tool(tool, tool.name) for tool in server.tools if tool.name != "answer"}

        observed = await Environment(tools).execute(CallTool(call_id="c", name="hang", arguments="{}"))

        assert observed.outcome == "timeout"
        await patiently(lambda: standin.cancelled == 1)


async def test_a_result_too_large_to_hold_fails_its_call_alone(standin: McpStandIn) -> None:
    async with connected(standin) as server:
        with pytest.raises(ToolError, match="longer than the client accepts"):
            await server.call("huge", {"size": 9 * 2**20})

        assert (await server.call("add", {"a": 1, "b": 2})).text == "3"


async def test_a_server_that_is_down_has_no_tools_and_a_reason_until_it_is_back(standin: McpStandIn) -> None:
    standin.stop()
    async with connected(standin) as server:
        assert (server.tools, server.reason) == ((), "it cannot be reached")
        with pytest.raises(NotSentError, match="not available: it cannot be reached"):
            await server.call("add", {"a": 1, "b": 2})

        standin.start()

        await patiently(lambda: server.reason is None)
        assert (await server.call("add", {"a": 1, "b": 2})).text == "3"


async def test_a_server_that_forgot_its_session_certainly_did_not_run_the_call(standin: McpStandIn) -> None:
    """A session of the 2025 protocol dies with its server; the call is refused, and works when sent
    again."""
    async with connected(standin, mode="legacy") as server:
        standin.stop()
        standin.start()

        with pytest.raises(NotSentError):
            await server.call("add", {"a": 1, "b": 2})
        assert (await server.call("add", {"a": 1, "b": 2})).text == "3"


async def test_a_call_on_its_way_when_the_server_dies_may_have_happened(standin: McpStandIn) -> None:
    async with connected(standin) as server:
        call = asyncio.create_task(server.call("hang", {}))
        await patiently(lambda: standin.called)

        await asyncio.to_thread(standin.stop)

        with pytest.raises(TransportError) as error:
            await call
        assert not isinstance(error.value, NotSentError)


async def test_the_token_is_read_anew_for_every_request(standin: McpStandIn, tmp_path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    config = ToolConfig(
        name="numbers",
        mcp_server=McpServerConfig(url=standin.url, tool_names=("add",)),
        token_file=str(token),
    )
    async with ToolRegistry(configs=[config]) as registry:
        token.write_text("second\n")
        await registry.snapshot()["add"].call({"a": 1, "b": 2})

    sent = [headers.get("authorization") for headers in standin.headers]
    assert sent[0] == "Bearer first" and sent[-1] == "Bearer second"


async def test_the_registry_gives_every_tool_a_name_of_its_own(standin: McpStandIn) -> None:
    def add(x: int) -> int:
        """Ours."""
        return x

    config = McpServerConfig(url=standin.url)
    configs = [ToolConfig(name="one", mcp_server=config), ToolConfig(name="two", mcp_server=config)]
    async with ToolRegistry([function_tool(add)], configs) as registry:
        names = set(registry.snapshot())

    assert {"add", "one__add", "two__add", "one__answer", "two__hang"} <= names
    assert "hang" not in names and "answer" not in names


async def test_a_server_that_is_down_takes_only_its_own_tools_away(standin: McpStandIn) -> None:
    down = McpStandIn()
    configs = [
        ToolConfig(name="up", mcp_server=McpServerConfig(url=standin.url, tool_names=("add",))),
        ToolConfig(name="down", mcp_server=McpServerConfig(url=down.url)),
    ]
    async with ToolRegistry(configs=configs) as registry:
        assert set(registry.snapshot()) == {"add"}
        assert registry.unavailable == {"down": "it cannot be reached"}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ToolConfig(name="a"), r"agent.tools\[0\] \('a'\): give exactly one of mcp_server and http"),
        (
            ToolConfig(name="a", http={"url": "file:///x", "description": "d"}),
            r"agent.tools\[0\]: tool 'a': 'file:///x' is not an http",
        ),
        (
            ToolConfig(name="a b", http={"url": "http://x", "description": "d"}),
            r"agent.tools\[0\]: tool 'a b': a name is",
        ),
        (
            ToolConfig(
                name="a", http={"url": "http://x", "description": "d", "parameters": {"type": "array"}}
            ),
            r"agent.tools\[0\]: tool 'a': parameters: the schema's type is 'array'",
        ),
    ],
)
async def test_a_configured_tool_that_cannot_be_is_refused_by_its_path(
    config: ToolConfig, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        ToolRegistry(configs=[config])


async def test_a_token_file_that_is_missing_is_the_tools_failure(tmp_path) -> None:
    config = ToolConfig(
        name="it", http={"url": "http://127.0.0.1:1/", "description": "d"}, token_file=str(tmp_path / "none")
    )
    async with ToolRegistry(configs=[config]) as registry:
        with pytest.raises(NotSentError, match="token file cannot be read"):
            await registry.snapshot()["it"].call({})
