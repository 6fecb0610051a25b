"""An in-memory mirror of some objects. Layer: controller; knows nothing of agents.

The one idea: newest wins. Watch events, lists and our own writes all pass through `put`, which drops
whatever is older than what is known (resourceVersions of one object are comparable numbers) and whatever
was already seen deleted. A newer version with the same content is no news: what nobody reads was trimmed
away, and an autoscaler that only tells its status every few seconds wakes nobody. Objects are kept as JSON
text, a fifth of the memory of the same object as dicts, and parsed when somebody looks: that is much rarer
than news. Why hand-written: no informer in the installed clients keeps trimmed objects, an index of our own
and our own writes.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import Any, NamedTuple

from agent_operator.shell.kinds import Kind, kind_of
from agent_operator.shell.kube import Object

Position = tuple[Kind, str, str]

TOMBSTONES = 10_000
_NEVER_AGAIN = 2**63


def version_of(obj: Mapping[str, Any]) -> int | None:
    """The resourceVersion as a number, None when it is not one (then nothing can be compared)."""
    return _number(obj["metadata"].get("resourceVersion", ""))


def _number(version: str) -> int | None:
    return int(version) if version.isdecimal() else None


class _Kept(NamedTuple):
    """One object: what is compared, and the rest as text, without the resourceVersion."""

    uid: str
    version: str
    packed: bytes
    values: tuple[Hashable, ...]
    """Index values under which it is found."""


class Cache:
    """Objects by (kind, namespace, name) and by index value. Not thread-safe; one event loop.

    What it returns belongs to the caller.
    """

    def __init__(
        self,
        *,
        trim: Callable[[Object], Object] = lambda obj: obj,
        index_values: Callable[[Object], Iterable[Hashable]] = lambda obj: (),
    ) -> None:
        self._trim = trim
        self._index_values = index_values
        self._objects: dict[Kind, dict[tuple[str, str], _Kept]] = {}
        self._index: dict[Hashable, dict[Position, None]] = {}
        self._tombstones: OrderedDict[str, int] = OrderedDict()

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The cached object or None."""
        kept = self._kept((kind, namespace, name))
        return None if kept is None else _unpacked(kept)

    def indexed(self, value: Hashable) -> list[Object]:
        """All objects for which `index_values` gave this value."""
        return [_unpacked(self._objects[kind][ns, name]) for kind, ns, name in self._index.get(value, ())]

    def index_sizes(self) -> dict[Hashable, int]:
        """How many objects `indexed` would return for each value that has any."""
        return {value: len(positions) for value, positions in self._index.items()}

    def names(self, kind: Kind) -> list[tuple[str, str]]:
        """Namespace and name of every cached object of one kind."""
        return list(self._objects.get(kind, {}))

    def count(self, kind: Kind) -> int:
        """Number of cached objects of one kind."""
        return len(self._objects.get(kind, {}))

    def put(self, obj: Object, *, live: bool = False) -> bool:
        """Remember an object; True if it is news: not known in this content.

        `live` marks an object just read or written: it exists, whatever was believed about its uid.
        """
        meta = obj["metadata"]
        uid, version = meta["uid"], version_of(obj)
        if live:
            self._tombstones.pop(uid, None)
        elif version is not None and version < self._tombstones.get(uid, -1):
            return False
        position = (kind_of(obj), meta["namespace"], meta["name"])
        known = self._kept(position)
        if known is not None and not _is_newer(obj, known):
            return False
        self._unindex(position)
        trimmed = self._trim(obj)
        values = tuple(self._index_values(trimmed))
        kept = _Kept(uid, meta.get("resourceVersion", ""), _packed(trimmed), values)
        self._objects.setdefault(position[0], {})[position[1:]] = kept
        for value in values:
            self._index.setdefault(value, {})[position] = None
        return known is None or known.packed != kept.packed

    def remove(self, kind: Kind, namespace: str, name: str, *, uid: str) -> bool:
        """Forget an object that is gone for good; False if it was not known under this uid."""
        self._bury(uid, _NEVER_AGAIN)
        return self._drop((kind, namespace, name), uid)

    def observe_deleted(self, obj: Object) -> bool:
        """A watch reported this object deleted (or no longer selected); False if it was not news.

        A newer state that is already known wins: the event is about the past.
        """
        meta = obj["metadata"]
        position = (kind_of(obj), meta["namespace"], meta["name"])
        version = version_of(obj)
        known = self._kept(position)
        if known is not None and known.uid == meta["uid"]:
            known_version = _number(known.version)
            if version is not None and known_version is not None and known_version > version:
                return False
        self._bury(meta["uid"], version if version is not None else _NEVER_AGAIN)
        return self._drop(position, meta["uid"])

    def drop_unlisted(
        self, kind: Kind, listed: Collection[str], resource_version: str, namespace: str | None = None
    ) -> list[Object]:
        """Forget what is not in a complete list, of which these are the uids; returns what was dropped.

        Catches deletions that no watch event told about, as after a broken watch.
        """
        horizon = _number(resource_version)
        dropped = []
        for (found_in, name), kept in list(self._objects.get(kind, {}).items()):
            if namespace not in (None, found_in) or kept.uid in listed:
                continue
            version = _number(kept.version)
            if horizon is not None and version is not None and version > horizon:
                continue  # appeared after the list was taken
            self._drop((kind, found_in, name), kept.uid)
            dropped.append(_unpacked(kept))
        return dropped

    def _kept(self, position: Position) -> _Kept | None:
        return self._objects.get(position[0], {}).get(position[1:])

    def _drop(self, position: Position, uid: str) -> bool:
        known = self._kept(position)
        if known is None or known.uid != uid:
            return False
        self._unindex(position)
        del self._objects[position[0]][position[1:]]
        return True

    def _unindex(self, position: Position) -> None:
        known = self._kept(position)
        if known is None:
            return
        for value in known.values:
            bucket = self._index.get(value)
            if bucket is not None:
                bucket.pop(position, None)
                if not bucket:
                    del self._index[value]

    def _bury(self, uid: str, version: int) -> None:
        self._tombstones[uid] = max(version, self._tombstones.get(uid, -1))
        self._tombstones.move_to_end(uid)
        while len(self._tombstones) > TOMBSTONES:
            self._tombstones.popitem(last=False)


def _packed(obj: Object) -> bytes:
    meta = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    text = json.dumps({**obj, "metadata": meta}, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def _unpacked(kept: _Kept) -> Object:
    obj: Object = json.loads(kept.packed.decode("utf-8", "surrogatepass"))
    if kept.version:
        obj["metadata"]["resourceVersion"] = kept.version
    return obj


def _is_newer(obj: Object, known: _Kept) -> bool:
    """Whether `obj` supersedes `known`; both have the same kind, namespace and name.

    With equal uids the greater resourceVersion is newer. With different uids the object was re-created:
    resourceVersions of one kind come from one counter, so the greater is the later incarnation.
    """
    version, known_version = version_of(obj), _number(known.version)
    if version is None or known_version is None:
        return bool(obj["metadata"].get("resourceVersion", "") != known.version)
    return version > known_version
