"""Carrying out a plan. Layer: shell; imports core's data types, the six verbs and observability.

The one idea: writes happen in the plan's order, only on objects that are certainly ours, and only while what
they were decided on still holds: the agent, and whoever may have a name that is to be ours, are read at once
before anything is written, and the Service and Deployments concerned before traffic moves or a Deployment
goes. What the API server refuses becomes data (ApplyFailure) for the next decision; what shows that our cache
was behind refreshes the cache and asks for a new decision instead of guessing. Every answer is written
through to the cache, so the next decision sees it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent_operator.api.names import LABEL_AGENT, LABEL_MANAGED_BY, LABEL_REVISION
from agent_operator.core import naming
from agent_operator.core.plan import Apply, Delete
from agent_operator.core.reading import text
from agent_operator.core.snapshot import ApplyFailure, FailureKind
from agent_operator.observability.metrics import Metrics
from agent_operator.shell.kinds import AGENT, DEPLOYMENT, SERVICE, Kind, kind_of
from agent_operator.shell.kube import (
    FIELD_MANAGER,
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InternalError,
    InvalidError,
    Kube,
    KubeError,
    NotFoundError,
    Object,
)
from agent_operator.shell.snapshots import Store, controller_of, owning_agent

logger = logging.getLogger(__name__)

PERMANENT: frozenset[FailureKind] = frozenset({"Invalid"})
"""Failures that repeating cannot mend: only a change of an object can."""


@dataclass(slots=True)
class Written:
    """What became of a plan's writes."""

    failures: list[ApplyFailure] = field(default_factory=list)
    writes: int = 0
    stale: str = ""
    """Why the cache was behind and the plan was given up, empty when it was not."""
    basis: dict[tuple[Kind, str], str | None] = field(default_factory=dict)
    """Versions of the children on which the plan was made, our own writes of it included."""


