"""What happened at the API server, and how a process hears of it. Layer: tests.

The one idea: the journal holds every change in the order of its version, and a watch is a cursor in it. So a
watch can be late, lose, merge and repeat events, break off and start anew, and a list can be of the past.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent_operator.api.names import LABEL_AGENT
from agent_operator.controller.informer import Informer
from agent_operator.shell.kinds import WATCHED, Kind, kind_of, selector_of
from agent_operator.shell.kube import Kube, KubeError, Listing, Object
from tests.fakes.kube import FakeApiServer


@dataclass(frozen=True, slots=True)
class Entry:
    """One event as a watch with our selector gets it."""

    version: int
    type: str
    object: Object


class Journal:
    """Everything that watches of the server's objects are told."""

    def __init__(self, server: FakeApiServer) -> None:
        self.server = server
        self.entries: dict[Kind, list[Entry]] = {kind: [] for kind in WATCHED}
        self.watches: list[Watches] = []
        self._selected: set[str] = set()
        server.watch(self._changed)

    def past(self, version: int) -> dict[Kind, Listing]:
        """Every kind as it was at a version."""
        return {kind: Listing(self._objects(kind, version), str(version)) for kind in WATCHED}

    def _objects(self, kind: Kind, version: int) -> list[Object]:
        found: dict[str, Object] = {}
        for entry in self.entries[kind]:
            if entry.version > version:
                break
            name = entry.object["metadata"]["name"]
            found.pop(name, None)
            if entry.type != "DELETED":
                found[name] = entry.object
        return list(found.values())

    def _changed(self, event: str, obj: Object) -> None:
        kind = kind_of(obj)
        if kind not in self.entries:
            return
        meta = obj["metadata"]
        selected = event != "DELETED" and (not selector_of(kind) or LABEL_AGENT in (meta.get("labels") or {}))
        if selected:
            event = "MODIFIED" if meta["uid"] in self._selected else "ADDED"
            self._selected.add(meta["uid"])
        elif meta["uid"] in self._selected:
            event = "DELETED"  # or no longer selected, which a watch tells in the same way
            self._selected.discard(meta["uid"])
        else:
            return
        self.entries[kind].append(Entry(int(meta["resourceVersion"]), event, obj))
        for watches in self.watches:
            watches.streams[kind].hear()


class Stream:
    """The watch of one kind. `lose`, `repeat`: how many of the next events; `stall`: silence until then."""

    def __init__(
        self, journal: Journal, kind: Kind, informer: Informer[Any], lag: Callable[[], float]
    ) -> None:
        self.lose = 0
        self.repeat = 0
        self.merge = False
        self.stalled_until = 0.0
        self.broken = asyncio.Event()
        self._entries = journal.entries[kind]
        self._kind = kind
        self._informer = informer
        self._lag = lag
        self._cursor: int | None = None

    async def follow(self, kube: Kube) -> None:
        """List, then watch from there; again whenever the watch breaks. Runs until it is cancelled."""
        while True:
            try:
                listing = await kube.list(self._kind, selector=selector_of(self._kind))
            except KubeError:
                await asyncio.sleep(1.0)
                continue
            for obj in listing.objects:
                self._informer.observe(obj, listed=True)
            version = int(listing.resource_version)
            self._cursor = sum(entry.version <= version for entry in self._entries)
            self.hear()
            self.broken.clear()
            await self.broken.wait()
            self._cursor = None

    def stop(self) -> None:
        """Hear nothing more."""
        self._cursor = None

    def hear(self) -> None:
        """There is an event; it arrives a moment later."""
        if self._cursor is not None:
            asyncio.get_running_loop().call_later(self._lag(), self._deliver, len(self._entries))

    def _deliver(self, end: int) -> None:
        now = asyncio.get_running_loop().time()
        if self._cursor is None:
            return
        if now < self.stalled_until:
            asyncio.get_running_loop().call_at(self.stalled_until, self._deliver, end)
            return
        while self._cursor is not None and self._cursor < end:
            entry = self._entries[self._cursor]
            self._cursor += 1
            if self.lose > 0:
                self.lose -= 1
            elif not (self.merge and self._is_superseded(entry, end)):
                for _ in range(2 if self.repeat > 0 else 1):
                    self._tell(entry)
                self.repeat = max(0, self.repeat - 1)

    def _is_superseded(self, entry: Entry, end: int) -> bool:
        later = self._entries[self._cursor : end]
        uid = entry.object["metadata"]["uid"]
        return entry.type == "MODIFIED" and any(
            e.type == "MODIFIED" and e.object["metadata"]["uid"] == uid for e in later
        )

    def _tell(self, entry: Entry) -> None:
        if entry.type == "DELETED":
            self._informer.observe_deleted(entry.object)
        else:
            self._informer.observe(entry.object)


class Watches:
    """The watches of one process, one stream per kind."""

    def __init__(self, journal: Journal, informer: Informer[Any], lag: Callable[[], float]) -> None:
        self.streams = {kind: Stream(journal, kind, informer, lag) for kind in WATCHED}
        self._journal = journal

    async def run(self, kube: Kube) -> None:
        """Watch until cancelled."""
        self._journal.watches.append(self)
        try:
            await asyncio.gather(*(stream.follow(kube) for stream in self.streams.values()))
        finally:
            self.stop()

    def stop(self) -> None:
        """Hear nothing more."""
        for stream in self.streams.values():
            stream.stop()
        if self in self._journal.watches:
            self._journal.watches.remove(self)

    def calm(self) -> None:
        """No more faults; what was lost stays lost."""
        for stream in self.streams.values():
            stream.lose = stream.repeat = 0
            stream.merge = False
            stream.stalled_until = 0.0
