"""The kinds the operator touches. Layer: shell; imports api.names.

The one idea: the set of kinds is small and fixed, so their plurals are a table and no discovery request
is made before the first useful one. Secrets are absent on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from agent_operator.api.gateway import LABEL_SLICE_MANAGED_BY, MANAGED_BY
from agent_operator.api.names import LABEL_AGENT, LABEL_SHARD


class Kind(NamedTuple):
    """One namespaced kind: `api_version` as in manifests, `plural` as in URLs."""

    api_version: str
    kind: str
    plural: str

    @property
    def group(self) -> str:
        """API group, empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """Version without the group."""
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """URL path of a collection or an object; `namespace` None means all namespaces."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        parts = [root]
        if namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


AGENT = Kind("agentoperator.dev/v1alpha1", "AgentDeployment", "agentdeployments")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
SERVICE = Kind("v1", "Service", "services")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
POD = Kind("v1", "Pod", "pods")
ENDPOINT_SLICE = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
SCALED_OBJECT = Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects")
NODE = Kind("v1", "Node", "nodes")
RESOURCE_QUOTA = Kind("v1", "ResourceQuota", "resourcequotas")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
EVENT = Kind("events.k8s.io/v1", "Event", "events")

CHILDREN = (DEPLOYMENT, SERVICE, CONFIG_MAP, DISRUPTION_BUDGET, ENDPOINT_SLICE, AUTOSCALER)
WATCHED = (AGENT, *CHILDREN, POD)
"""What is listed and watched; all but AGENT only where LABEL_AGENT exists."""

_BY_NAME = {(k.api_version, k.kind): k for k in (*WATCHED, SCALED_OBJECT, LEASE, EVENT)}


def watched(*, keda: bool) -> tuple[Kind, ...]:
    """WATCHED, and where KEDA is used its kind, which other clusters do not have."""
    return (*WATCHED, SCALED_OBJECT) if keda else WATCHED


def kind_of(obj: Mapping[str, Any]) -> Kind:
    """The Kind of a manifest.

    Raises:
        LookupError: the operator has no business with this kind (a bug in a builder).
    """
    name = (obj.get("apiVersion", ""), obj.get("kind", ""))
    try:
        return _BY_NAME[name]
    except KeyError:
        raise LookupError(f"kind {name[1]!r} of {name[0]!r} is not in the table of kinds") from None


def selector_of(kind: Kind, shard: str | None = None) -> str:
    """Label selector, applied by the API server, under which a kind is listed and watched.

    `shard`: only what has this shard's label, "" for what has none; None for everything.
    """
    chosen = [] if kind == AGENT else [LABEL_AGENT]
    if kind == ENDPOINT_SLICE:
        chosen.append(f"{LABEL_SLICE_MANAGED_BY}={MANAGED_BY}")  # not those Kubernetes makes of our Services
    return ",".join(chosen + _of_shard(shard))


def selector_of_all_slices(shard: str | None = None) -> str:
    """The same for the EndpointSlices of agents' Services, whoever makes them."""
    return ",".join([LABEL_AGENT, *_of_shard(shard)])


def _of_shard(shard: str | None) -> list[str]:
    if shard is None:
        return []
    return [f"{LABEL_SHARD}={shard}" if shard else f"!{LABEL_SHARD}"]
