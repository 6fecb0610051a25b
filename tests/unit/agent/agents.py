"""Agents with a scripted model, for the tests of this folder. Layer: tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from agent_runtime.agent.request import ANYBODY, Caller, RunRequest
from agent_runtime.agent.run import Run
from agent_runtime.agent.service import AgentService
from agent_runtime.agent.store import MemoryStore, Store
from agent_runtime.agent.tools import Tool, ToolOutput, ToolPolicy, function_tool
from agent_runtime.agent.tools.registry import ToolRegistry
from agent_runtime.contract import AgentConfig
from agent_runtime.llm.chat import Message
from tests.fakes.scripted_backend import ScriptedBackend


def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def call(name: str, arguments: str = "{}") -> str:
    """A tool call as a model writes it."""
    return f'<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>'


def ask(text: str = "Weather in Paris?", **fields: Any) -> RunRequest:
    """A request with one question."""
    return RunRequest((Message("user", text),), **fields)


class Gate:
    """A tool that says when it is called and waits to be let go."""

    def __init__(self, name: str = "gate", **policy: Any) -> None:
        self.called = asyncio.Event()
        self.open = asyncio.Event()
        self.calls = 0
        self.cancelled = 0
        schema = {"type": "object", "properties": {}}
        self.tool = Tool(name, "Waits.", schema, self._call, ToolPolicy(**policy))

    async def _call(self, arguments: dict[str, Any]) -> ToolOutput:
        self.calls += 1
        self.called.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return ToolOutput("passed")


@asynccontextmanager
async def agent(
    script: Sequence[Any] | Callable[[str], Any] = (),
    tools: Sequence[Any] = (weather,),
    *,
    backend: ScriptedBackend | None = None,
    store: Store | None = None,
    config: AgentConfig | None = None,
    **options: Any,
) -> AsyncIterator[AgentService]:
    """An agent that is started and closed; `service.backend` is its model."""
    made = [tool if isinstance(tool, Tool) else function_tool(tool) for tool in tools]
    model = backend or ScriptedBackend(script)
    store = MemoryStore() if store is None else store
    service = AgentService(model, ToolRegistry(made), store, config or AgentConfig(), **options)
    service.backend = model  # type: ignore[attr-defined]
    await service.start()
    try:
        yield service
    finally:
        await service.close()


async def finish(service: AgentService, request: RunRequest, caller: Caller = ANYBODY) -> Run:
    """Begins a run and waits until it has ended or waits for a person."""
    run = await service.begin(request, caller)
    return await service.wait(run.id, caller)


async def patiently(condition: Callable[[], Any], what: str = "it") -> None:
    """Waits on the event loop for something that will happen."""
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{what}: still not so after 15 s")
