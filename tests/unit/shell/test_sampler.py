"""The sampler against real servers on loopback addresses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web

from agent_operator.observability.metrics import Metrics
from agent_operator.shell.connection import direct_session
from agent_operator.shell.monitor import Monitor
from agent_operator.shell.sampler import Sampler
from agent_operator.shell.snapshots import Key
from agent_runtime.contract import ADMIN_PORT
from tests.unit.shell.test_monitor import agent, pod, stats

KEY = Key("default", "geography")


class Runtime:
    """One replica's admin port on a loopback address of its own."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked: list[dict[str, str]] = []
        self.running = 0
        self.answer = True
        self.changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def _stats(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        if not self.answer:
            return web.Response(status=500)
        if "wait" in request.query and request.query["load"] == str(self.running):
            self.changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), float(request.query["wait"]))
        return web.Response(body=stats(self.running).encode(), content_type="application/json")

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/stats", self._stats)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.address, ADMIN_PORT).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def load(self, running: int) -> None:
        self.running = running
        self.changed.set()


@asynccontextmanager
async def sampling(runtime: Runtime, scaling: dict[str, Any] | None = None) -> AsyncIterator[Monitor]:
    """The sampler at work on one replica."""
    loop = asyncio.get_running_loop()
    metrics = Metrics()
    monitor = Monitor(
        metrics, clock=loop.time, wake=lambda key, urgent: None, pod=lambda namespace, name: None
    )
    sampler = Sampler(monitor, metrics, new_session=direct_session, jitter=lambda: 0.5)
    await runtime.start()
    task = asyncio.create_task(sampler.run())
    monitor.of(KEY, agent(scaling), [pod("a", runtime.address)])
    try:
        yield monitor
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runtime.stop()


async def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


async def test_a_replica_is_asked_and_asked_again() -> None:
    runtime = Runtime("127.77.0.1")
    async with sampling(runtime) as monitor:
        await until(lambda: monitor.load_of(KEY, "a") == 0 and len(runtime.asked) >= 1)
        runtime.load(4)
        await until(lambda: monitor.load_of(KEY, "a") == 4)
        assert runtime.asked[0] == {}, "no long poll for who is not scaled"


async def test_a_scaled_agents_replica_is_kept_in_a_long_poll_and_a_jump_is_known_at_once() -> None:
    runtime = Runtime("127.77.0.2")
    async with sampling(runtime, {"maxReplicas": 3}) as monitor:
        await until(lambda: any("wait" in query for query in runtime.asked))
        asked = len(runtime.asked)
        runtime.load(7)
        await until(lambda: monitor.load_of(KEY, "a") == 7, 1.0)
        await until(lambda: len(runtime.asked) > asked)
        assert runtime.asked[-1]["load"] == "7"


async def test_a_replica_that_dies_is_missed_and_found_again() -> None:
    runtime = Runtime("127.77.0.3")
    async with sampling(runtime) as monitor:
        await until(lambda: len(runtime.asked) >= 1)

        def silent() -> bool:
            return "a" in monitor.of(KEY, agent(), [pod("a", runtime.address)]).silent

        await runtime.stop()
        await until(silent)
        await runtime.start()
        await until(lambda: not silent())


async def test_an_answer_that_is_none_counts_as_silence() -> None:
    runtime = Runtime("127.77.0.4")
    async with sampling(runtime) as monitor:
        await until(lambda: len(runtime.asked) >= 1)
        runtime.answer = False
        await until(lambda: "a" in monitor.of(KEY, agent(), [pod("a", runtime.address)]).silent)


async def test_a_replica_that_is_gone_is_asked_no_more() -> None:
    runtime = Runtime("127.77.0.5")
    async with sampling(runtime) as monitor:
        await until(lambda: len(runtime.asked) >= 1)
        monitor.forget(KEY)
        await asyncio.sleep(0.1)
        asked = len(runtime.asked)
        await asyncio.sleep(2.5)
        assert len(runtime.asked) == asked
