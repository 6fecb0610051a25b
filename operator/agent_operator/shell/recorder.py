"""Kubernetes Events. Layer: shell; imports the six verbs and observability.

The one idea: events help people and must never hurt the reconcile: the same event about the same object
is told once an hour, one object may tell only so many, and a failure to tell is counted and forgotten.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from agent_operator.core.plan import Event
from agent_operator.observability.events import ACTION, NOTE_LIMIT, REPORTING_CONTROLLER
from agent_operator.observability.metrics import Metrics
from agent_operator.shell.kinds import EVENT
from agent_operator.shell.kube import Kube, KubeError, Object

logger = logging.getLogger(__name__)

REPEAT_SECONDS = 3600.0
BURST = 20
REFILL_SECONDS = 60.0
TIMEOUT_SECONDS = 5.0
REMEMBERED = 10_000


class Recorder:
    """Posts events of the plans. `clock` is monotonic seconds, `now` is the time of day."""

    def __init__(
        self,
        kube: Kube,
        metrics: Metrics,
        *,
        instance: str,
        clock: Callable[[], float],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._metrics = metrics
        self._instance = instance[:128]
        self._clock = clock
        self._now = now
        self._told: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._budgets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def record(self, agent: Object, events: Iterable[Event]) -> None:
        """Post events about an agent; never raises for what the API server does."""
        for event in events:
            uid = agent["metadata"]["uid"]
            if self._is_repeated(uid, event):
                self._metrics.events.labels("repeated").inc()
            elif not self._has_budget(uid):
                self._metrics.events.labels("limited").inc()
            else:
                await self._post(agent, event)

    async def _post(self, agent: Object, event: Event) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await self._kube.create(self._body(agent, event))
        except (KubeError, TimeoutError) as error:
            self._metrics.events.labels("failed").inc()
            logger.warning("event %s was not accepted: %s", event.reason, error)
        else:
            self._metrics.events.labels("posted").inc()

    def _body(self, agent: Object, event: Event) -> Object:
        meta = agent["metadata"]
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {
                "name": f"{meta['name']}.{secrets.token_hex(8)}",
                "namespace": meta["namespace"],
            },
            "eventTime": self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": event.type,
            "reason": event.reason,
            "note": event.note[:NOTE_LIMIT],
            "action": ACTION,
            "reportingController": REPORTING_CONTROLLER,
            "reportingInstance": self._instance,
            "regarding": {
                "apiVersion": agent["apiVersion"],
                "kind": agent["kind"],
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
            },
        }

    def _is_repeated(self, uid: str, event: Event) -> bool:
        key, now = (uid, event.reason, event.note), self._clock()
        last = self._told.get(key)
        if last is not None and now - last < REPEAT_SECONDS:
            return True
        self._told[key] = now
        self._told.move_to_end(key)
        while len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        return False

    def _has_budget(self, uid: str) -> bool:
        """A token bucket per object: BURST at once, then one per REFILL_SECONDS."""
        now = self._clock()
        tokens, since = self._budgets.get(uid, (float(BURST), now))
        tokens = min(float(BURST), tokens + (now - since) / REFILL_SECONDS)
        self._budgets[uid] = (max(tokens - 1, 0.0), now)
        self._budgets.move_to_end(uid)
        while len(self._budgets) > REMEMBERED:
            self._budgets.popitem(last=False)
        return tokens >= 1
