"""Workers that take keys and reconcile them. Layer: controller; knows nothing of agents.

The one idea: nothing a reconcile does may stop its worker. What it raises becomes a log line, a metric
and a backoff; what cannot succeed by repetition waits for the next change instead. After each reconcile its
key rests, so that the news of one moment (our own writes come back as several events) is one piece of work;
who keeps putting the same object right against somebody else rests longer each time.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Protocol, TypeVar

from agent_operator.controller.queue import Backoff, Priority, QueueClosedError, WorkQueue
from agent_operator.observability.logging import log_context
from agent_operator.observability.metrics import CONTROLLER_NAME, Metrics
from agent_operator.shell.kube import InvalidError, KubeError

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


REST_SECONDS = 0.3
LONGEST_REST_SECONDS = 10.0


class Result(Protocol):
    """What a reconcile asks for: again with backoff, or again after seconds, or nothing.

    `patient`: whoever asks for it can wait behind changes. `repeated`: it wrote what it had written before.
    """

    @property
    def retry(self) -> bool: ...
    @property
    def requeue_after(self) -> float | None: ...
    @property
    def patient(self) -> bool: ...
    @property
    def repeated(self) -> bool: ...


class Workers(Generic[K]):
    """A pool of `count` workers; one reconcile may take `timeout` seconds."""

    def __init__(
        self,
        queue: WorkQueue[K],
        reconcile: Callable[[K], Awaitable[Result]],
        metrics: Metrics,
        *,
        count: int,
        timeout: float,
    ) -> None:
        self._queue = queue
        self._reconcile = reconcile
        self._metrics = metrics
        self._count = count
        self._timeout = timeout
        self._rests: Backoff[K] = Backoff(first=REST_SECONDS, longest=LONGEST_REST_SECONDS)

    async def run(self) -> None:
        """Work until the queue is closed and what was in progress has ended."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._work(), name=f"worker-{number}")

    def healthy(self) -> bool:
        """Whether no reconcile is stuck beyond its timeout, cancellation included."""
        return self._queue.longest_running() < 2 * self._timeout + 10

    async def _work(self) -> None:
        while True:
            try:
                key = await self._queue.get()
            except QueueClosedError:
                return
            self._metrics.active_workers.inc()
            rest = 0.0
            try:
                with (
                    log_context(object=str(key), reconcileID=secrets.token_hex(4)),
                    self._metrics.reconcile_seconds.time(),
                ):
                    result, rest = await self._process(key)
                self._metrics.reconciles.labels(CONTROLLER_NAME, result).inc()
            finally:
                self._metrics.active_workers.dec()
                self._queue.done(key, rest)
            # A key that needed no request has let nobody else run: neither the lease nor the probes.
            await asyncio.sleep(0)

    async def _process(self, key: K) -> tuple[str, float]:
        """How it went, and for how many seconds the key is to rest."""
        try:
            async with asyncio.timeout(self._timeout):
                outcome = await self._reconcile(key)
        except Exception as error:
            return self._failed(key, error), 0.0
        if outcome.retry:
            self._queue.retry(key, outcome.requeue_after)
            return "requeue", REST_SECONDS
        self._queue.forget(key)
        rest = REST_SECONDS
        if outcome.repeated:
            rest = self._rests.next(key)
        else:
            self._rests.forget(key)
        if outcome.requeue_after is not None:
            priority = Priority.LOW if outcome.patient else Priority.NORMAL
            self._queue.add_after(key, outcome.requeue_after, priority)
            return "requeue_after", rest
        return "success", rest

    def _failed(self, key: K, error: Exception) -> str:
        self._metrics.reconcile_errors.inc()
        if isinstance(error, InvalidError):
            # Only a changed object can help, and that adds the key by itself; so does the slow resync.
            self._queue.forget(key)
            logger.error("reconcile failed, waiting for a change: %s", error)
            return "terminal"
        delay = self._queue.retry(key)
        if isinstance(error, TimeoutError):
            logger.error("reconcile took more than %g s, again in %.3f s", self._timeout, delay)
        else:
            # What the API server says is an answer; anything else is a bug and needs its traceback.
            bug = not isinstance(error, KubeError)
            logger.error("reconcile failed, again in %.3f s: %r", delay, error, exc_info=bug)
        return "error"
