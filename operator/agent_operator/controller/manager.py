"""Running it all in the right order. Layer: controller; knows nothing of agents.

The one idea: start as lease, list, watch and work; stop in the reverse order, so that work in progress
ends under the lease and the lease is released last. A process that loses its lease does not come back to
life: it ends, and Kubernetes starts it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from agent_operator.controller.informer import Informer
from agent_operator.controller.leader import LeaderElector
from agent_operator.controller.queue import WorkQueue
from agent_operator.controller.worker import Workers
from agent_operator.shell.kube import Kube, KubeError, NotFoundError

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 15.0
SYNC_RETRY_SECONDS = 5.0


class EndedError(Exception):
    """A part that must run for ever ended by itself."""


@dataclass(slots=True)
class Parts:
    """What the manager runs. `elector` None: act without a lease."""

    kube: Kube
    informer: Informer[Any]
    queue: WorkQueue[Any]
    workers: Workers[Any]
    watch: Callable[[], Awaitable[None]]
    resync: Callable[[], Awaitable[None]]
    elector: LeaderElector | None
    on_leading: Callable[[bool], None]
    alongside: Sequence[Callable[[], Awaitable[None]]] = ()
    """What else runs for ever once the cache is filled."""


class Manager:
    """Runs until told to stop. `problem` says why it is not ready, empty when it is."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._leading = False
        self._quiet = True
        self._sync_error = ""

    @property
    def problem(self) -> str:
        """Why the leader cannot work yet; a standby has no problem."""
        if not self._leading or self._parts.informer.synced:
            return ""
        return self._sync_error or "the caches are not filled yet"

    async def run(self, stopping: asyncio.Event) -> None:
        """Run until `stopping` is set, then stop gracefully.

        Raises:
            LeadershipLostError: the lease could not be kept.
            EndedError: the watches or the workers ended by themselves.
        """
        stop = asyncio.create_task(stopping.wait(), name="stop")
        try:
            if not await self._acquired(stop):
                return
            self._leading = True
            self._parts.on_leading(True)
            await self._act(stop)
        finally:
            stop.cancel()
            self._parts.on_leading(False)
            # A write cut off in the middle may still be carried out: then the lease has to run out first.
            if self._parts.elector is not None and self._quiet:
                await self._parts.elector.release()

    async def _acquired(self, stop: asyncio.Task[Any]) -> bool:
        if self._parts.elector is None:
            return not stop.done()
        acquire = asyncio.create_task(self._parts.elector.acquire(), name="acquire")
        await asyncio.wait({acquire, stop}, return_when=asyncio.FIRST_COMPLETED)
        await _cancel(acquire)
        return not stop.done()

    async def _act(self, stop: asyncio.Task[Any]) -> None:
        parts = self._parts
        hold = _start(parts.elector.hold() if parts.elector else _forever(), "lease")
        feed = _start(self._feed(), "watch")
        work = _start(parts.workers.run(), "workers")
        try:
            done, _ = await asyncio.wait({stop, hold, feed, work}, return_when=asyncio.FIRST_COMPLETED)
            if stop in done:
                logger.info("stopping: no new work, up to %g s for what is in progress", DRAIN_SECONDS)
                return
            for task in done:
                if (error := task.exception()) is not None:
                    raise error
            raise EndedError(f"{next(iter(done)).get_name()} ended by itself")
        finally:
            # Whatever ended us: no new work, and what is in progress ends under the lease.
            parts.queue.close()
            await asyncio.gather(_cancel(feed), _first_of({work, hold}, DRAIN_SECONDS))
            self._quiet = work.done() and not work.cancelled() and work.exception() is None
            await _cancel(work, hold)

    async def _feed(self) -> None:
        """Fill the cache, then keep it filled."""
        parts = self._parts
        loop = asyncio.get_running_loop()
        started = loop.time()
        while True:
            try:
                news = await parts.informer.sync(parts.kube)
                break
            except KubeError as error:
                hint = " (are the CRDs installed?)" if isinstance(error, NotFoundError) else ""
                self._sync_error = f"cannot list objects{hint}: {error}"
                logger.warning("%s", self._sync_error)
                await asyncio.sleep(SYNC_RETRY_SECONDS)
        logger.info("cache filled: %d objects in %.3f s", news, loop.time() - started)
        await _first_to_end(parts.watch(), parts.resync(), *(part() for part in parts.alongside))


async def _first_to_end(*parts: Awaitable[None]) -> None:
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await _cancel(*tasks)


def _start(work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    return asyncio.create_task(work, name=name)


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel and wait; errors of tasks that are being thrown away are not interesting."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _first_of(tasks: set[asyncio.Task[Any]], seconds: float) -> None:
    """Wait until one of the tasks ends, at most so many seconds."""
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)


async def _forever() -> None:
    await asyncio.Event().wait()
