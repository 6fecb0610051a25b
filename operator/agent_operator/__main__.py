"""The operator's entry point. Layer: top; the only place that knows every other part.

The one idea: wiring only. Settings are checked before anything else; a first SIGTERM or SIGINT stops
gracefully within 30 s, a second one at once. Exit codes: 0 stopped, 1 lost the lease or the watches
(start me again), 2 misconfigured.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from agent_operator.controller import kopf_adapter
from agent_operator.controller.cache import Cache
from agent_operator.controller.informer import Informer
from agent_operator.controller.leader import LeaderElector, LeadershipLostError, Timing, machine_clock
from agent_operator.controller.manager import EndedError, Manager, Parts
from agent_operator.controller.queue import Priority, WorkQueue
from agent_operator.controller.resync import resync
from agent_operator.controller.worker import Workers
from agent_operator.core.reconcile import reconcile
from agent_operator.core.snapshot import Defaults
from agent_operator.observability.logging import configure_logging
from agent_operator.observability.metrics import Metrics
from agent_operator.observability.probes import ProbeServer
from agent_operator.program_settings import SettingsError
from agent_operator.settings import Settings, load_settings
from agent_operator.shell.connection import Connection, direct_session
from agent_operator.shell.credentials import NoClusterError, load_credentials, own_namespace
from agent_operator.shell.execute import Executor
from agent_operator.shell.gateways import Gateways
from agent_operator.shell.http_kube import HttpKube
from agent_operator.shell.kinds import AGENT, POD, SCALED_OBJECT, selector_of, watched
from agent_operator.shell.monitor import Monitor
from agent_operator.shell.placing import Placing
from agent_operator.shell.pod_warnings import PodWarnings
from agent_operator.shell.ports import Ports
from agent_operator.shell.reconciler import Reconciler
from agent_operator.shell.recorder import Recorder
from agent_operator.shell.sampler import Sampler
from agent_operator.shell.snapshots import Key, ReadyState, index_values, key_of, trim, unseen
from agent_operator.stopping import stop_on_signals

logger = logging.getLogger("agent_operator")

STOPPED, FAILED, MISCONFIGURED = 0, 1, 2
UNREACHABLE_SECONDS = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the operator; returns the exit code."""
    try:
        settings = load_settings(sys.argv[1:] if arguments is None else arguments, os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return MISCONFIGURED
    configure_logging(settings.log_level)
    return asyncio.run(run(settings))


async def run(settings: Settings) -> int:
    """Run until a signal arrives or a part fails; returns the exit code."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    stop_on_signals(stopping, logger)
    metrics = Metrics()
    metrics.set_build_info(_version())
    metrics.tasks.set_function(lambda: len(asyncio.all_tasks(loop)))
    try:
        connection = Connection(await load_credentials(), metrics)
    except NoClusterError as error:
        logger.error("%s", error)
        return MISCONFIGURED
    try:
        return await _serve(settings, connection, metrics, stopping)
    finally:
        await connection.close()


async def _serve(
    settings: Settings, connection: Connection, metrics: Metrics, stopping: asyncio.Event
) -> int:
    parts = _wire(settings, connection, metrics, stopping)
    manager = Manager(parts)

    def ready() -> str:
        silence = connection.seconds_since_answer()
        if settings.leader_elect and (silence is None or silence > UNREACHABLE_SECONDS):
            return "the API server does not answer"
        return manager.problem

    probes = ProbeServer(
        metrics.registry,
        healthy=lambda: "" if parts.workers.healthy() else "a reconcile is stuck",
        ready=ready,
        host=settings.http_host,
        port=settings.http_port,
    )
    try:
        await probes.start()
    except OSError as error:
        logger.error("cannot listen on port %d: %s. Set --http-port", settings.http_port, error)
        return MISCONFIGURED
    logger.info(
        "started version %s, API server %s, probes and metrics on port %d",
        _version(), connection.server, probes.port,
    )  # fmt: skip
    try:
        await manager.run(stopping)
    except (LeadershipLostError, EndedError, kopf_adapter.WatchesStoppedError) as error:
        logger.error("ending, to be started again: %s", error)
        return FAILED
    finally:
        await probes.stop()
    logger.info("stopped")
    return STOPPED


def _wire(settings: Settings, connection: Connection, metrics: Metrics, stopping: asyncio.Event) -> Parts:
    identity = f"{socket.gethostname()}_{secrets.token_hex(4)}"
    cache = Cache(trim=trim, index_values=index_values)
    queue: WorkQueue[Key] = WorkQueue(metrics)
    informer: Informer[Key] = Informer(
        cache, queue, metrics,
        key_of=key_of, kinds=watched(keda=settings.keda_enabled),
        selector_of=partial(selector_of, shard=settings.shard),
        namespaces=settings.watch_namespaces, background=(POD,), optional=(SCALED_OBJECT,),
        unseen=unseen,
    )  # fmt: skip
    elector = None
    if settings.leader_elect:
        elector = LeaderElector(
            HttpKube(connection),  # not fenced: it is how the lease is won; its own writes name a version
            namespace=settings.lease_namespace or own_namespace() or "default",
            name=settings.shard_lease_name,
            identity=identity,
            timing=Timing(settings.lease_seconds, settings.renew_seconds, settings.retry_seconds),
            clock=machine_clock,
        )
    kube = HttpKube(connection, fence=elector.write_seconds if elector else None)
    gateways = bool(settings.gateway_service)
    monitor = Monitor(
        metrics,
        clock=time.time,
        wake=lambda key, urgent: queue.add(key, Priority.NORMAL if urgent else Priority.LOW),
        pod=lambda namespace, name: cache.get(POD, namespace, name),
        ports=Ports(cache) if gateways else None,
    )
    metrics.measure_agents_with(monitor.measured)
    reconciler = Reconciler(
        store=cache,
        executor=Executor(kube, cache, metrics),
        warnings=PodWarnings(kube),
        signals=monitor,
        recorder=Recorder(kube, metrics, instance=identity, clock=time.monotonic),
        decide=reconcile,
        defaults=Defaults(
            runtime_image=settings.runtime_image,
            keda_prometheus_address=settings.keda_prometheus_address if settings.keda_enabled else None,
        ),
        now=lambda: datetime.now(UTC),
        clock=time.monotonic,
    )
    metrics.count_agents_with(lambda: count_by_ready(cache))
    return Parts(
        kube=kube,
        informer=informer,
        queue=queue,
        workers=Workers(
            queue, reconciler.reconcile, metrics,
            count=settings.workers, timeout=settings.reconcile_timeout_seconds,
        ),
        watch=lambda: kopf_adapter.watch(
            informer,
            server=connection.server,
            new_session=connection.new_session,
            on_started=lambda: stop_on_signals(stopping, logger),
        ),
        resync=lambda: resync(
            kube, informer, queue, lambda: _keys(cache), period=settings.resync_seconds
        ),
        elector=elector,
        on_leading=metrics.leader.labels(settings.shard_lease_name).set,
        alongside=_watchers(settings, kube, queue, monitor, metrics),
    )  # fmt: skip


def _watchers(
    settings: Settings, kube: HttpKube, queue: WorkQueue[Key], monitor: Monitor, metrics: Metrics
) -> list[Callable[[], Awaitable[None]]]:
    """Who asks replicas, gateways and nodes."""

    def gateways_changed() -> None:
        for key in monitor.behind_gateway():
            queue.add(key, Priority.LOW)

    found: list[Callable[[], Awaitable[None]]] = [
        Sampler(monitor, metrics, new_session=direct_session).run,
        Placing(kube, monitor, namespaces=settings.watch_namespaces).run,
    ]
    if settings.gateway_service:
        gateways = Gateways(
            kube,
            monitor,
            namespace=settings.lease_namespace or own_namespace() or "default",
            service=settings.gateway_service,
            new_session=direct_session,
            on_change=gateways_changed,
        )
        found.append(gateways.run)
    return found


def count_by_ready(cache: Cache) -> Mapping[tuple[str, str], int]:
    """Number of AgentDeployments by (status, reason) of their Ready condition."""
    sizes = cache.index_sizes().items()
    return {(value.status, value.reason): size for value, size in sizes if isinstance(value, ReadyState)}


def _keys(cache: Cache) -> list[Key]:
    return [Key(*name) for name in cache.names(AGENT)]


def _version() -> str:
    try:
        return importlib.metadata.version("agent-operator")
    except importlib.metadata.PackageNotFoundError:
        return "0.0.0+source"


if __name__ == "__main__":
    sys.exit(main())
