"""The gateway on loopback: fed with slices as plain dicts, in front of replicas of the tests' own.

Layer: tests. Everything is real but the API server: sockets, HTTP on both sides, the cache and the queue.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from agent_operator.api.gateway import (
    GATEWAY_ANNOTATION,
    LABEL_SERVICE_NAME,
    LABEL_SLICE_MANAGED_BY,
    MANAGED_BY,
    Route,
    slice_name,
)
from agent_operator.api.names import LABEL_AGENT
from agent_operator.controller.cache import Cache
from agent_operator.controller.informer import Informer
from agent_operator.controller.queue import WorkQueue
from agent_operator.gateway.directory import Key, index_values, key_of, trim
from agent_operator.gateway.keys import SecretKeys
from agent_operator.gateway.lane import Lane
from agent_operator.gateway.server import Gateway
from agent_operator.observability.metrics import Metrics
from agent_operator.observability.probes import ProbeServer
from agent_operator.shell.kinds import ENDPOINT_SLICE, Kind
from agent_operator.shell.kube import NotFoundError, Object

DEADLINE = 30.0
_versions = itertools.count(1)


async def until(what: str, condition: Callable[[], Any]) -> None:
    """Wait for what other tasks do; fails by name when it stays false."""
    loop = asyncio.get_running_loop()
    end = loop.time() + DEADLINE
    while not condition():
        assert loop.time() < end, f"{what}: still not so after {DEADLINE:.0f} s"
        await asyncio.sleep(0.005)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def endpoint(host: str, name: str, *, ready: bool = True, terminating: bool = False) -> Object:
    conditions = {"ready": ready and not terminating, "serving": ready, "terminating": terminating}
    target = {"kind": "Pod", "name": name}
    return {"addresses": [host], "conditions": conditions, "targetRef": target}


def slice_of(
    name: str, service: str, agent: str, port: int, endpoints: Sequence[Object] = (), **meta: Any
) -> Object:
    """An EndpointSlice as the EndpointSlice controller writes it."""
    labels = {LABEL_SERVICE_NAME: service, LABEL_AGENT: agent, **meta.pop("labels", {})}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {
            "name": name, "namespace": "team", "uid": name, "resourceVersion": str(next(_versions)),
            "labels": labels, **meta,
        },
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    }  # fmt: skip


def our_slice(route: Route, port: int) -> Object:
    """The EndpointSlice of ours that makes the gateway the agent's endpoint."""
    return slice_of(
        slice_name(route.agent), route.agent, route.agent, port,
        labels={LABEL_SLICE_MANAGED_BY: MANAGED_BY}, annotations={GATEWAY_ANNOTATION: route.encode()},
    )  # fmt: skip


@dataclass
class Running:
    """A gateway with one agent, `geo`, and what stands around it."""

    gateway: Gateway
    informer: Informer[Key]
    control: ProbeServer
    port: int
    route: Route
    secrets: dict[str, Object] = field(default_factory=dict)
    reads: int = 0

    @property
    def lane(self) -> Lane:
        return next(self.gateway.directory.lanes())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def pods(self, port: int, *endpoints: Object) -> None:
        """The agent's Service has these endpoints from now on."""
        service = self.route.backend_service
        self.informer.observe(slice_of("geo-abc", service, "geo", port, endpoints))
        expected = {one["targetRef"]["name"] for one in endpoints if one["conditions"]["ready"]}
        await until(
            "the gateway follows the slice",
            lambda: {pod.facts.name for pod in self.lane.replicas if pod.facts.ready} == expected,
        )

    async def configure(self, **changes: Any) -> None:
        """The route changes."""
        self.route = self.route.model_copy(update=changes)
        self.informer.observe(our_slice(self.route, self.port))
        await until("the gateway follows its slice", lambda: self.lane.route == self.route)

    async def read(self, kind: Kind, namespace: str, name: str) -> Object:
        """Kube.get."""
        self.reads += 1
        await asyncio.sleep(0)
        if name not in self.secrets:
            raise NotFoundError("no such secret", 404)
        return self.secrets[name]

    def empty(self) -> bool:
        """Nothing of any request is left."""
        lane = self.lane
        pods = list(lane.replicas)
        return not (
            len(lane.queue) or lane.queue.size or lane.in_flight or any(pod.in_flight for pod in pods)
        )


