"""Real kopf against an API server of a few routes: it must read, tell the informer, and never write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agent_operator.api.names import LABEL_AGENT
from agent_operator.controller import kopf_adapter
from agent_operator.controller.cache import Cache
from agent_operator.controller.informer import Informer
from agent_operator.controller.queue import WorkQueue
from agent_operator.observability.metrics import Metrics
from agent_operator.shell.kinds import AGENT, POD, WATCHED, Kind, selector_of
from agent_operator.shell.snapshots import Key, key_of
from tests.fakes.kube import FakeApiServer

KOPF_NEEDS = {"apiextensions.k8s.io/v1": [("CustomResourceDefinition", "customresourcedefinitions")]}


class ApiServer:
    """Discovery, lists and watches; one queue of events per plural."""

    def __init__(self, objects: dict[str, list[dict[str, Any]]]) -> None:
        self.objects = objects
        self.events: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.lists: list[tuple[str, dict[str, str]]] = []
        """Collections that were listed, and with which parameters."""
        self.forgotten = False
        """It knows nothing of the past any more."""
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self.handle)
        self.server = TestServer(app)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/")
        self.requests.append((request.method, path, request.query.get("labelSelector", "")))
        if path in ("api", "apis"):
            return web.json_response(self._groups() if path == "apis" else {"versions": ["v1"]})
        plural = path.split("/")[-1]
        if plural in self.objects or plural in {k.plural for k in WATCHED}:
            if request.query.get("watch"):
                return await self._stream(request, plural)
            self.lists.append((plural, dict(request.query)))
            as_of = request.query.get("resourceVersion")
            if as_of and self.forgotten:
                return web.json_response({"kind": "Status", "code": 410, "reason": "Expired"}, status=410)
            found = [] if "fieldSelector" in request.query else self.objects.get(plural, [])
            listing = {"metadata": {"resourceVersion": as_of or "100"}, "items": found}
            return web.json_response(listing)
        return web.json_response(self._resources(path.removeprefix("apis/").removeprefix("api/")))

    async def _stream(self, request: web.Request, plural: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        queue = self.events.setdefault(plural, asyncio.Queue())
        while True:
            await response.write(json.dumps(await queue.get()).encode() + b"\n")

    def _groups(self) -> dict[str, Any]:
        versions = {k.api_version for k in WATCHED if k.group} | set(KOPF_NEEDS)
        groups = []
        for text in sorted(versions):
            group, _, version = text.partition("/")
            entry = {"groupVersion": text, "version": version}
            groups.append({"name": group, "versions": [entry], "preferredVersion": entry})
        return {"groups": groups}

    def _resources(self, api_version: str) -> dict[str, Any]:
        kinds = [(k.kind, k.plural) for k in WATCHED if k.api_version == api_version]
        kinds += KOPF_NEEDS.get(api_version, [])
        if api_version == "v1":
            kinds += [("Namespace", "namespaces"), ("Event", "events")]
        verbs = ["list", "watch", "get", "patch", "create", "update", "delete"]
        return {
            "resources": [
                {
                    "name": plural,
                    "singularName": "",
                    "kind": kind,
                    "namespaced": kind != "Namespace",
                    "verbs": verbs,
                }
                for kind, plural in kinds
            ]
        }


def obj(kind: Kind, name: str, version: int) -> dict[str, Any]:
    meta = {
        "name": name, "namespace": "ns", "uid": f"{kind.kind}-{name}", "resourceVersion": str(version),
        "labels": {LABEL_AGENT: "geo"},
        # Another operator's kopf finalizer: ours must leave it where it is.
        "finalizers": ["kopf.zalando.org/KopfFinalizerMarker"],
    }  # fmt: skip
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta}


def make_informer(namespaces: Sequence[str] = ()) -> tuple[Informer[Key], Cache, WorkQueue[Key]]:
    metrics = Metrics()
    cache, queue = Cache(), WorkQueue[Key](metrics)
    informer: Informer[Key] = Informer(
        cache, queue, metrics,
        key_of=key_of, kinds=WATCHED, selector_of=selector_of, namespaces=namespaces,
    )  # fmt: skip
    return informer, cache, queue


def new_session(limit: int, middleware: aiohttp.ClientMiddlewareType) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=limit), middlewares=(middleware,))


@asynccontextmanager
async def watching(
    api: ApiServer, informer: Informer[Key], on_started: Callable[[], None] = lambda: None
) -> AsyncIterator[None]:
    """kopf watches this server; it goes when it is told to, and not before."""
    await api.server.start_server()
    server = str(api.server.make_url("")).rstrip("/")
    task = asyncio.create_task(
        kopf_adapter.watch(informer, server=server, new_session=new_session, on_started=on_started)
    )
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await api.server.close()


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def test_kopf_lists_watches_and_writes_nothing() -> None:
    api = ApiServer({AGENT.plural: [obj(AGENT, "geo", 10)], POD.plural: [obj(POD, "p", 11)]})
    informer, cache, queue = make_informer()
    started = asyncio.Event()
    async with watching(api, informer, on_started=started.set):
        await until(lambda: cache.count(AGENT) == 1 and cache.count(POD) == 1)
        assert started.is_set()
        key = await queue.get()
        assert key == Key("ns", "geo")
        queue.done(key)

        await until(lambda: POD.plural in api.events)
        api.events[POD.plural].put_nowait({"type": "MODIFIED", "object": obj(POD, "p", 120)})
        await until(lambda: cache.get(POD, "ns", "p")["metadata"]["resourceVersion"] == "120")  # type: ignore[index]
        api.events[POD.plural].put_nowait({"type": "DELETED", "object": obj(POD, "p", 121)})
        await until(lambda: cache.count(POD) == 0)
        assert await queue.get() == Key("ns", "geo")
    assert {method for method, _, _ in api.requests} == {"GET"}
    selectors = {path.split("/")[-1]: selector for _, path, selector in api.requests if "/" in path}
    assert selectors[POD.plural] == LABEL_AGENT
    assert selectors[AGENT.plural] == ""
    assert all("secrets" not in path for _, path, _ in api.requests)


@pytest.mark.parametrize("forgotten", [False, True])
async def test_after_the_informers_list_the_watch_goes_on_from_its_version(*, forgotten: bool) -> None:
    api = ApiServer({})
    api.forgotten = forgotten
    informer, cache, _ = make_informer()
    kube = FakeApiServer()
    kube.add(obj(AGENT, "geo", 10))
    await informer.sync(kube.client())
    version = str(kube.version)
    async with watching(api, informer):
        await until(lambda: AGENT.plural in api.events)
        api.events[AGENT.plural].put_nowait({"type": "ADDED", "object": obj(AGENT, "new", 120)})
        await until(lambda: cache.count(AGENT) == 2)
    lists = [parameters for plural, parameters in api.lists if plural == AGENT.plural]
    assert lists[0]["resourceVersion"] == version
    assert lists[0]["resourceVersionMatch"] == "Exact"
    assert lists[0]["fieldSelector"] == "metadata.name=none"
    assert len(lists) == 1 + forgotten
    assert "resourceVersion" not in lists[-1] or not forgotten


async def test_in_namespaced_mode_nothing_is_listed_across_namespaces() -> None:
    api = ApiServer({})
    informer, _, _ = make_informer(["ns"])
    async with watching(api, informer):
        await until(lambda: len(api.events) == len(WATCHED))
    plurals = {kind.plural for kind in WATCHED}
    listed = [path for _, path, _ in api.requests if path.split("/")[-1] in plurals]
    assert listed
    assert all("/namespaces/ns/" in f"/{path}" for path in listed)


def test_no_handler_exists_that_could_make_kopf_write() -> None:
    informer, _, _ = make_informer()
    registry = kopf_adapter.make_registry(informer, lambda: None)
    assert len(registry._watching.get_all_handlers()) == len(WATCHED)
    for kind_of_handler in (registry._changing, registry._spawning, registry._indexing, registry._webhooks):
        assert list(kind_of_handler.get_all_handlers()) == []
    settings = kopf_adapter.make_settings(informer)
    assert settings.posting.enabled is False
    assert settings.persistence.finalizer.startswith("agentoperator.dev/")
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert settings.queueing.worker_limit is None
