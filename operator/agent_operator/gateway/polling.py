"""What pods say of themselves. Layer: gateway; imports aiohttp and the runtime's record.

The one idea: only agents are asked about for which it matters now. Ready pods where requests are paced or
balanced, once a second: what have others given them? Pods on their way while somebody waits, ten times a
second: how far are they? The first that says it is ready gets the requests at once: the kubelet asks it only
every second, and its word then passes the API server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import aiohttp

from agent_operator.gateway.core.slices import PodFacts
from agent_operator.gateway.core.wake import progress
from agent_operator.gateway.lane import Lane
from agent_operator.gateway.replicas import Pod
from agent_runtime.stats import Stats

POLL_SECONDS = 1.0
WAKING_SECONDS = 0.1
ANSWER_SECONDS = 2.0
STARTING_POLLED = 4
"""Of many pods that start at once, so many tell enough."""
AT_ONCE = 64


class Polling:
    """Asks /stats of the pods of all lanes."""

    def __init__(self, lanes: Callable[[], Iterable[Lane]]) -> None:
        self._lanes = lanes
        self._served: dict[str, int] = {}
        self._waking: set[str] = set()
        """Agents whose starting pods are being asked."""
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Until cancelled."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(_every(POLL_SECONDS, partial(self._poll_ready, session)), name="poll-ready")
            tasks.create_task(
                _every(WAKING_SECONDS, partial(self._poll_starting, session, tasks)), name="poll-starting"
            )

    async def _poll_ready(self, session: aiohttp.ClientSession) -> None:
        work = []
        for lane in self._lanes():
            ready = lane.replicas.ready
            if ready and (lane.queue or (lane.route.mode == "Always" and self._busy(lane))):
                work += [self._ready(session, lane, pod) for pod in ready]
        await asyncio.gather(*work)

    async def _poll_starting(self, session: aiohttp.ClientSession, tasks: asyncio.TaskGroup) -> None:
        """Without waiting for the answers: a pod that is slow to answer keeps no other agent asleep."""
        for lane in self._lanes():
            key = lane.route.key
            if lane.queue and not lane.replicas.ready and key not in self._waking:
                self._waking.add(key)
                tasks.create_task(self._starting(session, lane), name="starting")

    def _busy(self, lane: Lane) -> bool:
        before = self._served.get(lane.route.key, -1)
        self._served[lane.route.key] = lane.passed
        return len(lane.replicas.ready) > 1 and (lane.in_flight > 0 or lane.passed != before)

    async def _starting(self, session: aiohttp.ClientSession, lane: Lane) -> None:
        pods = lane.replicas.starting
        port = lane.route.admin_port
        try:
            found = await asyncio.gather(*(self._stats(session, pod, port) for pod in pods[:STARTING_POLLED]))
        finally:
            self._waking.discard(lane.route.key)
        farthest = max((stats for stats in found if stats is not None), key=_how_far, default=None)
        lane.progress = progress(len(pods), farthest)
        for pod, stats in zip(pods, found, strict=False):
            if stats is not None and stats.state.lower() == _ORDER[-1]:
                lane.replicas.vouch(pod)

    async def _ready(self, session: aiohttp.ClientSession, lane: Lane, pod: Pod) -> None:
        stats = await self._stats(session, pod.facts, lane.route.admin_port)
        # A pod that does not say is judged by what we gave it.
        pod.others = 0 if stats is None else max(0, stats.load.running + stats.load.waiting - pod.in_flight)
        lane.pump()

    async def _stats(self, session: aiohttp.ClientSession, pod: PodFacts, port: int) -> Stats | None:
        host = f"[{pod.host}]" if ":" in pod.host else pod.host
        async with self._slots:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with session.get(f"http://{host}:{port}/stats") as answer:
                    return Stats.decode(await answer.read()) if answer.status == 200 else None
        return None


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Until cancelled."""
    while True:
        started = asyncio.get_running_loop().time()
        await work()
        elapsed = asyncio.get_running_loop().time() - started
        await asyncio.sleep(max(0.1, seconds - elapsed))


_ORDER = ("starting", "loading", "warming", "ready")


def _how_far(stats: Stats) -> tuple[int, int]:
    state = stats.state.lower()
    done = stats.download.bytes_done if stats.download is not None else 0
    return (_ORDER.index(state) if state in _ORDER else -1, done)