@asynccontextmanager
async def running(**route: Any) -> AsyncIterator[Running]:
    """A gateway that knows the agent team/geo, which has no pods."""
    metrics = Metrics()
    cache = Cache(trim=trim, index_values=index_values)
    queue: WorkQueue[Key] = WorkQueue(metrics)
    informer: Informer[Key] = Informer(
        cache, queue, metrics,
        key_of=key_of, kinds=(ENDPOINT_SLICE,), selector_of=lambda kind: "", namespaces=(),
    )  # fmt: skip
    found: dict[str, Running] = {}

    async def read(kind: Kind, namespace: str, name: str) -> Object:
        return await found["it"].read(kind, namespace, name)

    gateway = Gateway(cache, queue, SecretKeys(read), metrics.registry, host="127.0.0.1", instance="test")
    control = ProbeServer(
        metrics.registry, healthy=lambda: "", ready=lambda: "stopping" if gateway.stopping else "",
        host="127.0.0.1", port=0, routes=gateway.demand.routes(),
    )  # fmt: skip
    await control.start()
    settings = Route(**{"namespace": "team", "agent": "geo", "backend_service": "geo", **route})
    it = found["it"] = Running(gateway, informer, control, free_port(), settings)
    work = asyncio.create_task(gateway.run())
    informer.observe(our_slice(settings, it.port))
    try:
        await until("the agent's port is open", lambda: list(gateway.directory.lanes()))
        yield it
    finally:
        lanes = list(gateway.directory.lanes())
        await gateway.stop(delay=0, drain=0)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        queue.close()
        await control.stop()
        for lane in lanes:
            await until("connections end", lambda lane=lane: not lane.clients)  # type: ignore[misc]


@dataclass
class Seen:
    """A request as a replica got it."""

    line: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter

    async def answer(self, body: bytes = b"{}", status: str = "200 OK", **headers: str) -> None:
        """A whole answer; names of headers with `_` for `-`."""
        lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await self.writer.drain()

    async def begin_stream(self) -> None:
        """The head of a stream of events."""
        self.writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        await self.writer.drain()

    async def event(self, data: str) -> None:
        text = f"data: {data}\n\n".encode()
        self.writer.write(b"%x\r\n%b\r\n" % (len(text), text))
        await self.writer.drain()

    async def end_stream(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()


Handler = Callable[[Seen], Awaitable[None]]


@dataclass
class Replica:
    """A server of the tests' own at one loopback address; `handler` answers."""

    handler: Handler
    host: str = "127.0.0.1"
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    most: int = 0
    """Largest number of requests at the same time."""
    current: int = 0
    stats: dict[str, Any] | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (one.partition(":") for one in head[1:]) if k}
                body = await self._body(reader, headers)
                seen = Seen(head[0], headers, body, writer)
                self.seen.append(seen)
                self.current += 1
                self.most = max(self.most, self.current)
                try:
                    await self.handler(seen)
                finally:
                    self.current -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _body(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await reader.readexactly(int(headers.get("content-length", 0)))
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body


async def quick(seen: Seen) -> None:
    """A handler that answers at once."""
    await seen.answer(b'{"ok":true}', content_type="application/json")


@asynccontextmanager
async def replica(handler: Handler = quick, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Replica]:
    it = Replica(handler, host)
    server = await asyncio.start_server(it.serve, host, port)
    it.port = server.sockets[0].getsockname()[1]
    try:
        yield it
    finally:
        server.close()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


class Client:
    """One raw connection: what a client sends is what the test says, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, it: Running) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", it.port))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def post(self, body: bytes = b"{}", path: str = "/v1/chat/completions", **headers: str) -> None:
        lines = [f"POST {path} HTTP/1.1", "host: geo", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    async def head(self) -> Answer:
        """The head of the next answer."""
        raw = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), DEADLINE)).decode().split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (one.partition(":") for one in raw[1:]) if k}
        return Answer(int(raw[0].split()[1]), headers, b"")

    async def answer(self) -> Answer:
        """The next answer, whole."""
        answer = await self.head()
        if answer.headers.get("transfer-encoding") == "chunked":
            while data := await self.chunk():
                answer.body += data
        elif "content-length" in answer.headers:
            size = int(answer.headers["content-length"])
            answer.body = await asyncio.wait_for(self.reader.readexactly(size), DEADLINE)
        else:
            answer.body = await asyncio.wait_for(self.reader.read(), DEADLINE)
        return answer

    async def chunk(self) -> bytes:
        """The next chunk of a body, empty at its end."""
        size = int(await asyncio.wait_for(self.reader.readline(), DEADLINE), 16)
        data = await asyncio.wait_for(self.reader.readexactly(size), DEADLINE)
        await self.reader.readline()
        return data

    async def closed(self) -> bool:
        """Whether the gateway has ended the connection, after everything it sent."""
        return await asyncio.wait_for(self.reader.read(), DEADLINE) == b""

    def leave(self) -> None:
        self.writer.transport.abort()


async def ask(it: Running, body: bytes = b"{}", **headers: str) -> Answer:
    """One request on a connection of its own."""
    client = await Client.to(it)
    client.post(body, **headers)
    try:
        return await client.answer()
    finally:
        client.leave()
