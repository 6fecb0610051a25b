"""What the cluster says about pods. Layer: shell; imports the six verbs.

The one idea: a pod's events are read when a decision asks for them, for that pod alone, and never watched:
a cluster has many more events than an operator has questions. Without the permission the decision is made
without them, and the log says what is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from agent_operator.core.plan import PodReference
from agent_operator.shell.kinds import EVENT
from agent_operator.shell.kube import ForbiddenError, Kube, Object

logger = logging.getLogger(__name__)


class PodWarnings:
    """Reads the events of type Warning about pods."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def about(self, pods: Iterable[PodReference]) -> tuple[Object, ...]:
        """The warnings about these pods, in the form of events.k8s.io/v1.

        Raises:
            KubeError: the API server is unavailable; nothing is known, try again later.
        """
        found: list[Object] = []
        for pod in pods:
            chosen = f"regarding.uid={pod.uid},type=Warning"
            try:
                listing = await self._kube.list(EVENT, pod.namespace, fields=chosen)
            except ForbiddenError as error:
                logger.warning("cannot say what pod %s waits for: %s", pod.name, error)
                return ()
            found += listing.objects
        return tuple(found)
