"""Carrying out a plan. Layer: shell; imports core's data types, the six verbs and observability.

The one idea: writes happen in the plan's order and only on objects that are certainly ours. What the API
server refuses becomes data (ApplyFailure) for the next decision; what shows that our cache was behind
(a uid that changed, an object that exists after all) refreshes the cache and asks for a new decision
instead of guessing. Every answer is written through to the cache, so the next decision sees it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent_operator.core.plan import Apply, Delete
from agent_operator.core.snapshot import ApplyFailure, FailureKind
from agent_operator.observability.metrics import Metrics
from agent_operator.shell.kinds import AGENT, Kind, kind_of
from agent_operator.shell.kube import (
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


class FencedError(KubeError):
    """The lease is no longer certainly ours, so nothing may be written."""


@dataclass(slots=True)
class Written:
    """What became of a plan's writes."""

    failures: list[ApplyFailure] = field(default_factory=list)
    writes: int = 0
    stale: str = ""
    """Why the cache was behind and the plan was given up, empty when it was not."""


class Executor:
    """Writes for one operator process. `may_write` is asked before every single write."""

    def __init__(
        self, kube: Kube, store: Store, metrics: Metrics, may_write: Callable[[], bool] = lambda: True
    ) -> None:
        self._kube = kube
        self._store = store
        self._metrics = metrics
        self._may_write = may_write

    async def write(self, agent: Object, writes: Sequence[Apply | Delete]) -> Written:
        """Carry out writes in order.

        A refused write does not keep its siblings from being written, but once one was refused nothing
        is deleted any more: what is to be deleted may be what still serves.

        Raises:
            KubeError: the API server is unavailable; nothing is known, try again later.
            FencedError: leadership ended in between.
        """
        result = Written()
        if any(isinstance(w, Apply) and w.uid is None for w in writes):
            result.stale = await self._stale_agent(agent)
        for write in writes:
            if result.stale:
                break
            if isinstance(write, Delete):
                if not result.failures:
                    await self._delete(write, result)
            elif write.uid is None:
                await self._create(agent, write, result)
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
        self._fence()
        try:
            live = await self._kube.apply(body, subresource="status")
        except (NotFoundError, ConflictError):
            await self._refresh(AGENT, meta["namespace"], meta["name"], meta["uid"])
            return False
        self._wrote("status", AGENT)
        self._store.put(live, live=True)
        return True

    async def _stale_agent(self, agent: Object) -> str:
        """Read the agent itself before creating anything, so a missed deletion resurrects nothing."""
        meta = agent["metadata"]
        live = await self._refresh(AGENT, meta["namespace"], meta["name"], meta["uid"])
        if live is None or live["metadata"]["uid"] != meta["uid"]:
            return "the AgentDeployment is gone"
        if live["metadata"].get("generation") != meta.get("generation"):
            return "the AgentDeployment has a newer spec"
        if live["metadata"].get("deletionTimestamp") and not meta.get("deletionTimestamp"):
            return "the AgentDeployment is being deleted"
        return ""

    async def _create(self, agent: Object, write: Apply, result: Written) -> None:
        kind, meta = kind_of(write.object), write.object["metadata"]
        try:
            live = await self._kube.get(kind, meta["namespace"], meta["name"])
        except NotFoundError:
            # Not forced: whoever takes the name in this very moment makes it a conflict, not a victim.
            await self._apply(write, write.object, result, force=False)
            return
        if (controller_of(live) or {}).get("uid") == agent["metadata"]["uid"]:
            self._store.put(live, live=True)
            result.stale = f"{kind.kind} {meta['name']} exists already"
            return
        result.failures.append(_taken(agent, kind, live))

    async def _update(self, write: Apply, result: Written) -> None:
        body = {**write.object, "metadata": {**write.object["metadata"], "uid": write.uid}}
        await self._apply(write, body, result, force=True)

    async def _apply(self, write: Apply, body: Object, result: Written, *, force: bool) -> None:
        kind, meta = kind_of(body), body["metadata"]
        self._fence()
        try:
            if write.replacement is None:
                live = await self._kube.apply(body, force=force)
            else:
                live = await self._kube.replace(write.replacement)
        except (ConflictError, NotFoundError) as error:
            if isinstance(error, NotFoundError) and write.uid is None:
                result.failures.append(_refused(kind, meta["name"], error))  # no such namespace or kind
                return
            await self._refresh(kind, meta["namespace"], meta["name"], write.uid or "")
            result.stale = f"{kind.kind} {meta['name']} changed: {error.message}"
        except (ForbiddenError, InvalidError, InternalError) as error:
            result.failures.append(_refused(kind, meta["name"], error))
        else:
            self._wrote("apply", kind)
            result.writes += 1
            self._store.put(live, live=True)
            logger.info("applied %s %s: %s", kind.kind, meta["name"], write.reason)

    async def _delete(self, write: Delete, result: Written) -> None:
        kind = kind_of({"apiVersion": write.api_version, "kind": write.kind})
        self._fence()
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
        logger.info("deleted %s %s: %s", kind.kind, write.name, write.reason)
        if remaining is None:
            self._store.remove(kind, write.namespace, write.name, uid=write.uid)
        else:
            self._store.put(remaining, live=True)

    async def _refresh(self, kind: Kind, namespace: str, name: str, uid: str) -> Object | None:
        """Make the cache agree with the API server about one object."""
        try:
            live = await self._kube.get(kind, namespace, name)
        except NotFoundError:
            self._store.remove(kind, namespace, name, uid=uid)
            return None
        self._store.put(live, live=True)
        return live

    def _fence(self) -> None:
        if not self._may_write():
            raise FencedError("the lease is no longer certainly ours")

    def _wrote(self, verb: str, kind: Kind) -> None:
        self._metrics.writes.labels(verb, kind.kind).inc()


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
