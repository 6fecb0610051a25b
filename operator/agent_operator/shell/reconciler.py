"""One reconcile: look, decide, act. Layer: shell; imports core and the rest of the shell.

The one idea: look at the cache, ask the core, write what it says. The order of acting is fixed: children,
then the status that tells about them, then events. The core is asked once more before anything is written
when it wants to know what the cluster said about some pods, and before the status is written when the API
server refused something new, so the status tells the refusal it caused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from agent_operator.core.plan import Plan
from agent_operator.core.snapshot import ApplyFailure, Defaults, Snapshot
from agent_operator.observability.logging import add_to_context
from agent_operator.shell.execute import PERMANENT, Executor
from agent_operator.shell.kinds import AGENT
from agent_operator.shell.kube import Object
from agent_operator.shell.pod_warnings import PodWarnings
from agent_operator.shell.recorder import Recorder
from agent_operator.shell.snapshots import Key, Store, build_snapshot

logger = logging.getLogger(__name__)

Decide = Callable[[Snapshot, datetime], Plan]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the queue is to do with the key: `retry` with backoff, or again after seconds, or nothing.

    With both, the backoff is capped by `requeue_after`.
    """

    retry: bool = False
    requeue_after: float | None = None


class Reconciler:
    """Reconciles any AgentDeployment by key. Remembers only what was refused, per key."""

    def __init__(
        self,
        *,
        store: Store,
        executor: Executor,
        recorder: Recorder,
        warnings: PodWarnings,
        decide: Decide,
        defaults: Defaults,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._executor = executor
        self._recorder = recorder
        self._warnings = warnings
        self._decide = decide
        self._defaults = defaults
        self._now = now
        self._blocked: dict[Key, tuple[ApplyFailure, ...]] = {}

    async def reconcile(self, key: Key) -> Outcome:
        """Bring one agent a step nearer to its spec.

        Raises:
            KubeError: the API server is unavailable or refuses a status.
            FencedError: leadership ended in between.
        """
        agent = self._store.get(AGENT, *key)
        if agent is None:
            self._blocked.pop(key, None)
            return Outcome()
        add_to_context(generation=agent["metadata"].get("generation"))
        plan = self._plan(key, agent)
        warnings: tuple[Object, ...] = ()
        if plan.inspect and (warnings := await self._warnings.about(plan.inspect)):
            plan = self._plan(key, agent, warnings)
        written = await self._executor.write(agent, plan.writes)
        if written.stale:
            logger.info("decided on an outdated view, deciding again: %s", written.stale)
            return Outcome(retry=True)
        failures = tuple(written.failures)
        if failures != self._blocked.get(key, ()):
            self._remember(key, failures)
            plan = self._plan(key, agent, warnings)
        if plan.status is not None and not await self._executor.write_status(agent, plan.status):
            return Outcome(retry=True)
        await self._recorder.record(agent, plan.events)
        if written.writes or failures:
            logger.info("reconciled: %s", plan.why)
        # After a write the next decision must find nothing to do. Asking with backoff means that an
        # object somebody else keeps changing back costs ever less instead of a hot loop.
        retry = bool(written.writes) or any(f.code not in PERMANENT for f in failures)
        return Outcome(retry=retry, requeue_after=plan.requeue_after)

    def _plan(self, key: Key, agent: Object, warnings: tuple[Object, ...] = ()) -> Plan:
        blocked = self._blocked.get(key, ())
        snapshot = build_snapshot(self._store, agent, self._defaults, blocked, warnings)
        return self._decide(snapshot, self._now())

    def _remember(self, key: Key, failures: tuple[ApplyFailure, ...]) -> None:
        if failures:
            self._blocked[key] = failures
            for failure in failures:
                logger.warning("refused (%s): %s", failure.code, failure.message)
        else:
            self._blocked.pop(key, None)