class Executor:
    """Writes for one operator process. Whether it may is the business of `kube`, at every single attempt."""

    def __init__(self, kube: Kube, store: Store, metrics: Metrics) -> None:
        self._kube = kube
        self._store = store
        self._metrics = metrics

    async def write(self, agent: Object, writes: Sequence[Apply | Delete]) -> Written:
        """Carry out writes in order.

        A refused write does not keep its siblings from being written, but once one was refused nothing
        is deleted any more: what is to be deleted may be what still serves.

        Raises:
            KubeError: the API server is unavailable; nothing is known, try again later.
            FencedError: leadership ended in between.
        """
        if not writes:
            return Written()
        # Taken before the first request: while one is under way the cache goes on, the plan does not.
        children = self._store.indexed(("owner", agent["metadata"]["uid"]))
        result = Written(basis={_place(child): _version(child) for child in children})
        result.stale, there = await asyncio.gather(self._superseded(agent), self._there(writes))
        for write in writes:
            if not result.stale:
                result.stale = await self._outdated(agent, write, result.basis)
            if result.stale:
                break
            if isinstance(write, Delete):
                if not result.failures:
                    await self._delete(write, result)
            elif write.uid is None:
                await self._create(agent, write, there.get(_place(write.object)), result)
            else:
                await self._update(write, result)
        return result

    async def write_status(self, agent: Object, status: Object) -> bool:
        """Apply the whole status. False: the agent is gone or was re-created meanwhile.

        Raises:
            KubeError: refused or unavailable; statuses are always valid, so refusal is a bug.
        """
        meta = agent["metadata"]
        body = {
            "apiVersion": AGENT.api_version,
            "kind": AGENT.kind,
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
            "status": status,
        }
        try:
            live = await self._kube.apply(body, subresource="status")
        except (NotFoundError, ConflictError):
            await self._refresh(AGENT, meta["namespace"], meta["name"], meta["uid"])
            return False
        self._wrote("status", AGENT)
        self._store.put(live, live=True)
        return True

    async def _there(self, writes: Sequence[Apply | Delete]) -> dict[tuple[Kind, str], Object]:
        """What has the names of the objects that are to be made.

        It is looked at first, since an apply also merges into objects that contradict it nowhere, and since
        a child of ours that the cache had missed says how it is to be.
        """
        made = [w.object for w in writes if isinstance(w, Apply) and w.uid is None]
        places = [(kind_of(obj), obj["metadata"]["namespace"], obj["metadata"]["name"]) for obj in made]
        found = await asyncio.gather(*(self._live(*place) for place in places))
        return {_place(live): live for live in found if live is not None}

    async def _create(self, agent: Object, write: Apply, live: Object | None, result: Written) -> None:
        """Make what is not there. Nobody else's object is touched, whatever its name: `live` has it."""
        kind, meta = kind_of(write.object), write.object["metadata"]
        if live is not None and not _orphan(live, agent):
            self._found(agent, kind, live, result)
            return
        try:
            # Not forced: whoever takes the name in this very moment makes it a conflict, not a victim.
            await self._apply(write, write.object, result, force=False)
        except ConflictError:
            live = await self._live(kind, meta["namespace"], meta["name"])
            if live is None:
                result.stale = f"{kind.kind} {meta['name']} has gone in this moment"
            else:
                self._found(agent, kind, live, result)

    def _found(self, agent: Object, kind: Kind, live: Object, result: Written) -> None:
        if (controller_of(live) or {}).get("uid") == agent["metadata"]["uid"]:
            self._store.put(live, live=True)
            result.stale = f"{kind.kind} {live['metadata']['name']} exists already"
        else:
            result.failures.append(_taken(agent, kind, live))

    async def _update(self, write: Apply, result: Written) -> None:
        body = {**write.object, "metadata": {**write.object["metadata"], "uid": write.uid}}
        await self._apply(write, body, result, force=True)

    async def _apply(self, write: Apply, body: Object, result: Written, *, force: bool) -> None:
        kind, meta = kind_of(body), body["metadata"]
        try:
            if write.replacement is None:
                live = await self._kube.apply(body, force=force)
            else:
                live = await self._kube.replace(write.replacement)
        except (ConflictError, NotFoundError) as error:
            if write.uid is None:
                if isinstance(error, ConflictError):
                    raise
                result.failures.append(_refused(kind, meta["name"], error))  # no such namespace or kind
                return
            await self._refresh(kind, meta["namespace"], meta["name"], write.uid or "")
            result.stale = f"{kind.kind} {meta['name']} changed: {error.message}"
        except (ForbiddenError, InvalidError, InternalError) as error:
            result.failures.append(_refused(kind, meta["name"], error))
        else:
            self._wrote("apply", kind)
            result.writes += 1
            result.basis[_place(live)] = _version(live)
            self._store.put(live, live=True)
            logger.info("applied %s %s: %s", kind.kind, meta["name"], write.reason)

    async def _delete(self, write: Delete, result: Written) -> None:
        kind = kind_of({"apiVersion": write.api_version, "kind": write.kind})
        try:
            remaining = await self._kube.delete(kind, write.namespace, write.name, uid=write.uid)
        except (NotFoundError, ConflictError):
            await self._refresh(kind, write.namespace, write.name, write.uid)
            result.stale = f"{kind.kind} {write.name} is gone already"
            return
        except (ForbiddenError, InvalidError, InternalError) as error:
            result.failures.append(_refused(kind, write.name, error))
            return
        self._wrote("delete", kind)
        result.writes += 1
        result.basis.pop((kind, write.name), None)
        logger.info("deleted %s %s: %s", kind.kind, write.name, write.reason)
        if remaining is None:
            self._store.remove(kind, write.namespace, write.name, uid=write.uid)
        else:
            self._store.put(remaining, live=True)

    async def _refresh(self, kind: Kind, namespace: str, name: str, uid: str) -> Object | None:
        """Make the cache agree with the API server about one object."""
        live = await self._live(kind, namespace, name)
        if live is None:
            self._store.remove(kind, namespace, name, uid=uid)
        else:
            self._store.put(live, live=True)
        return live

    async def _live(self, kind: Kind, namespace: str, name: str) -> Object | None:
        try:
            return await self._kube.get(kind, namespace, name)
        except NotFoundError:
            return None

    async def _superseded(self, agent: Object) -> str:
        """Read the agent itself before anything is written for it: it may be gone or say something else."""
        meta = agent["metadata"]
        live = await self._refresh(AGENT, meta["namespace"], meta["name"], meta["uid"])
        if live is None:
            return "the AgentDeployment is gone"
        if live["metadata"].get("resourceVersion") != meta.get("resourceVersion"):
            return "the AgentDeployment has changed"
        return ""

    async def _outdated(
        self, agent: Object, write: Apply | Delete, basis: dict[tuple[Kind, str], str | None]
    ) -> str:
        """Read again what a write that may hurt was decided on; what had changed, empty if nothing.

        Moving the Service and deleting a Deployment are right only because of what other objects say. No
        precondition spans two objects, and a watch may be late or a list old.
        """
        name = agent["metadata"]["name"]
        concerned = _concerned_deployments(name, write)
        if not concerned:
            return ""
        service = await self._read_again(SERVICE, agent, naming.agent_stem(name))
        if selected := text(service, "spec", "selector", LABEL_REVISION):
            concerned.add(naming.revisioned(name, selected))
        live = {(SERVICE, naming.agent_stem(name)): service}
        for deployment in sorted(concerned):
            live[DEPLOYMENT, deployment] = await self._read_again(DEPLOYMENT, agent, deployment)
        changed = [place for place, obj in live.items() if _version(obj) != basis.get(place)]
        return f"{changed[0][0].kind} {changed[0][1]} has changed" if changed else ""

    async def _read_again(self, kind: Kind, agent: Object, name: str) -> Object | None:
        """A child as it is now, None if there is none or somebody else has its name."""
        namespace = agent["metadata"]["namespace"]
        known = self._store.get(kind, namespace, name)
        live = await self._refresh(kind, namespace, name, text(known, "metadata", "uid"))
        ours = live is not None and (controller_of(live) or {}).get("uid") == agent["metadata"]["uid"]
        return live if ours else None

    def _wrote(self, verb: str, kind: Kind) -> None:
        self._metrics.writes.labels(verb, kind.kind).inc()


