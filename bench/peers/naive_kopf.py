"""A kopf operator as its tutorials write one: the peer of the operator benchmarks.

create/update/resume handlers that apply five children with the typed client, a result stored in
status, a timer that looks after them. Written fairly: no sleeps, no needless reads, default settings.
"""

from __future__ import annotations

from typing import Any

import kopf
import kubernetes

GROUP, VERSION, PLURAL = "bench.agentoperator.dev", "v1", "naiveagents"


@kopf.on.startup()
def configure(**_: Any) -> None:
    kubernetes.config.load_kube_config()


def child_bodies(name: str) -> list[tuple[str, dict[str, Any]]]:
    """The same five children an AgentDeployment has, with no pods wanted."""
    labels = {"bench": name}
    container = {"name": "runtime", "image": "localhost/none:1"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": pod}
    service = {"selector": labels, "ports": [{"port": 80, "targetPort": 8000}]}
    budget = {"maxUnavailable": 1, "selector": {"matchLabels": labels}}
    return [
        ("ServiceAccount", {"metadata": {"name": name}}),
        ("ConfigMap", {"metadata": {"name": name}, "data": {"config.json": "{}"}}),
        ("Deployment", {"metadata": {"name": name}, "spec": spec}),
        ("Service", {"metadata": {"name": name}, "spec": service}),
        ("PodDisruptionBudget", {"metadata": {"name": name}, "spec": budget}),
    ]


def clients() -> dict[str, Any]:
    core, apps, policy = (
        kubernetes.client.CoreV1Api(),
        kubernetes.client.AppsV1Api(),
        kubernetes.client.PolicyV1Api(),
    )
    return {
        "ServiceAccount": (core.create_namespaced_service_account, core.patch_namespaced_service_account),
        "ConfigMap": (core.create_namespaced_config_map, core.patch_namespaced_config_map),
        "Deployment": (apps.create_namespaced_deployment, apps.patch_namespaced_deployment),
        "Service": (core.create_namespaced_service, core.patch_namespaced_service),
        "PodDisruptionBudget": (
            policy.create_namespaced_pod_disruption_budget,
            policy.patch_namespaced_pod_disruption_budget,
        ),
    }


@kopf.on.create(GROUP, VERSION, PLURAL)  # type: ignore[arg-type]
@kopf.on.update(GROUP, VERSION, PLURAL)  # type: ignore[arg-type]
@kopf.on.resume(GROUP, VERSION, PLURAL)  # type: ignore[arg-type]
def reconcile(name: str, namespace: str, **_: Any) -> dict[str, str]:
    """Creates each child, or patches it when it is there."""
    verbs = clients()
    for kind, body in child_bodies(name):
        kopf.adopt(body)
        create, patch = verbs[kind]
        try:
            create(namespace, body)
        except kubernetes.client.ApiException as error:
            if error.status != 409:
                raise
            patch(name, namespace, body)
    return {"children": "applied"}


@kopf.timer(GROUP, VERSION, PLURAL, interval=60, initial_delay=60)  # type: ignore[arg-type]
def look_after(name: str, namespace: str, **_: Any) -> dict[str, str]:
    """Looks at the Deployment once a minute and reports."""
    found = kubernetes.client.AppsV1Api().read_namespaced_deployment(name, namespace)
    return {"ready": str(found.status.ready_replicas or 0)}
