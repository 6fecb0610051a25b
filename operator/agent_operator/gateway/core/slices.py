"""From EndpointSlices to what the gateway does. Layer: gateway core, pure; imports api.

The one idea: one function from all the slices of an agent to one value. Ours (managed by us) say the port and
the route; those of the backend Service list the pods. A slice of ours that names another namespace than its
own is not obeyed: who may write slices in one namespace must not be served the Secrets of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent_operator.api.gateway import (
    GATEWAY_ANNOTATION,
    LABEL_SERVICE_NAME,
    LABEL_SLICE_MANAGED_BY,
    MANAGED_BY,
    PORT_NAME,
    Route,
)


@dataclass(frozen=True, slots=True, order=True)
class PodFacts:
    """One pod as its Service sees it. `ready`: may be sent requests."""

    name: str
    host: str
    port: int
    ready: bool
    terminating: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """Everything about one agent."""

    route: Route
    port: int
    """Where its requests arrive at the gateway."""
    pods: tuple[PodFacts, ...] = ()


def read(slices: Iterable[Mapping[str, Any]]) -> View | None:
    """The view from an agent's slices; None when none of ours is among them, or it cannot be understood."""
    ours: list[tuple[str, Route, int]] = []
    others: list[Mapping[str, Any]] = []
    for obj in slices:
        if _labels(obj).get(LABEL_SLICE_MANAGED_BY) != MANAGED_BY:
            others.append(obj)
            continue
        meta = obj["metadata"]
        route = Route.decode((meta.get("annotations") or {}).get(GATEWAY_ANNOTATION, ""))
        port = _port(obj)
        if route is not None and port and route.namespace == meta["namespace"]:
            ours.append((meta["name"], route, port))
    if not ours:
        return None
    _, route, port = min(ours, key=lambda found: found[0])
    pods: dict[str, PodFacts] = {}
    for obj in others:
        if _labels(obj).get(LABEL_SERVICE_NAME) == route.backend_service:
            for pod in _pods(obj):
                known = pods.get(pod.name)
                # While the controller moves an endpoint between slices it may be in two; ready wins.
                if known is None or (pod.ready and not known.ready):
                    pods[pod.name] = pod
    return View(route, port, tuple(sorted(pods.values())))


def _labels(obj: Mapping[str, Any]) -> Mapping[str, str]:
    return obj["metadata"].get("labels") or {}


def _port(obj: Mapping[str, Any]) -> int:
    for port in obj.get("ports") or ():
        if port.get("name", "") == PORT_NAME and port.get("port"):
            return int(port["port"])
    return 0


def _pods(obj: Mapping[str, Any]) -> Iterable[PodFacts]:
    port = _port(obj)
    if not port:
        return
    for endpoint in obj.get("endpoints") or ():
        addresses = endpoint.get("addresses") or ()
        if not addresses:
            continue
        conditions = endpoint.get("conditions") or {}
        terminating = bool(conditions.get("terminating"))
        ready = conditions.get("ready")
        name = (endpoint.get("targetRef") or {}).get("name") or addresses[0]
        # An absent `ready` means ready (discovery.k8s.io/v1).
        yield PodFacts(name, addresses[0], port, ready is not False and not terminating, terminating)
