"""One operator process: the real parts, wired as `__main__` wires them. Layer: tests.

The one idea: nothing of the product is replaced but what it is replaced by in reality when the process ends:
the wire, the watches and the clock. Killing a process loses everything it knew and nothing it had sent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from agent_operator.controller.cache import Cache
from agent_operator.controller.informer import Informer
from agent_operator.controller.leader import LeaderElector, Timing
from agent_operator.controller.manager import Manager, Parts
from agent_operator.controller.queue import WorkQueue
from agent_operator.controller.resync import resync
from agent_operator.controller.worker import Workers
from agent_operator.core.plan import Plan
from agent_operator.core.reconcile import reconcile
from agent_operator.core.signals import Signals
from agent_operator.core.snapshot import Defaults, Snapshot
from agent_operator.observability.metrics import Metrics
from agent_operator.shell.execute import Executor
from agent_operator.shell.kinds import AGENT, POD, WATCHED, Kind, selector_of
from agent_operator.shell.kube import Listing
from agent_operator.shell.pod_warnings import PodWarnings
from agent_operator.shell.reconciler import Reconciler
from agent_operator.shell.recorder import Recorder
from agent_operator.shell.snapshots import Key, index_values, key_of, trim
from tests.fakes.signals import NoSignals
from tests.fault.journal import Journal, Watches
from tests.fault.wire import Wire
from tests.property.world import START

RESYNC_SECONDS = 120.0
IMAGE = "registry.example.com/runtime:1"
TIMING = Timing(lease=40.0, renew=30.0, retry=12.0)
"""Longer than usual: renewals cost time here, waiting does not."""

_METRICS = Metrics()


class Process:
    """An operator process. `past`: what its first lists answer; `decided` hears of every decision."""

    def __init__(
        self,
        name: str,
        journal: Journal,
        wire: Wire,
        rng: random.Random,
        *,
        lag: Callable[[], float],
        decided: Callable[[Process, Snapshot, Plan], None],
        past: dict[Kind, Listing] | None = None,
        elects: bool = True,
    ) -> None:
        self.name = name
        self.wire = wire
        self.stopping = asyncio.Event()
        self.cache = Cache(trim=trim, index_values=index_values)
        # A stale API server answers the operator's list and the watch's own one.
        wire.past = {kind: [listing] * 2 for kind, listing in (past or {}).items()}
        queue: WorkQueue[Key] = WorkQueue(_METRICS, jitter=rng.random)
        informer: Informer[Key] = Informer(
            self.cache, queue, _METRICS,
            key_of=key_of, kinds=WATCHED, selector_of=selector_of, namespaces=(), background=(POD,),
        )  # fmt: skip
        self.watches = Watches(journal, informer, lag)
        self._decided = decided
        self.elector: LeaderElector | None = None
        if elects:
            self.elector = LeaderElector(
                wire, namespace="ops", name="lease", identity=name, timing=TIMING, jitter=rng.random
            )
            wire.fence = self.elector.write_seconds
        reconciler = Reconciler(
            store=self.cache,
            executor=Executor(wire, self.cache, _METRICS),
            warnings=PodWarnings(wire),
            signals=NoSignals(Signals(free_port=20_000, gateways=("10.9.0.1",))),
            recorder=Recorder(wire, _METRICS, instance=name, clock=_clock, now=_now),
            decide=self._decide,
            defaults=Defaults(runtime_image=IMAGE),
            now=_now,
            clock=_clock,
        )
        workers = Workers(queue, reconciler.reconcile, _METRICS, count=2, timeout=60.0)
        self._manager = Manager(
            Parts(
                kube=wire,
                informer=informer,
                queue=queue,
                workers=workers,
                watch=lambda: self.watches.run(wire),
                resync=lambda: resync(
                    wire, informer, queue, self._keys, period=RESYNC_SECONDS, jitter=rng.random
                ),
                elector=self.elector,
                on_leading=lambda leads: None,
            )
        )
        self.task: asyncio.Task[Any] = asyncio.create_task(self._manager.run(self.stopping), name=name)

    def kill(self) -> None:
        """End without any last word. What is under way on the wire goes on."""
        self.wire.dead = True
        self.watches.stop()
        self.task.cancel()

    def _decide(self, snapshot: Snapshot, now: datetime) -> Plan:
        plan = reconcile(snapshot, now)
        self.wire.decided_at = _clock()
        self._decided(self, snapshot, plan)
        return plan

    def _keys(self) -> list[Key]:
        return [Key(*name) for name in self.cache.names(AGENT)]


def _clock() -> float:
    return asyncio.get_running_loop().time()


def _now() -> datetime:
    return START + timedelta(seconds=_clock())
