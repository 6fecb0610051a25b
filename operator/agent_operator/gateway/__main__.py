"""The gateway's entry point. Layer: top; `python -m agent_operator.gateway`, or `agent-gateway`.

The one idea: wiring only, as the operator's. Exit codes: 0 stopped, 1 lost the watches (start me again),
2 misconfigured. A second SIGTERM or SIGINT ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import secrets
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvloop

from agent_operator.controller import kopf_adapter
from agent_operator.controller.cache import Cache
from agent_operator.controller.informer import Informer
from agent_operator.controller.queue import WorkQueue
from agent_operator.controller.resync import resync
from agent_operator.gateway.directory import Key, index_values, key_of, trim
from agent_operator.gateway.keys import SecretKeys
from agent_operator.gateway.server import Gateway
from agent_operator.gateway.settings import GatewaySettings, load_settings
from agent_operator.observability.logging import configure_logging
from agent_operator.observability.metrics import Metrics
from agent_operator.observability.probes import ProbeServer
from agent_operator.program_settings import SettingsError
from agent_operator.shell.connection import Connection
from agent_operator.shell.credentials import NoClusterError, load_credentials
from agent_operator.shell.http_kube import HttpKube
from agent_operator.shell.kinds import ENDPOINT_SLICE, selector_of_all_slices
from agent_operator.shell.kube import KubeError
from agent_operator.stopping import stop_on_signals

logger = logging.getLogger("agent_operator.gateway")

STOPPED, FAILED, MISCONFIGURED = 0, 1, 2
SYNC_RETRY_SECONDS = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the gateway; returns the exit code."""
    try:
        settings = load_settings(sys.argv[1:] if arguments is None else arguments, os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return MISCONFIGURED
    configure_logging(settings.log_level)
    _allow_connections()
    return uvloop.run(run(settings))


async def run(settings: GatewaySettings) -> int:
    """Run until a signal arrives or the watches fail; returns the exit code."""
    stopping = asyncio.Event()
    stop_on_signals(stopping, logger)
    metrics = Metrics()
    try:
        connection = Connection(await load_credentials(), metrics)
    except NoClusterError as error:
        logger.error("%s", error)
        return MISCONFIGURED
    try:
        return await _serve(settings, connection, metrics, stopping)
    finally:
        await connection.close()


@dataclass(frozen=True)
class _Feed:
    """Where the slices come from."""

    connection: Connection
    kube: HttpKube
    cache: Cache
    queue: WorkQueue[Key]
    informer: Informer[Key]
    filled: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, gateway: Gateway, *, resync_seconds: float, on_started: Callable[[], None]) -> None:
        """Fill the cache and open the ports, then follow the watch."""
        while True:
            try:
                await self.informer.sync(self.kube)
                break
            except KubeError as error:
                logger.warning("cannot list EndpointSlices: %s", error)
                await asyncio.sleep(SYNC_RETRY_SECONDS)
        await gateway.fill(self._known())
        self.filled.set()
        logger.info("ports open: %d", sum(1 for _ in gateway.directory.lanes()))
        async with asyncio.TaskGroup() as group:
            group.create_task(
                resync(self.kube, self.informer, self.queue, self._known, period=resync_seconds)
            )
            group.create_task(
                kopf_adapter.watch(
                    self.informer,
                    server=self.connection.server,
                    new_session=self.connection.new_session,
                    on_started=on_started,
                )
            )

    def _known(self) -> list[Key]:
        return [key for key in self.cache.index_sizes() if isinstance(key, Key)]


def _feed(settings: GatewaySettings, connection: Connection, metrics: Metrics) -> _Feed:
    cache = Cache(trim=trim, index_values=index_values)
    queue: WorkQueue[Key] = WorkQueue(metrics)
    informer: Informer[Key] = Informer(
        cache, queue, metrics,
        key_of=key_of, kinds=(ENDPOINT_SLICE,), namespaces=settings.watch_namespaces,
        selector_of=lambda kind: selector_of_all_slices(settings.shard),
    )  # fmt: skip
    return _Feed(connection, HttpKube(connection), cache, queue, informer)


async def _serve(
    settings: GatewaySettings, connection: Connection, metrics: Metrics, stopping: asyncio.Event
) -> int:
    feed = _feed(settings, connection, metrics)
    gateway = Gateway(
        feed.cache, feed.queue, SecretKeys(feed.kube.get), metrics.registry,
        host=settings.listen_host, instance=secrets.token_hex(4),
    )  # fmt: skip

    def ready() -> str:
        if gateway.stopping:
            return "stopping"
        return "" if feed.filled.is_set() else "the cache is not filled yet"

    control = ProbeServer(
        metrics.registry, healthy=lambda: "", ready=ready,
        host=settings.control_host, port=settings.control_port, routes=gateway.demand.routes(),
    )  # fmt: skip
    try:
        await control.start()
    except OSError as error:
        logger.error("cannot listen on port %d: %s. Set --control-port", settings.control_port, error)
        return MISCONFIGURED
    logger.info("started, API server %s, control port %d", connection.server, control.port)
    watching = feed.run(
        gateway, resync_seconds=settings.resync_seconds, on_started=lambda: stop_on_signals(stopping, logger)
    )
    try:
        asked = await _until_ended(gateway, watching, stopping, settings)
    finally:
        feed.queue.close()
        await control.stop()
    logger.info("stopped")
    return STOPPED if asked else FAILED


async def _until_ended(
    gateway: Gateway, watching: Coroutine[Any, Any, None], stopping: asyncio.Event, settings: GatewaySettings
) -> bool:
    """Run everything, then stop gracefully, also when the watches fail; True if somebody asked for it."""
    tasks = [asyncio.create_task(work) for work in (gateway.run(), watching, stopping.wait())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks[:2]:
        if task.done() and task.exception() is not None:
            logger.error("ending, to be started again", exc_info=task.exception())
    asked = stopping.is_set()
    await gateway.stop(delay=settings.stop_delay_seconds, drain=settings.drain_seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return asked


def _allow_connections() -> None:
    """As many open files as this process may have: each client and each pod's connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
