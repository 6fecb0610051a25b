"""ScaledObject of an agent, for KEDA. Layer: core, pure; imports api and core.*.

The one idea: one query that adds up what the replicas have in flight and what the gateway holds, so the
same number that says how many replicas are needed also wakes an agent that has none. A query that finds
nothing at all is an error and changes nothing: a Prometheus that lost everything puts nobody to sleep.
"""

from __future__ import annotations

from typing import Any

from agent_operator.api.autoscaling import Autoscaling
from agent_operator.core import naming
from agent_operator.core.children.hpa import RUNNING, WAITING, behavior, scale_target
from agent_operator.core.children.metadata import Owner, metadata

KIND_NAME = "ScaledObject"
HELD = "agentoperator_gateway_held_requests"
"""The gateway's gauge of requests that wait for a replica, by namespace and agent."""
POLLING_SECONDS = 10


def scaled_object(owner: Owner, autoscaling: Autoscaling, prometheus_address: str) -> dict[str, Any]:
    """The ScaledObject `<agent>`; `prometheus_address` is the URL that KEDA asks."""
    trigger = {
        "serverAddress": prometheus_address,
        "query": query(owner),
        "threshold": str(autoscaling.target_concurrency),
        "ignoreNullValues": "false",
    }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": KIND_NAME,
        "metadata": metadata(owner, naming.agent_stem(owner.name)),
        "spec": {
            "scaleTargetRef": scale_target(owner),
            "minReplicaCount": autoscaling.min_replicas,
            "maxReplicaCount": autoscaling.max_replicas,
            "pollingInterval": POLLING_SECONDS,
            "cooldownPeriod": autoscaling.scale_down_delay_seconds,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior(autoscaling)}},
            "triggers": [{"type": "prometheus", "metadata": trigger}],
        },
    }


def query(owner: Owner) -> str:
    """PromQL: requests of one agent that run, wait or are held, in all."""
    names = "|".join((RUNNING, WAITING, HELD))
    where = f'namespace="{owner.namespace}",agent="{naming.agent_stem(owner.name)}"'
    return f'sum({{__name__=~"{names}",{where}}})'
