"""The whole process, told by a kubeconfig of an API server of the test's own, which speaks of slices only."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from agent_operator.api.gateway import Demand, Route
from agent_operator.shell.kube import Object
from tests.support.gateway import DEADLINE, endpoint, free_port, our_slice, replica, slice_of

ROOT = Path(__file__).parents[3]
GROUP = "discovery.k8s.io/v1"
SLICES = f"/apis/{GROUP}/endpointslices"


def _resource(plural: str, kind: str, *, namespaced: bool) -> dict[str, Any]:
    """An entry of discovery; kopf watches nothing before it has seen that there are namespaces."""
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    return {
        "name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": namespaced, "verbs": verbs,
    }  # fmt: skip


class SliceServer:
    """List, watch and discovery of EndpointSlices, and a record of everything that was asked."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.asked: list[str] = []
        self._watchers: list[asyncio.Queue[Object]] = []

    def put(self, obj: Object) -> None:
        self.objects[obj["metadata"]["name"]] = obj
        for watcher in self._watchers:
            watcher.put_nowait({"type": "MODIFIED", "object": obj})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        if request.path == SLICES and request.query.get("watch"):
            return await self._watch(request)
        if request.path == SLICES:
            version = max(
                (int(one["metadata"]["resourceVersion"]) for one in self.objects.values()), default=1
            )
            body: Any = {
                "kind": "EndpointSliceList", "apiVersion": GROUP,
                "metadata": {"resourceVersion": str(version)}, "items": list(self.objects.values()),
            }  # fmt: skip
        elif request.path == "/apis":
            version = {"groupVersion": GROUP, "version": "v1"}
            group = {"name": "discovery.k8s.io", "versions": [version], "preferredVersion": version}
            body = {"groups": [group]}
        elif request.path == f"/apis/{GROUP}":
            body = {"resources": [_resource("endpointslices", "EndpointSlice", namespaced=True)]}
        elif request.path == "/api":
            body = {"versions": ["v1"]}
        elif request.path == "/api/v1":
            body = {"resources": [_resource("namespaces", "Namespace", namespaced=False)]}
        else:
            return web.json_response({"kind": "Status", "code": 403, "message": "no"}, status=403)
        return web.json_response(body)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        news: asyncio.Queue[Object] = asyncio.Queue()
        self._watchers.append(news)
        while True:
            await response.write(json.dumps(await news.get()).encode() + b"\n")


@asynccontextmanager
async def slices() -> AsyncIterator[tuple[SliceServer, str]]:
    it = SliceServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", it.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield it, f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def kubeconfig(folder: Path, server: str) -> Path:
    path = folder / "kubeconfig"
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": server}}],
        "users": [{"name": "it", "user": {"token": "abc"}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    }))  # fmt: skip
    return path


async def ready(session: aiohttp.ClientSession, url: str, status: int = 200) -> None:
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                async with session.get(url) as answer:
                    if answer.status == status:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.02)


async def test_a_gateway_follows_the_watch_wakes_and_ends_on_sigterm_with_everybody_answered(
    tmp_path: Path,
) -> None:
    route = Route(namespace="team", agent="geo", backend_service="geo", capacity_per_replica=1)
    port, control = free_port(), free_port()
    async with slices() as (server, url), replica() as pod, aiohttp.ClientSession() as session:
        server.put(our_slice(route, port))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agent_operator.gateway", "--listen-host=127.0.0.1",
            "--control-host=127.0.0.1", f"--control-port={control}", "--stop-delay-seconds=0.3",
            "--drain-seconds=10",
            env=os.environ | {
                "KUBECONFIG": str(kubeconfig(tmp_path, url)), "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}",
                "AGENT_GATEWAY_LOG_LEVEL": "info",
            },
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        base = f"http://127.0.0.1:{control}"
        await ready(session, f"{base}/readyz")

        async def ask() -> tuple[int, str]:
            async with session.post(f"http://127.0.0.1:{port}/v1/chat/completions", json={}) as answer:
                return answer.status, answer.headers.get("retry-after", "")

        async def demand() -> Demand:
            async with session.get(f"{base}/demand", params={"wait": "30", "since": "x"}) as answer:
                found = Demand.decode(await answer.read())
            assert found is not None
            return found

        asked = asyncio.create_task(ask())
        while not (await demand()).agents:
            await asyncio.sleep(0.01)
        assert (await demand()).agents["team/geo"].held == 1
        server.put(slice_of("geo-abc", "geo", "geo", pod.port, [endpoint("127.0.0.1", "one")]))
        assert await asyncio.wait_for(asked, DEADLINE) == (200, "")

        server.put(slice_of("geo-abc", "geo", "geo", pod.port, []))
        asked = asyncio.create_task(ask())
        while not (await demand()).agents["team/geo"].held:
            if asked.done():  # the gateway had not heard of it yet
                asked = asyncio.create_task(ask())
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        await ready(session, f"{base}/readyz", 503)
        assert await asyncio.wait_for(asked, DEADLINE) == (503, "1")
        _, log = await asyncio.wait_for(process.communicate(), DEADLINE)
        assert process.returncode == 0, log.decode()[-3000:]
        lines = [json.loads(line) for line in log.decode().splitlines()]
        assert {line["level"] for line in lines} == {"info"}, lines
        assert {line.split()[0] for line in server.asked} == {"GET"}, "it writes nothing"
