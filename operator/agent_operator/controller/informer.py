"""Turning news about objects into keys to work on. Layer: controller; knows nothing of agents.

The one idea: every source of news (watch events, the list before them, the slow resync) goes through the
cache first, and only what the cache calls news adds a key. So the echo of our own write costs nothing,
and a list of a thousand known objects queues none of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from agent_operator.controller.cache import Cache
from agent_operator.controller.queue import Priority, WorkQueue
from agent_operator.observability.metrics import Metrics
from agent_operator.shell.kinds import Kind, kind_of
from agent_operator.shell.kube import Kube, Listing, NotFoundError, Object

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


class Informer(Generic[K]):
    """Feeds one cache and one queue. `key_of` says whose reconcile an object concerns, if anybody's.

    News of a `background` kind can wait behind news of the others. An `optional` kind that the API server
    does not know has no objects.
    """

    def __init__(
        self,
        cache: Cache,
        queue: WorkQueue[K],
        metrics: Metrics,
        *,
        key_of: Callable[[Object], K | None],
        kinds: Sequence[Kind],
        selector_of: Callable[[Kind], str],
        namespaces: Sequence[str],
        background: Sequence[Kind] = (),
        optional: Sequence[Kind] = (),
    ) -> None:
        self._cache = cache
        self._queue = queue
        self._key_of = key_of
        self._background = frozenset(background)
        self._optional = frozenset(optional)
        self.kinds = tuple(kinds)
        self.selector_of = selector_of
        self.namespaces = tuple(namespaces)
        self.synced = False
        for kind in kinds:
            metrics.cached.labels(kind.kind).set_function(
                lambda kind=kind: cache.count(kind)  # type: ignore[misc]
            )

    def observe(self, obj: Object, *, listed: bool = False) -> None:
        """An object exists in this state; `listed`: part of an initial list, nobody is waiting for it."""
        if self._cache.put(obj):
            self._enqueue(obj, Priority.LOW if listed else Priority.NORMAL)

    def observe_deleted(self, obj: Object) -> None:
        """An object is gone, or no longer selected."""
        if self._cache.observe_deleted(obj):
            self._enqueue(obj, Priority.NORMAL)

    async def sync(self, kube: Kube) -> int:
        """List everything, make the cache agree, queue what is news; returns the number of news.

        Raises:
            KubeError: a list failed; the cache keeps what it had.
        """
        scopes: Sequence[str | None] = self.namespaces or (None,)
        wanted = [(kind, scope) for kind in self.kinds for scope in scopes]
        listings = await asyncio.gather(*(self._list(kube, kind, scope) for kind, scope in wanted))
        news: list[Object] = []
        for (kind, scope), listing in zip(wanted, listings, strict=True):
            news += self._cache.reset(kind, listing, scope)
        # Only now: a key must not be worked on before all kinds are known.
        for obj in news:
            self._enqueue(obj, Priority.LOW)
        self.synced = True
        return len(news)

    async def _list(self, kube: Kube, kind: Kind, scope: str | None) -> Listing:
        try:
            return await kube.list(kind, scope, selector=self.selector_of(kind))
        except NotFoundError:
            if kind not in self._optional:
                raise
            logger.warning("%s of %s is not installed in this cluster", kind.kind, kind.api_version)
            return Listing([], "")

    def _enqueue(self, obj: Object, priority: Priority) -> None:
        key = self._key_of(obj)
        if key is not None:
            self._queue.add(key, Priority.LOW if kind_of(obj) in self._background else priority)
