"""Turning news about objects into keys to work on. Layer: controller; knows nothing of agents.

The one idea: every source of news (watch events, the list before them, the slow resync) goes through the
cache first, and only what the cache calls news adds a key. So the echo of our own write costs nothing,
and a list of a thousand known objects queues none of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

from agent_operator.controller.cache import Cache
from agent_operator.controller.queue import Priority, WorkQueue
from agent_operator.observability.metrics import Metrics
from agent_operator.shell.kinds import Kind, kind_of
from agent_operator.shell.kube import Kube, NotFoundError, Object

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


class Informer(Generic[K]):
    """Feeds one cache and one queue. `key_of` says whose reconcile an object concerns, if anybody's.

    News of a `background` kind can wait behind news of the others. An `optional` kind that the API server
    does not know has no objects. After a list, those come first of which `unseen` says that nobody has looked
    at them.
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
        unseen: Callable[[Object], bool] = lambda obj: False,
    ) -> None:
        self._cache = cache
        self._queue = queue
        self._key_of = key_of
        self._background = frozenset(background)
        self._optional = frozenset(optional)
        self._unseen = unseen
        self.kinds = tuple(kinds)
        self.selector_of = selector_of
        self.namespaces = tuple(namespaces)
        self.synced = False
        self._versions: dict[str, str] = {}
        """Of the lists just taken, by URL path."""
        self._news: list[tuple[K, Priority]] = []
        """Whom the lists' news concern, until they are queued."""
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

        A page at a time: a fleet's objects as they come are ten times as large as what is kept of them.

        Raises:
            KubeError: a list failed; what is known stays known, and what was news until then stays news.
        """
        try:
            for kind in self.kinds:
                for scope in self.namespaces or (None,):
                    await self._refill(kube, kind, scope)
            self.synced = True
        finally:
            found = len(self._news)
            if self.synced:  # a key must not be worked on before all kinds are known
                for key, priority in self._news:
                    self._queue.add(key, priority)
                self._news.clear()
        return found

    def take_version(self, path: str) -> str | None:
        """The version of the list just taken of a collection, told once: a watch can go on from there."""
        return self._versions.pop(path, None)

    async def _refill(self, kube: Kube, kind: Kind, scope: str | None) -> None:
        listed: set[str] = set()
        version = ""
        try:
            async for page in kube.pages(kind, scope, selector=self.selector_of(kind)):
                version = page.resource_version
                listed.update(obj["metadata"]["uid"] for obj in page.objects)
                self._note(obj for obj in page.objects if self._cache.put(obj))
            self._versions[kind.path(scope)] = version
        except NotFoundError:
            if kind not in self._optional:
                raise
            logger.warning("%s of %s is not installed in this cluster", kind.kind, kind.api_version)
        self._note(self._cache.drop_unlisted(kind, listed, version, scope))

    def _note(self, news: Iterable[Object]) -> None:
        for obj in news:
            if (key := self._key_of(obj)) is not None:
                self._news.append((key, Priority.NORMAL if self._unseen(obj) else Priority.LOW))

    def _enqueue(self, obj: Object, priority: Priority) -> None:
        key = self._key_of(obj)
        if key is not None:
            self._queue.add(key, Priority.LOW if kind_of(obj) in self._background else priority)
