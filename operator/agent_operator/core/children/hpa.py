"""HorizontalPodAutoscaler of an agent. Layer: core, pure; imports api and core.*.

The one idea: it scales the AgentDeployment through its /scale subresource and never a Deployment, so a
rollout does not concern it, and the number it decides on stands where users look for it: spec.replicas.

By CPU it needs metrics-server alone. By requests it needs an adapter that serves the runtime's metrics as
custom metrics. The runtime has no gauge of all requests in flight, and an autoscaler cannot add two up: it
is given both that there are, and follows the one that asks for more replicas.
"""

from __future__ import annotations

from typing import Any

from agent_operator.api import AgentDeploymentSpec
from agent_operator.api.autoscaling import Autoscaling
from agent_operator.api.names import API_VERSION, KIND, RUNTIME_CONTAINER
from agent_operator.core import naming
from agent_operator.core.children.metadata import Owner, metadata
from agent_operator.core.children.pod import resources
from agent_operator.core.children.template import merge
from agent_operator.core.reading import at, mappings, text

KIND_NAME = "HorizontalPodAutoscaler"
RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
"""Gauges of the runtime that together are its requests in flight."""
MAX_WINDOW_SECONDS = 3600
"""The longest stabilization window that the API server admits."""


def hpa(owner: Owner, autoscaling: Autoscaling) -> dict[str, Any]:
    """The HorizontalPodAutoscaler `<agent>`."""
    return {
        "apiVersion": "autoscaling/v2",
        "kind": KIND_NAME,
        "metadata": metadata(owner, naming.agent_stem(owner.name)),
        "spec": {
            "scaleTargetRef": scale_target(owner),
            "minReplicas": autoscaling.min_replicas,
            "maxReplicas": autoscaling.max_replicas,
            "metrics": _metrics(autoscaling),
            "behavior": behavior(autoscaling),
        },
    }


def scale_target(owner: Owner) -> dict[str, str]:
    """The AgentDeployment, as scalers refer to it."""
    return {"apiVersion": API_VERSION, "kind": KIND, "name": owner.name}


def behavior(autoscaling: Autoscaling) -> dict[str, Any]:
    """How long a demand must last before replicas follow it, each way."""
    down = min(autoscaling.scale_down_delay_seconds, MAX_WINDOW_SECONDS)
    return {
        "scaleUp": {"stabilizationWindowSeconds": autoscaling.scale_up_delay_seconds},
        "scaleDown": {"stabilizationWindowSeconds": down},
    }


def cpu_problem(spec: AgentDeploymentSpec) -> str | None:
    """Why the use of CPU in percent cannot be measured, None when it can or is not asked for.

    An autoscaler refuses a pod of which any container that runs all the time has no cpu request.
    """
    if spec.autoscaling is None or spec.autoscaling.target_cpu_utilization_percent is None:
        return None
    ours = {"containers": [{"name": RUNTIME_CONTAINER, "resources": resources(spec)}]}
    template = spec.template.to_manifest() if spec.template else {}
    pod = merge(ours, template.get("spec") or {})
    sidecars = [c for c in mappings(pod, "initContainers") if c.get("restartPolicy") == "Always"]
    for container in [*mappings(pod, "containers"), *sidecars]:
        amounts = (at(container, "resources", side, "cpu") for side in ("requests", "limits"))
        if all(amount is None for amount in amounts):
            name = text(container, "name")
            field = "spec.resources.requests.cpu"
            if name != RUNTIME_CONTAINER:
                field = f"resources.requests.cpu of that container in spec.template, beside {field}"
            return f"container {name} has no cpu request to take percents of; set {field}"
    return None


def _metrics(autoscaling: Autoscaling) -> list[dict[str, Any]]:
    if (percent := autoscaling.target_cpu_utilization_percent) is not None:
        target = {"type": "Utilization", "averageUtilization": percent}
        return [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    return [_average(name, autoscaling.target_concurrency) for name in (RUNNING, WAITING)]


def _average(metric: str, value: int) -> dict[str, Any]:
    target = {"type": "AverageValue", "averageValue": str(value)}
    return {"type": "Pods", "pods": {"metric": {"name": metric}, "target": target}}
