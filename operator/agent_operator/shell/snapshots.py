"""From cached objects to what the core sees. Layer: shell; imports core and the table of kinds.

The one idea: which object belongs to which agent, and which parts of it anybody looks at, is decided
here once. The cache itself is generic and gets these functions handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from agent_operator.api.names import GROUP, LABEL_AGENT
from agent_operator.core.signals import NOTHING, Signals
from agent_operator.core.snapshot import ApplyFailure, Defaults, Snapshot
from agent_operator.shell.kinds import AGENT, AUTOSCALER, DEPLOYMENT, ENDPOINT_SLICE, SCALED_OBJECT, Kind
from agent_operator.shell.kube import Object

_BULKY_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
_POD_SPEC_KEPT = ("nodeName", "schedulingGates", "priorityClassName", "terminationGracePeriodSeconds")
_STATUS_KEPT: Mapping[str, tuple[str, ...]] = {
    DEPLOYMENT.kind: (
        "observedGeneration",
        "replicas",
        "readyReplicas",
        "updatedReplicas",
        "unavailableReplicas",
        "conditions",
    ),
    AUTOSCALER.kind: ("conditions",),
    SCALED_OBJECT.kind: ("conditions",),
}
_CONDITION_KEPT = ("type", "status", "reason", "message", "lastTransitionTime")


class Key(NamedTuple):
    """Identity of an AgentDeployment in queues, logs and memory."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


SignalsOf = Callable[[Key, Object, Sequence[Object]], Signals]
"""What is known of an agent beside its objects, given it and its pods."""


class ReadyState(NamedTuple):
    """Status and reason of an agent's Ready condition: agents are counted by it."""

    status: str
    reason: str


class GatewayPort(NamedTuple):
    """A port of the gateway: the EndpointSlices that reserve it are found by it."""

    port: int


class Store(Protocol):
    """What the shell needs of a cache."""

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The cached object or None."""

    def indexed(self, value: Hashable) -> Iterable[Object]:
        """All objects for which `index_values` gave this value."""

    def put(self, obj: Object, *, live: bool = False) -> bool:
        """Remember an object unless it is older than the cached one; `live`: just read or written."""

    def remove(self, kind: Kind, namespace: str, name: str, *, uid: str) -> bool:
        """Forget an object that is known to be gone."""


def controller_of(obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The controlling ownerReference, whatever its kind, or None."""
    for reference in obj.get("metadata", {}).get("ownerReferences") or ():
        if reference.get("controller"):
            return reference
    return None


def owning_agent(obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The controlling ownerReference if it is an AgentDeployment of any version."""
    reference = controller_of(obj)
    if reference is None or reference.get("kind") != AGENT.kind:
        return None
    return reference if str(reference.get("apiVersion", "")).split("/")[0] == GROUP else None


def key_of(obj: Mapping[str, Any]) -> Key | None:
    """Whose reconcile an object's change may concern: itself, its owner, or the agent in its label.

    The label also finds a child whose ownerReferences somebody removed.
    """
    meta = obj["metadata"]
    if obj.get("kind") == AGENT.kind and obj.get("apiVersion") == AGENT.api_version:
        return Key(meta["namespace"], meta["name"])
    reference = owning_agent(obj)
    name = reference["name"] if reference else (meta.get("labels") or {}).get(LABEL_AGENT)
    return Key(meta["namespace"], name) if name else None


def unseen(obj: Mapping[str, Any]) -> bool:
    """Whether this is an AgentDeployment of whose newest spec the status says nothing yet."""
    if obj.get("kind") != AGENT.kind:
        return False
    return bool((obj.get("status") or {}).get("observedGeneration") != obj["metadata"].get("generation"))


def index_values(obj: Mapping[str, Any]) -> Iterable[Hashable]:
    """Under which values the cache finds an object: children by owner's uid, pods by agent's name, agents by
    their Ready condition."""
    if obj.get("kind") == AGENT.kind:
        conditions = (obj.get("status") or {}).get("conditions") or ()
        ready: Mapping[str, str] = next((c for c in conditions if c.get("type") == "Ready"), {})
        yield ReadyState(ready.get("status", "Unknown"), ready.get("reason", "Pending"))
        return
    reference = owning_agent(obj)
    if reference is not None:
        yield ("owner", reference.get("uid"))
    if obj.get("kind") == ENDPOINT_SLICE.kind:
        for port in obj.get("ports") or ():
            yield GatewayPort(port.get("port", 0))
    if obj.get("kind") == "Pod":
        meta = obj["metadata"]
        yield ("pods", meta["namespace"], (meta.get("labels") or {}).get(LABEL_AGENT))


def trim(obj: Object) -> Object:
    """A shallow copy without what no decision reads, so that its changes are no news: managed fields,
    kubectl's copy, most of a pod's spec, and of a status what only its writer needs.

    Of a pod's spec only where it runs and its containers' names, images and resources are kept.
    """
    meta = {k: v for k, v in obj["metadata"].items() if k not in ("managedFields", "selfLink")}
    annotations = meta.get("annotations")
    if annotations and _BULKY_ANNOTATION in annotations:
        meta["annotations"] = {k: v for k, v in annotations.items() if k != _BULKY_ANNOTATION}
    trimmed = {**obj, "metadata": meta}
    kind = obj.get("kind", "")
    if kind in _STATUS_KEPT and (status := obj.get("status")):
        trimmed["status"] = _status(status, _STATUS_KEPT[kind])
    if kind == "Pod":
        spec = obj.get("spec") or {}
        trimmed["spec"] = {k: spec[k] for k in _POD_SPEC_KEPT if k in spec} | {
            "containers": [
                {k: c[k] for k in ("name", "image", "resources") if k in c}
                for c in spec.get("containers") or ()
            ]
        }
    return trimmed


def _status(status: Mapping[str, Any], names: Iterable[str]) -> Object:
    kept = {name: status[name] for name in names if name in status}
    if conditions := kept.get("conditions"):
        kept["conditions"] = [{k: c[k] for k in _CONDITION_KEPT if k in c} for c in conditions]
    return kept


def build_snapshot(
    store: Store,
    agent: Object,
    defaults: Defaults,
    *,
    blocked: tuple[ApplyFailure, ...],
    warnings: tuple[Object, ...] = (),
    signals: SignalsOf = lambda key, agent, pods: NOTHING,
) -> Snapshot:
    """Everything known about one agent, in a stable order."""
    meta = agent["metadata"]
    children = store.indexed(("owner", meta["uid"]))
    pods = tuple(sorted(store.indexed(("pods", meta["namespace"], meta["name"])), key=_by_kind_and_name))
    return Snapshot(
        agent=agent,
        children=tuple(sorted(children, key=_by_kind_and_name)),
        pods=pods,
        signals=signals(Key(meta["namespace"], meta["name"]), agent, pods),
        defaults=defaults,
        blocked=blocked,
        warnings=warnings,
    )


def _by_kind_and_name(obj: Mapping[str, Any]) -> tuple[str, str]:
    return obj["kind"], obj["metadata"]["name"]
