"""An API server in memory, good enough for the six verbs.

What it does as the real one: uids, one resourceVersion counter, conflicts on uid and resourceVersion,
"already exists", generation, the status subresource, finalizers, server-side apply with removal of fields
the same manager no longer applies (lists are replaced whole), applies that change nothing write nothing,
label selectors that ask for existence, field selectors by equality, watches, garbage collection (at once, or
with `cascade` off left to whoever plays the garbage collector). What it does not: validation, admission,
other field managers' conflicts beyond "not forced and different".
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

from agent_operator.shell.kinds import Kind, kind_of
from agent_operator.shell.kube import (
    AlreadyExistsError,
    ConflictError,
    InvalidError,
    KubeError,
    Listing,
    NotFoundError,
    Object,
    UnavailableError,
)

T = TypeVar("T")
Position = tuple[Kind, str, str]
Watcher = Callable[[str, Object], None]

WRITES = frozenset({"create", "replace", "apply", "apply/status", "delete"})


class FakeApiServer:
    """The shared state. `client()` gives a Kube; several clients may be cut off one by one."""

    def __init__(self) -> None:
        self.objects: dict[Position, Object] = {}
        self.log: list[tuple[str, str, str]] = []
        """(verb, kind, name) of every request that was answered, refused or not."""
        self.version = 100
        self.cascade = True
        """Whether what a deleted object controls goes with it at once."""
        self.acting: Any = None
        """Whose request is carried out right now, for watchers that want to know; None: nobody said."""
        self._uids = (f"uid-{n}" for n in itertools.count(1))
        self._applied: dict[tuple[Position, str], Object] = {}
        self._faults: list[tuple[str, str, KubeError]] = []
        self._watchers: list[Watcher] = []

    def client(self) -> FakeKube:
        """A new connection to this server."""
        return FakeKube(self)

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher(type, object)` on every change, synchronously."""
        self._watchers.append(watcher)

    def fail(self, verb: str, kind: str, error: KubeError, times: int = 1) -> None:
        """Make the next `times` requests of this verb on this kind fail; nothing is stored."""
        self._faults += [(verb, kind, error)] * times

    def writes(self) -> list[tuple[str, str, str]]:
        """Requests that may change something, in order; leases and events aside."""
        return [entry for entry in self.log if entry[0] in WRITES and entry[1] not in ("Lease", "Event")]

    def applied(self, position: Position) -> Object:
        """What the operator applied of an object last; empty if it never did."""
        return self._applied.get((position, "main"), {})

    def add(self, obj: Object) -> Object:
        """Put an object there as somebody else would (kubectl, a controller); returns it as stored."""
        return self._store(_position(obj), _copied(obj))

    def edit(self, kind: Kind, namespace: str, name: str, change: Callable[[Object], None]) -> Object:
        """Change an object as somebody else would."""
        position = (kind, namespace, name)
        edited = _copied(self.objects[position])
        change(edited)
        return self._store(position, edited)

    def drop(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete an object and, as the garbage collector would, everything it controls."""
        gone = self.objects.pop((kind, namespace, name))
        self._applied = {k: v for k, v in self._applied.items() if k[0] != (kind, namespace, name)}
        self.version += 1
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._tell("DELETED", gone)
        if not self.cascade:
            return
        for owned in list(self.objects):
            references = self.objects.get(owned, {}).get("metadata", {}).get("ownerReferences") or ()
            if any(r.get("uid") == gone["metadata"]["uid"] for r in references):
                self.drop(*owned)

    def _answer(self, verb: str, kind: Kind, name: str) -> None:
        self.log.append((verb, kind.kind, name))
        for fault in self._faults:
            if fault[:2] == (verb, kind.kind):
                self._faults.remove(fault)
                raise fault[2]

    def _store(self, position: Position, obj: Object) -> Object:
        old = self.objects.get(position)
        meta = obj["metadata"]
        if old is None:
            meta.setdefault("uid", next(self._uids))
            meta.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
            meta["generation"] = 1
        else:
            meta["generation"] = old["metadata"]["generation"] + (old.get("spec") != obj.get("spec"))
            if _without_version(old) == _without_version(obj):
                return _copied(old)
        self.version += 1
        meta["resourceVersion"] = str(self.version)
        self.objects[position] = obj
        self._tell("ADDED" if old is None else "MODIFIED", obj)
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            self.drop(*position)
        return _copied(obj)

    def _tell(self, event: str, obj: Object) -> None:
        for watcher in self._watchers:
            watcher(event, _copied(obj))

    def _apply(self, position: Position, body: Object, part: str, force: bool) -> Object:
        old = self.objects.get(position)
        wanted_uid = body["metadata"].get("uid")
        if old is None and (wanted_uid or part == "status"):
            error: KubeError = ConflictError("uid mismatch: no existing object was found", 409)
            raise error if part != "status" else NotFoundError("not found", 404)
        if old is not None and wanted_uid not in (None, old["metadata"]["uid"]):
            raise ConflictError(f"uid mismatch: {wanted_uid} is not {old['metadata']['uid']}", 409)
        intent = _copied(body)
        intent["metadata"].pop("uid", None)
        if part == "status":
            intent = {"status": intent.get("status") or {}}
        else:
            intent.pop("status", None)
        merged = _copied(old) if old is not None else {}
        before = self._applied.get((position, part))
        if old is not None and before is None and not force and _differs(intent, old):
            raise ConflictError("conflict with another field manager", 409)
        _remove_dropped(merged, before or {}, intent)
        _merge(merged, intent)
        stored = self._store(position, merged)
        self._applied[position, part] = intent
        return stored


class FakeKube:
    """Kube against a FakeApiServer. `down`: this client is cut off. `latency`: seconds per request."""

    def __init__(self, server: FakeApiServer) -> None:
        self.server = server
        self.down = False
        self.hangs = False
        self.latency = 0.0

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        await self._travel("get", kind, name)
        return _copied(self._existing((kind, namespace, name)))

    async def list(
        self, kind: Kind, namespace: str | None = None, *, selector: str = "", fields: str = ""
    ) -> Listing:
        await self._travel("list", kind, "")
        found = [
            _copied(obj)
            for (k, ns, _), obj in self.server.objects.items()
            if k == kind and namespace in (None, ns) and _selected(obj, selector) and _chosen(obj, fields)
        ]
        return Listing(found, str(self.server.version))

    async def pages(
        self, kind: Kind, namespace: str | None = None, *, selector: str = "", fields: str = ""
    ) -> AsyncIterator[Listing]:
        """The list, an object a page."""
        objects, version = await self.list(kind, namespace, selector=selector, fields=fields)
        for start in range(0, max(1, len(objects))):
            yield Listing(objects[start : start + 1], version)

    async def create(self, obj: Object) -> Object:
        position = _position(obj)
        await self._travel("create", position[0], position[2])
        if position in self.server.objects:
            raise AlreadyExistsError(f"{position[2]} already exists", 409)
        return self.server._store(position, _copied(obj))

    async def replace(self, obj: Object) -> Object:
        position = _position(obj)
        await self._travel("replace", position[0], position[2])
        old = self._existing(position)
        if not obj["metadata"].get("resourceVersion"):
            raise InvalidError("metadata.resourceVersion: must be specified for an update", 422)
        if obj["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]:
            raise ConflictError("the object has been modified", 409)
        return self.server._store(position, _copied(obj))

    async def apply(self, obj: Object, *, subresource: str = "", force: bool = True) -> Object:
        position = _position(obj)
        verb = f"apply/{subresource}" if subresource else "apply"
        await self._travel(verb, position[0], position[2])
        return self.server._apply(position, obj, subresource or "main", force)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> Object | None:
        position = (kind, namespace, name)
        await self._travel("delete", kind, name)
        old = self._existing(position)
        if old["metadata"]["uid"] != uid:
            raise ConflictError("uid mismatch", 409)
        if old["metadata"].get("finalizers"):
            old = _copied(old)
            old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z"
            return self.server._store(position, old)
        self.server.drop(*position)
        return None

    async def _travel(self, verb: str, kind: Kind, name: str) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        await asyncio.sleep(self.latency)
        if self.down:
            raise UnavailableError("connection refused")
        self.server._answer(verb, kind, name)

    def _existing(self, position: Position) -> Object:
        try:
            return self.server.objects[position]
        except KeyError:
            raise NotFoundError(f"{position[0].plural} {position[2]!r} not found", 404) from None


def _copied(value: T) -> T:
    """A deep copy of JSON, several times faster than `copy.deepcopy`."""
    copied: Any = value
    if isinstance(value, dict):
        copied = {key: _copied(item) for key, item in value.items()}
    elif isinstance(value, list):
        copied = [_copied(item) for item in value]
    return copied  # type: ignore[no-any-return]


def _position(obj: Mapping[str, Any]) -> Position:
    return kind_of(obj), obj["metadata"]["namespace"], obj["metadata"]["name"]


def _selected(obj: Object, selector: str) -> bool:
    return not selector or selector in (obj["metadata"].get("labels") or {})


def _chosen(obj: Object, fields: str) -> bool:
    """Whether an object has these values: `path.to.field=value`, separated by commas."""
    for wanted in filter(None, fields.split(",")):
        path, _, value = wanted.partition("=")
        found: Any = obj
        for name in path.split("."):
            found = (found or {}).get(name)
        if found != value:
            return False
    return True


def _without_version(obj: Object) -> Object:
    return {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}}


def _differs(intent: Object, live: Object) -> bool:
    return any(
        _differs(value, live[key]) if isinstance(value, dict) and isinstance(live.get(key), dict)
        else key in live and live[key] != value
        for key, value in intent.items()
    )  # fmt: skip


def _merge(live: Object, intent: Object) -> None:
    for key, value in intent.items():
        if isinstance(value, dict) and isinstance(live.get(key), dict):
            _merge(live[key], value)
        else:
            live[key] = _copied(value)


def _remove_dropped(live: Object, before: Object, intent: Object) -> None:
    for key, value in before.items():
        if key not in intent:
            live.pop(key, None)
        elif all(isinstance(v, dict) for v in (value, intent[key], live.get(key))):
            _remove_dropped(live[key], value, intent[key])
