"""What the cluster could place. Layer: shell; imports core.capacity, the six verbs and the monitor.

The one idea: nodes and quotas change slowly and there may be many, so they are listed every half minute, only
while some agent is scaled by the operator, and only their device counts are kept. What may not be read (a
namespaced installation has no right to nodes) is unknown, and bounds nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from agent_operator.core.capacity import Places, node_totals, relevant_quotas
from agent_operator.shell.kinds import NODE, RESOURCE_QUOTA, Kind
from agent_operator.shell.kube import ForbiddenError, Kube, KubeError, Object
from agent_operator.shell.monitor import Monitor

logger = logging.getLogger(__name__)

PERIOD_SECONDS = 30.0
FIRST_LOOK_SECONDS = 2.0


class Placing:
    """Tells the monitor what can be placed; run `run` while leading."""

    def __init__(self, kube: Kube, monitor: Monitor, *, namespaces: Sequence[str]) -> None:
        self._kube = kube
        self._monitor = monitor
        self._namespaces = namespaces
        self._forbidden: set[str] = set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(FIRST_LOOK_SECONDS)
            if not self._monitor.scaled():
                continue
            try:
                self._monitor.placed(await self._look())
            except KubeError as error:
                logger.warning("cannot read what the cluster can place: %s", error)
            await asyncio.sleep(PERIOD_SECONDS)

    async def _look(self) -> Places:
        nodes = None if self._namespaces else await self._listed(NODE)
        quotas: dict[str, list[Object]] = {}
        for scope in self._namespaces or (None,):
            for quota in relevant_quotas(await self._listed(RESOURCE_QUOTA, scope) or ()):
                quotas.setdefault(quota["metadata"]["namespace"], []).append(quota)
        return Places(node_totals(nodes) if nodes is not None else None, quotas)

    async def _listed(self, kind: Kind, scope: str | None = None) -> list[Object] | None:
        """Every object of a kind; None where it may not be read."""
        try:
            return (await self._kube.list(kind, scope)).objects
        except ForbiddenError as error:
            if kind.kind not in self._forbidden:
                logger.warning("scaling knows no bound from %s: %s", kind.plural, error)
            self._forbidden.add(kind.kind)
            return None