def _place(obj: Object) -> tuple[Kind, str]:
    return kind_of(obj), obj["metadata"]["name"]


def _version(obj: Object | None) -> str | None:
    return obj["metadata"].get("resourceVersion") if obj is not None else None


def _concerned_deployments(agent: str, write: Apply | Delete) -> set[str]:
    """The Deployments whose readiness a write depends on, the serving one aside; none: it hurts nobody."""
    if isinstance(write, Delete):
        return {write.name} if write.kind == DEPLOYMENT.kind else set()
    if write.uid is None or write.object["kind"] != SERVICE.kind:
        return set()
    return {naming.revisioned(agent, text(write.object, "spec", "selector", LABEL_REVISION))}


def _orphan(live: Object, agent: Object) -> bool:
    """Whether an object was made for this agent's name and left behind on purpose (--cascade=orphan)."""
    labels = live["metadata"].get("labels") or {}
    ours = (
        labels.get(LABEL_AGENT) == agent["metadata"]["name"] and labels.get(LABEL_MANAGED_BY) == FIELD_MANAGER
    )
    return ours and controller_of(live) is None


def _taken(agent: Object, kind: Kind, live: Object) -> ApplyFailure:
    name, meta = live["metadata"]["name"], agent["metadata"]
    reference = controller_of(live)
    former = owning_agent(live)
    if former is not None and former.get("name") == meta["name"]:
        message = (
            f"{kind.kind} {name!r} still belongs to a deleted AgentDeployment of the same name; "
            "waiting for its garbage collection"
        )
        return ApplyFailure(kind.kind, name, "Conflict", message)
    owner = f"is controlled by {reference['kind']} {reference['name']!r}" if reference else "is not ours"
    message = (
        f"{kind.kind} {name!r} exists in namespace {meta['namespace']!r} and {owner}; nothing was changed. "
        "Delete or rename it, or rename the AgentDeployment"
    )
    return ApplyFailure(kind.kind, name, "NameTaken", message)


def _refused(kind: Kind, name: str, error: KubeError) -> ApplyFailure:
    code: FailureKind = "Other"
    if isinstance(error, ForbiddenError):
        code = "Forbidden"
    elif isinstance(error, InvalidError):
        code = "Invalid"
    elif isinstance(error, AlreadyExistsError):
        code = "NameTaken"
    return ApplyFailure(kind.kind, name, code, error.message)
