"""What leads to the gateway. Layer: core, pure; imports api and core.*.

The one idea: beside the EndpointSlices that Kubernetes makes of a Service's selector stands one of ours. It
reserves a port of the gateway for the agent, which is how the gateway knows whom a request is for, and it has
endpoints only while the gateway is to answer: while no replica is ready, or always if that is asked for.
Taking them away and putting them there is the whole switch; the pods' own endpoints come and go beside them,
so for a moment both may answer, and there is none in which nobody does.

With gateway Always the Service's own selector matches no pod, and a second Service selects the pods for the
gateway. A selector that matches nothing, instead of none, has Kubernetes remove its own slices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent_operator.api import AgentDeploymentSpec
from agent_operator.api.access import Access, GatewayMode
from agent_operator.api.autoscaling import AutoscalingProvider
from agent_operator.api.gateway import (
    GATEWAY_ANNOTATION,
    LABEL_SERVICE_NAME,
    LABEL_SLICE_MANAGED_BY,
    MANAGED_BY,
    PORT_NAME,
    Route,
    slice_name,
)
from agent_operator.api.names import GROUP, RUNTIME_PORT_NAME
from agent_operator.core import naming
from agent_operator.core.children.metadata import Owner, metadata
from agent_operator.core.children.service import PORT
from agent_operator.core.reading import at, mapping

BEHIND_GATEWAY = {f"{GROUP}/behind": "gateway"}
"""Added to a Service's selector, it matches no pod."""
LEAVING = f"{GROUP}/gateway-leaving-since"
"""Annotation of the slice: since when it is there for those only who have not heard yet."""
MAX_ENDPOINTS = 100


@dataclass(frozen=True, slots=True)
class Gateway:
    """How an agent reaches the gateway: its port there, and where it answers; nowhere: it stands by."""

    port: int
    addresses: tuple[str, ...]
    in_front: bool = False
    """All requests go there: the Service selects no pod itself."""
    leaving: str = ""
    """Since when the gateway has no business with the agent any more, "" while it has."""


def wanted(spec: AgentDeploymentSpec) -> bool:
    """Whether the gateway has anything to do with this agent."""
    return always(spec) or _may_sleep(spec)


def asked(agent: Mapping[str, Any]) -> bool:
    """The same of a manifest that may be invalid: whether a port should be kept for it."""
    spec = mapping(agent, "spec")
    return at(spec, "autoscaling", "minReplicas") == 0 or at(spec, "access", "gateway") == "Always"


def always(spec: AgentDeploymentSpec) -> bool:
    """Whether every request goes through the gateway."""
    return spec.access is not None and spec.access.gateway is GatewayMode.ALWAYS


def _may_sleep(spec: AgentDeploymentSpec) -> bool:
    scaling = spec.autoscaling
    return (
        scaling is not None and scaling.min_replicas == 0 and scaling.provider is not AutoscalingProvider.HPA
    )


def backend_name(agent: str) -> str:
    """Name of the Service of the pods, where the agent's own Service leads to the gateway."""
    return f"{naming.agent_stem(agent)}-pods"


def endpoint_slice(owner: Owner, spec: AgentDeploymentSpec, gateway: Gateway) -> dict[str, Any]:
    """The EndpointSlice `<agent>-gateway`."""
    meta = metadata(owner, slice_name(naming.agent_stem(owner.name)))
    meta["labels"] |= {
        LABEL_SERVICE_NAME: naming.agent_stem(owner.name),
        LABEL_SLICE_MANAGED_BY: MANAGED_BY,
    }
    meta["annotations"] = {GATEWAY_ANNOTATION: route(owner, spec).encode()}
    if gateway.leaving:
        meta["annotations"][LEAVING] = gateway.leaving
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": meta,
        "addressType": "IPv4",
        "ports": [{"name": PORT_NAME, "port": gateway.port, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": [address], "conditions": {"ready": True, "serving": True, "terminating": False}}
            for address in gateway.addresses[:MAX_ENDPOINTS]
        ],
    }


def route(owner: Owner, spec: AgentDeploymentSpec) -> Route:
    """What the gateway is told about the agent."""
    access = spec.access or Access()
    keys = access.api_keys_secret_ref
    return Route(
        namespace=owner.namespace,
        agent=naming.agent_stem(owner.name),
        mode=access.gateway.value,
        backend_service=backend_name(owner.name) if always(spec) else naming.agent_stem(owner.name),
        capacity_per_replica=spec.runtime.parameters.max_concurrency
        + spec.runtime.parameters.max_queued_requests,
        max_held_requests=access.hold.max_requests,
        max_held_bytes=access.hold.max_mebibytes * 2**20,
        hold_seconds=access.hold.seconds,
        api_keys_secret=keys.name if keys else None,
    )


def backend_service(owner: Owner, revision: str) -> dict[str, Any]:
    """The Service `<agent>-pods`, without an address of its own: the gateway goes to the pods."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(owner, backend_name(owner.name)),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "selector": naming.selector(owner.name, revision),
            "ports": [{"name": "http", "port": PORT, "protocol": "TCP", "targetPort": RUNTIME_PORT_NAME}],
        },
    }
