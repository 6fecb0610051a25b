"""From the cache of slices to open ports. Layer: gateway; imports the controller's cache.

The one idea: level-triggered as the operator: a key of the queue is an agent, and whatever changed, its lane
and its port are made to agree with all of its slices. A port that cannot be opened is tried again; of two
agents that claim one port the first keeps it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, NamedTuple

from agent_operator.api.gateway import LABEL_SLICE_MANAGED_BY, AgentDemand
from agent_operator.api.names import LABEL_AGENT
from agent_operator.controller.cache import Cache
from agent_operator.controller.queue import QueueClosedError, WorkQueue
from agent_operator.gateway.client import ClientConnection
from agent_operator.gateway.core import answers
from agent_operator.gateway.core.slices import View, read
from agent_operator.gateway.lane import Lane
from agent_operator.shell.kube import Object

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
BACKLOG = 2048
AGENT_GONE_SECONDS = 5


class Key(NamedTuple):
    """An agent in queues and in the cache's index."""

    namespace: str
    agent: str


class _Open(NamedTuple):
    lane: Lane
    port: int
    server: asyncio.Server


def key_of(obj: Mapping[str, Any]) -> Key | None:
    """Whose slice it is."""
    meta = obj["metadata"]
    agent = (meta.get("labels") or {}).get(LABEL_AGENT)
    return Key(meta["namespace"], agent) if agent else None


def index_values(obj: Mapping[str, Any]) -> tuple[Hashable, ...]:
    """Slices are found by their agent."""
    key = key_of(obj)
    return () if key is None else (key,)


def trim(obj: Object) -> Object:
    """A slice without what the gateway does not read."""
    meta = obj["metadata"]
    kept = {
        name: meta[name] for name in ("name", "namespace", "uid", "resourceVersion", "labels") if name in meta
    }
    if (meta.get("labels") or {}).get(LABEL_SLICE_MANAGED_BY) and meta.get("annotations"):
        kept["annotations"] = meta["annotations"]
    endpoints = [
        {
            "addresses": one.get("addresses"),
            "conditions": one.get("conditions"),
            "targetRef": {"name": (one.get("targetRef") or {}).get("name")},
        }
        for one in obj.get("endpoints") or ()
    ]
    return {
        "apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": kept,
        "endpoints": endpoints, "ports": obj.get("ports"),
    }  # fmt: skip


class Directory:
    """The lanes by agent, each with its port."""

    def __init__(self, cache: Cache, *, host: str, new_lane: Callable[[View], Lane]) -> None:
        self._cache, self._host, self._new_lane = cache, host or None, new_lane
        self._open: dict[Key, _Open] = {}
        self._ports: dict[int, Key] = {}
        self._draining: set[Lane] = set()

    def lanes(self) -> Iterator[Lane]:
        """Every lane, those of agents that are gone too while replicas still answer their requests."""
        self._draining = {lane for lane in self._draining if lane.in_flight or lane.clients}
        yield from [*(found.lane for found in self._open.values()), *self._draining]

    def demand(self) -> dict[str, AgentDemand]:
        """By `namespace/name`, of agents that have or had requests."""
        found = {}
        for entry in self._open.values():
            demand = entry.lane.demand()
            if demand.held_total or demand.in_flight:
                found[entry.lane.route.key] = demand
        return found

    async def work(self, queue: WorkQueue[Key]) -> None:
        """Follow the queue until it is closed."""
        while True:
            try:
                key = await queue.get()
            except QueueClosedError:
                return
            try:
                done = await self.agree(key)
            except Exception:
                logger.exception("following %s/%s failed", *key)
                done = False
            queue.done(key)
            if not done:
                queue.add_after(key, RETRY_SECONDS)

    async def agree(self, key: Key) -> bool:
        """Make an agent's lane and port what its slices say; False if that must be tried again."""
        view = read(self._cache.indexed(key))
        found = self._open.get(key)
        if found is not None and (view is None or view.port != found.port):
            self._shut(key, found)
            found = None
        if view is None:
            return True
        if found is None:
            lane = await self._listen(key, view)
            if lane is None:
                return False
        else:
            lane = found.lane
        lane.update(view.route, view.pods)
        return True

    async def close(self) -> None:
        """Listen no more; requests go on."""
        for found in self._open.values():
            found.server.close()

    async def _listen(self, key: Key, view: View) -> Lane | None:
        other = self._ports.get(view.port)
        if other is not None:
            logger.error("port %d of %s/%s belongs to %s/%s", view.port, *key, *other)
            return None
        lane = self._new_lane(view)
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: ClientConnection(lane), self._host, view.port, backlog=BACKLOG
            )
        except OSError as error:
            logger.error("cannot listen on port %d for %s/%s: %s", view.port, *key, error)
            return None
        self._open[key] = _Open(lane, view.port, server)
        self._ports[view.port] = key
        logger.info("serving", extra={"agent": lane.route.key, "port": view.port, "mode": view.route.mode})
        return lane

    def _shut(self, key: Key, found: _Open) -> None:
        del self._open[key]
        del self._ports[found.port]
        found.server.close()
        found.lane.close(lambda: answers.unknown_agent(AGENT_GONE_SECONDS))
        self._draining.add(found.lane)
        logger.info("no longer serving", extra={"agent": found.lane.route.key, "port": found.port})
