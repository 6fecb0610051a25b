"""A kopf operator as its tutorials write one: a peer of the operator benchmarks.

Layer: tooling. create/update/resume handlers that make each child with the typed client and patch it
where it is there already, a result stored in the status, a timer that looks after the Deployment. Written
fairly: no sleeps, no needless reads, default settings, one client for all handlers.

`kopf run bench/peers/naive_kopf.py --namespace NAMESPACE` restricts it to one namespace.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import kopf
import kubernetes

from bench.peers import children

OF_PEER_AGENT = (children.GROUP, children.VERSION, children.PLURAL)
TEMPLATES = children.load()


@kopf.on.startup()  # type: ignore[untyped-decorator]
def configure(**_: Any) -> None:
    kubernetes.config.load_kube_config()


@cache
def apps() -> Any:
    return kubernetes.client.AppsV1Api()


@cache
def core() -> Any:
    return kubernetes.client.CoreV1Api()


@cache
def policy() -> Any:
    return kubernetes.client.PolicyV1Api()


def verbs(kind: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """How a kind is created and how it is patched."""
    if kind == "ConfigMap":
        return core().create_namespaced_config_map, core().patch_namespaced_config_map
    if kind == "Service":
        return core().create_namespaced_service, core().patch_namespaced_service
    if kind == "Deployment":
        return apps().create_namespaced_deployment, apps().patch_namespaced_deployment
    return (
        policy().create_namespaced_pod_disruption_budget,
        policy().patch_namespaced_pod_disruption_budget,
    )


@kopf.on.create(*OF_PEER_AGENT)  # type: ignore[untyped-decorator]
@kopf.on.update(*OF_PEER_AGENT)  # type: ignore[untyped-decorator]
@kopf.on.resume(*OF_PEER_AGENT)  # type: ignore[untyped-decorator]
def reconcile(name: str, namespace: str, uid: str, spec: Any, old: Any, **_: Any) -> dict[str, str]:
    """Creates each child, or patches it when it is there."""
    replicas = spec.get("replicas", 1)
    for body in children.filled(TEMPLATES, name, namespace, uid, replicas):
        kopf.adopt(body)
        create, patch = verbs(body["kind"])
        try:
            create(namespace, body)
        except kubernetes.client.ApiException as error:
            if error.status != 409:
                raise
            patch(body["metadata"]["name"], namespace, body)
    if replicas <= 1 < ((old or {}).get("spec") or {}).get("replicas", 1):
        forget_budget(name, namespace)
    return {"children": "applied"}


def forget_budget(name: str, namespace: str) -> None:
    """One replica needs no PodDisruptionBudget."""
    try:
        policy().delete_namespaced_pod_disruption_budget(name, namespace)
    except kubernetes.client.ApiException as error:
        if error.status != 404:
            raise


@kopf.timer(*OF_PEER_AGENT, interval=60, initial_delay=60)  # type: ignore[untyped-decorator]
def look_after(name: str, namespace: str, uid: str, spec: Any, **_: Any) -> dict[str, str]:
    """Looks at the Deployment once a minute and reports."""
    made = children.filled(TEMPLATES, name, namespace, uid, spec.get("replicas", 1))
    deployment = next(body for body in made if body["kind"] == "Deployment")
    found = apps().read_namespaced_deployment(deployment["metadata"]["name"], namespace)
    return {"ready": str(found.status.ready_replicas or 0)}
