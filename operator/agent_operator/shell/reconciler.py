"""One reconcile: look, decide, act. Layer: shell; imports core and the rest of the shell.

The one idea: look at the cache, ask the core, write what it says. The order of acting is fixed: children,
then the status that tells about them, then events. The core is asked once more before anything is written
when it wants to know what the cluster said about some pods, and before the status is written when the API
server refused something new, so the status tells the refusal it caused. A status that only reports progress
waits up to NARRATION_SECONDS, and behind changes: often what it would say is out of date by then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from agent_operator.core.plan import Plan
from agent_operator.core.signals import Signals
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

NARRATION_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the queue is to do with the key: `retry` with backoff, or again after seconds, or nothing.

    With both, the backoff is capped by `requeue_after`. `patient`: that can wait behind changes.
    `repeated`: something was written again for a spec for which it had been written before.
    """

    retry: bool = False
    requeue_after: float | None = None
    patient: bool = False
    repeated: bool = False


@dataclass(slots=True)
class _Memory:
    """What is remembered of one agent, and may be lost."""

    blocked: tuple[ApplyFailure, ...] = ()
    """What the API server refused at the last attempt."""
    untold_since: float | None = None
    """When a report of progress was first put off, on the monotonic clock."""
    written_for: int | None = None
    """Generation for which children were written last."""


class SignalSource(Protocol):
    """Who knows of an agent what no object says."""

    def of(self, key: Key, agent: Object, pods: Sequence[Object]) -> Signals:
        """What is known now, after taking note of the agent and its pods."""

    def forget(self, key: Key) -> None:
        """The agent is gone."""


class Reconciler:
    """Reconciles any AgentDeployment by key. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        *,
        store: Store,
        executor: Executor,
        recorder: Recorder,
        warnings: PodWarnings,
        signals: SignalSource,
        decide: Decide,
        defaults: Defaults,
        now: Callable[[], datetime],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._executor = executor
        self._recorder = recorder
        self._warnings = warnings
        self._signals = signals
        self._decide = decide
        self._defaults = defaults
        self._now = now
        self._clock = clock
        self._memories: dict[Key, _Memory] = {}

    async def reconcile(self, key: Key) -> Outcome:
        """Bring one agent a step nearer to its spec.

        Raises:
            KubeError: the API server is unavailable or refuses a status.
            FencedError: leadership ended in between.
        """
        agent = self._store.get(AGENT, *key)
        if agent is None:
            self._memories.pop(key, None)
            self._signals.forget(key)
            return Outcome()
        generation = agent["metadata"].get("generation")
        add_to_context(generation=generation)
        memory = self._memories.setdefault(key, _Memory())
        plan = self._plan(memory, agent)
        warnings: tuple[Object, ...] = ()
        if plan.inspect and (warnings := await self._warnings.about(plan.inspect)):
            plan = self._plan(memory, agent, warnings)
        written = await self._executor.write(agent, plan.writes)
        if written.stale:
            logger.info("decided on an outdated view, deciding again: %s", written.stale)
            return Outcome(retry=True)
        if _note_failures(memory, tuple(written.failures)):
            plan = self._plan(memory, agent, warnings)
        wait = self._narration_wait(memory, plan)
        if plan.status is not None and wait is None:
            if not await self._executor.write_status(agent, plan.status):
                return Outcome(retry=True)
            memory.untold_since = None
            await self._recorder.record(agent, plan.events)
        if written.writes or memory.blocked:
            logger.info("reconciled: %s", plan.why)
        repeated = bool(written.writes) and memory.written_for == generation
        if written.writes:
            memory.written_for = generation
            # The next decision must find nothing to do; that is looked at once, when the rest is told.
            wait = NARRATION_SECONDS if wait is None else wait
        retry = any(failure.code not in PERMANENT for failure in memory.blocked)
        return _outcome(plan, wait, retry=retry, repeated=repeated)

    def _plan(self, memory: _Memory, agent: Object, warnings: tuple[Object, ...] = ()) -> Plan:
        snapshot = build_snapshot(
            self._store, agent, self._defaults,
            blocked=memory.blocked, warnings=warnings, signals=self._signals.of,
        )  # fmt: skip
        return self._decide(snapshot, self._now())

    def _narration_wait(self, memory: _Memory, plan: Plan) -> float | None:
        """For how long the status of a plan can still wait; None: it cannot, or there is none."""
        if plan.status is None or plan.urgent:
            memory.untold_since = None
            return None
        if memory.untold_since is None:
            memory.untold_since = self._clock()
        wait = memory.untold_since + NARRATION_SECONDS - self._clock()
        return wait if wait > 0 else None


def _outcome(plan: Plan, wait: float | None, *, retry: bool, repeated: bool) -> Outcome:
    """When to look again: for what the plan waits for, or for what was put off, whichever is earlier."""
    due = plan.requeue_after
    if wait is None or (due is not None and due <= wait):
        return Outcome(retry=retry, requeue_after=due, repeated=repeated)
    return Outcome(retry=retry, requeue_after=wait, patient=True, repeated=repeated)


def _note_failures(memory: _Memory, failures: tuple[ApplyFailure, ...]) -> bool:
    """Remember what was refused; whether that is news."""
    if failures == memory.blocked:
        return False
    memory.blocked = failures
    for failure in failures:
        logger.warning("refused (%s): %s", failure.code, failure.message)
    return True
