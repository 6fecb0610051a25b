"""Asking every ready replica how it is. Layer: shell; imports aiohttp and the monitor.

The one idea: one heap of who is due, and a short task for each question. The period is two seconds as long
as that stays below RATE questions a second, and longer for a larger fleet, so the cost has a bound of its
own: a thousand replicas are asked every two seconds, five thousand every ten.
Replicas of an agent that the operator scales are asked to answer when their load changes (a long poll), so a
jump is known at once without asking more often. Who has never answered is asked less and less.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from agent_operator.observability.metrics import Metrics
from agent_operator.shell.monitor import Monitor, Replica
from agent_operator.shell.snapshots import Key
from agent_runtime.stats import Stats

PERIOD_SECONDS = 2.0
RATE = 500.0
"""Questions a second, whatever the number of replicas."""
TIMEOUT_SECONDS = 2.0
AGAIN_SECONDS = 0.5
"""Pause before a replica that did not answer is asked again."""
SPACING_SECONDS = 0.25
"""Shortest pause between two long polls of one replica."""
LONGEST_PAUSE_SECONDS = 60.0
LARGEST_ANSWER = 64 * 1024
ANY_NUMBER = 0
"""Connections are bounded by RATE and the time an answer may take, and by one for each long poll."""


@dataclass(slots=True)
class _Asked:
    """One replica in the schedule."""

    replica: Replica
    failures: int = 0
    ever: bool = False
    """It has answered once."""


class Sampler:
    """Samples what the monitor knows of; run `run` while leading."""

    def __init__(
        self,
        monitor: Monitor,
        metrics: Metrics,
        *,
        new_session: Callable[[int], aiohttp.ClientSession],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._monitor = monitor
        self._metrics = metrics
        self._new_session = new_session
        self._jitter = jitter
        self._asked: dict[Key, dict[str, _Asked]] = {}
        self._number = 0
        self._due: list[tuple[float, int, Key, str, _Asked]] = []
        self._tickets = itertools.count()
        self._news = asyncio.Event()
        monitor.on_replicas = self.replicas

    @property
    def period(self) -> float:
        """Seconds between two questions to one replica."""
        return max(PERIOD_SECONDS, self._number / RATE)

    def replicas(self, key: Key, now_there: tuple[Replica, ...]) -> None:
        """The ready replicas of an agent are these."""
        before = self._asked.pop(key, {})
        kept = {}
        for replica in now_there:
            asked = before.get(replica.name)
            if asked is None or asked.replica != replica:
                asked = _Asked(replica)
                self._schedule(key, asked, 0.0)
            kept[replica.name] = asked
        self._number += len(kept) - len(before)
        if kept:
            self._asked[key] = kept

    async def run(self) -> None:
        """Ask until cancelled."""
        async with self._new_session(ANY_NUMBER) as session, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tick(), name="monitor-tick")
            while True:
                now = _now()
                while self._due and self._due[0][0] <= now:
                    _, _, key, name, asked = heapq.heappop(self._due)
                    if self._asked.get(key, {}).get(name) is asked:
                        tasks.create_task(self._ask(session, key, asked), name="sample")
                self._news.clear()
                wait = self._due[0][0] - now if self._due else None
                try:
                    async with asyncio.timeout(wait):
                        await self._news.wait()
                except TimeoutError:
                    pass

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._monitor.tick()

    async def _ask(self, session: aiohttp.ClientSession, key: Key, asked: _Asked) -> None:
        replica, started = asked.replica, _now()
        wait = self.period if asked.ever and self._monitor.is_scaled(key) else 0.0
        params = {}
        if wait:
            params = {"wait": f"{wait:g}", "load": str(self._monitor.load_of(key, replica.name))}
        stats: Stats | None = None
        result = "answered"
        try:
            async with session.get(
                replica.stats_url, params=params, timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS + wait)
            ) as response:
                body = await response.content.read(LARGEST_ANSWER)
                stats = Stats.decode(body) if response.status == 200 else None
                result = "answered" if stats is not None else "strange"
        except (aiohttp.ClientError, TimeoutError, OSError):
            result = "silent"
        self._metrics.samples.labels(result).inc()
        if self._asked.get(key, {}).get(replica.name) is not asked:
            return
        self._note(key, asked, stats, started, longpoll=wait > 0)

    def _note(self, key: Key, asked: _Asked, stats: Stats | None, started: float, *, longpoll: bool) -> None:
        spent = _now() - started
        if stats is not None:
            asked.failures, asked.ever = 0, True
            self._monitor.answered(key, asked.replica.name, stats)
            spacing = max(SPACING_SECONDS, self.period / 8)
            pause = max(spacing - spent, 0.0) if longpoll else self._jittered(self.period) - spent
        else:
            asked.failures += 1
            soon = self._monitor.missed(key, asked.replica.name)
            doubled = AGAIN_SECONDS * 2.0 ** min(asked.failures, 20)
            pause = AGAIN_SECONDS if soon else self._jittered(min(doubled, LONGEST_PAUSE_SECONDS))
        self._schedule(key, asked, max(pause, 0.0))

    def _jittered(self, seconds: float) -> float:
        """Ten percent either way, so that a fleet that started together does not stay together."""
        return seconds * (0.9 + 0.2 * self._jitter())

    def _schedule(self, key: Key, asked: _Asked, pause: float) -> None:
        entry = (_now() + pause, next(self._tickets), key, asked.replica.name, asked)
        heapq.heappush(self._due, entry)
        if self._due[0] is entry:
            self._news.set()


def _now() -> float:
    return asyncio.get_running_loop().time()
