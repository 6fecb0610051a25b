"""The gateway without Kubernetes: lanes, their ports, the demand and what runs beside them. Layer: gateway.

The one idea: it is told of slices through a cache and a queue of keys, whoever fills them (the watch in a
cluster, a test on loopback), and stopping is an order of things: not ready, serve on, refuse who waits, let
replicas finish, leave.
"""

from __future__ import annotations

import asyncio
import logging

from prometheus_client import CollectorRegistry

from agent_operator.controller.cache import Cache
from agent_operator.controller.queue import WorkQueue
from agent_operator.gateway.admission import Keys
from agent_operator.gateway.client import SWEEP_SECONDS
from agent_operator.gateway.control import DemandPage
from agent_operator.gateway.core import answers
from agent_operator.gateway.core.demand import Board
from agent_operator.gateway.core.slices import View
from agent_operator.gateway.directory import Directory, Key
from agent_operator.gateway.lane import Lane
from agent_operator.gateway.metrics import GatewayMetrics
from agent_operator.gateway.polling import Polling

logger = logging.getLogger(__name__)

IDLE_SECONDS = 30.0
"""A connection to a pod that nobody used for so long is closed; the runtime's own limit is 75 s."""
DRAIN_TICK_SECONDS = 0.05


class Gateway:
    """Create on the event loop; `run` until cancelled, `stop` once."""

    def __init__(
        self, cache: Cache, queue: WorkQueue[Key], keys: Keys, registry: CollectorRegistry,
        *, host: str, instance: str,
    ) -> None:  # fmt: skip
        self._cache, self._queue, self._keys = cache, queue, keys
        self.stopping = False
        self.directory = Directory(cache, host=host, new_lane=self._new_lane)
        self.demand = DemandPage(Board(instance), self.directory.demand)
        self.metrics = GatewayMetrics(registry, self.directory.lanes)
        self._polling = Polling(self.directory.lanes)

    async def fill(self, keys: list[Key]) -> None:
        """Open the ports of everybody known, before the first news."""
        for key in keys:
            if not await self.directory.agree(key):
                self._queue.add_after(key, 1.0)

    async def run(self) -> None:
        """Follow news, ask pods, sweep; until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.directory.work(self._queue), name="directory")
            group.create_task(self._polling.run(), name="polling")
            group.create_task(self._sweep(), name="sweep")

    async def stop(self, *, delay: float, drain: float) -> None:
        """Stop gracefully: serve for `delay` seconds more, then end what ends within `drain` seconds."""
        self.stopping = True
        for lane in self.directory.lanes():
            lane.stopping = True
        await asyncio.sleep(delay)
        await self.directory.close()
        lanes = list(self.directory.lanes())
        held, in_flight = sum(len(lane.queue) for lane in lanes), sum(lane.in_flight for lane in lanes)
        logger.info("stopping", extra={"held": held, "in_flight": in_flight})
        for lane in lanes:
            lane.close(answers.stopping)
        self.demand.close()
        loop = asyncio.get_running_loop()
        end = loop.time() + drain
        while loop.time() < end and any(lane.in_flight or lane.clients for lane in lanes):  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_TICK_SECONDS)
        for lane in lanes:
            lane.abort()

    def _new_lane(self, view: View) -> Lane:
        lane = Lane(view.route, keys=self._keys, on_held=self.demand.note, on_wait=self.metrics.waited)
        lane.stopping = self.stopping
        return lane

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for lane in self.directory.lanes():
                lane.sweep(loop.time() - IDLE_SECONDS)
