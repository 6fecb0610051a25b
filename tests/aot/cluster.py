"""The API server as the campaign sees it: few requests, and a mirror of one namespace. Layer: tests.

The one idea: what became of a change is waited for, not polled: one watch a kind keeps a copy of everything
there is, and each agent's waiter is told when something of it changed.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from agent_operator.api.gateway import LABEL_SLICE_MANAGED_BY, MANAGED_BY
from agent_operator.api.names import GROUP, LABEL_AGENT, PLURAL, VERSION
from agent_operator.observability.metrics import Metrics
from agent_operator.shell.connection import Connection
from agent_operator.shell.credentials import load_credentials
from agent_operator.shell.kinds import AGENT, CHILDREN, ENDPOINT_SLICE, Kind

Object = dict[str, Any]

CONNECTIONS = 32
RELIST_SECONDS = 0.5
AGENTS = f"/apis/{GROUP}/{VERSION}/namespaces/{{}}/{PLURAL}"
NO_MORE = (Kind("v1", "ServiceAccount", "serviceaccounts"),)
"""Kinds an operator of this project once made; they must not appear."""
MIRRORED = {kind.kind: kind.path("{}") for kind in (AGENT, *CHILDREN, *NO_MORE)}


@dataclass(frozen=True)
class Answer:
    """What the API server said."""

    code: int
    body: Object

    @property
    def accepted(self) -> bool:
        return self.code < 300

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))


class Cluster:
    """Requests about the agents of one namespace, as whoever KUBECONFIG names."""

    def __init__(self, session: aiohttp.ClientSession, server: str, namespace: str) -> None:
        self._session = session
        self._server = server
        self.namespace = namespace

    async def create(self, name: str, spec: Object) -> Answer:
        """A new agent."""
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "AgentDeployment",
            "metadata": {"name": name},
            "spec": spec,
        }
        return await self._send("POST", self._agent(), body, "application/json")

    async def respecify(self, name: str, spec: Object) -> Answer:
        """The agent's whole specification replaced, validated as strictly as kubectl does."""
        patch = [{"op": "replace", "path": "/spec", "value": spec}]
        return await self._send("PATCH", self._agent(name), patch, "application/json-patch+json")

    async def delete(self, name: str) -> Answer:
        """The agent deleted; its children are the garbage collector's."""
        return await self._send("DELETE", self._agent(name), {"propagationPolicy": "Background"})

    def _agent(self, name: str = "") -> str:
        return AGENTS.format(self.namespace) + (f"/{name}" if name else "")

    async def _send(self, method: str, path: str, body: Any, kind: str = "application/json") -> Answer:
        async with self._session.request(
            method, self._server + path, params={"fieldValidation": "Strict"} if method != "DELETE" else None,
            data=json.dumps(body), headers={"Content-Type": kind},
        ) as response:  # fmt: skip
            return Answer(response.status, json.loads(await response.read()))

    async def list(self, path: str) -> Object:
        """The objects of one kind."""
        async with self._session.get(self._server + path.format(self.namespace)) as response:
            response.raise_for_status()
            found: Object = json.loads(await response.read())
            return found

    async def watch(self, path: str, version: str) -> AsyncIterator[Object]:
        """Changes of one kind since a version, until the server ends the stream."""
        params = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "false"}
        forever = aiohttp.ClientTimeout(total=None, sock_connect=5)
        url = self._server + path.format(self.namespace)
        async with self._session.get(url, params=params, timeout=forever) as response:
            response.raise_for_status()
            pending = b""
            async for chunk in response.content.iter_any():
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)


class Mirror:
    """Agents and children of one namespace as the watches tell them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.agents: dict[str, Object] = {}
        self.children: defaultdict[str, dict[str, Object]] = defaultdict(dict)
        """By agent, then by "Kind/name"."""
        self._changed: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Mirror]:
        """Filled at first, kept up to date inside the block."""
        tasks = []
        for kind, path in MIRRORED.items():
            version = await self._fill(kind, path)
            tasks.append(asyncio.create_task(self._follow(kind, path, version)))
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def wait(self, agent: str, seconds: float) -> bool:
        """Until something of the agent changed; False after so many seconds."""
        event = self._changed[agent]
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return False
        event.clear()
        return True

    async def _fill(self, kind: str, path: str) -> str:
        """All there is of a kind, and nothing that is no more; the version to watch from."""
        listing = await self._cluster.list(path)
        items = listing.get("items") or []
        there = {item["metadata"]["uid"] for item in items}
        for item in self._known(kind):
            if item["metadata"]["uid"] not in there:
                self._take(kind, "DELETED", item)
        for item in items:
            self._take(kind, "ADDED", item)
        return str(listing["metadata"]["resourceVersion"])

    def _known(self, kind: str) -> list[Object]:
        if kind == "AgentDeployment":
            return [*self.agents.values()]
        prefix = f"{kind}/"
        return [c for found in self.children.values() for key, c in found.items() if key.startswith(prefix)]

    async def _follow(self, kind: str, path: str, version: str) -> None:
        """Until cancelled; a watch that breaks off begins anew with a list."""
        while True:
            try:
                async for event in self._cluster.watch(path, version):
                    if event["type"] == "ERROR":
                        break
                    version = event["object"]["metadata"]["resourceVersion"]
                    self._take(kind, event["type"], event["object"])
                await asyncio.sleep(RELIST_SECONDS)
                version = await self._fill(kind, path)
            except (aiohttp.ClientError, TimeoutError, OSError):
                await asyncio.sleep(RELIST_SECONDS)

    def _take(self, kind: str, change: str, item: Object) -> None:
        meta = item["metadata"]
        if kind == ENDPOINT_SLICE.kind and meta.get("labels", {}).get(LABEL_SLICE_MANAGED_BY) != MANAGED_BY:
            return  # one that Kubernetes makes of a Service's selector
        if kind == "AgentDeployment":
            agent, place, key = meta["name"], self.agents, meta["name"]
        else:
            agent = meta.get("labels", {}).get(LABEL_AGENT, "")
            place, key = self.children[agent], f"{kind}/{meta['name']}"
        if not agent:
            return
        if change == "DELETED":
            place.pop(key, None)
        else:
            place[key] = item
        self._changed[agent].set()


@asynccontextmanager
async def connected(namespace: str) -> AsyncIterator[Cluster]:
    """Requests as whoever KUBECONFIG names, in one namespace."""
    connection = Connection(await load_credentials(), Metrics())
    session = connection.new_session(CONNECTIONS)
    try:
        yield Cluster(session, connection.server, namespace)
    finally:
        await session.close()
        await connection.close()
