"""metrics-server: the use of CPU and memory, for `kubectl top` and for autoscaling by CPU.

Layer: above control_plane. The one idea: a process beside the control plane, like the others, on loopback.
The API server finds it through a Service that is only a name for that address, so neither kube-proxy nor an
image is needed, and both sides check each other's certificate.

It is added on demand and not by `up`: it takes minutes to build, and asks the kubelet for the use of every
container four times a minute, which nobody but autoscaling by CPU needs and every benchmark would measure.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from local_cluster import certs, files
from local_cluster.api import ApiServer, answers
from local_cluster.control_plane import kubeconfig
from local_cluster.paths import Paths
from local_cluster.processes import Component

NAME = "metrics-server"
PACKAGE = "sigs.k8s.io/metrics-server"
SOURCE = (NAME, PACKAGE)
"""What `components.build_addon` builds it from."""
USER = "local-cluster-metrics-server"
NAMESPACE = "kube-system"
ADDRESS, PORT = "127.0.0.1", 10261
RESOLUTION_SECONDS = 15

RBAC = "/apis/rbac.authorization.k8s.io/v1"
SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"
API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
API = "v1beta1.metrics.k8s.io"

CERTIFICATE = certs.Certificate(NAME, f"/CN={USER}", alternative_names=(f"DNS:{NAME}.{NAMESPACE}.svc",))
"""Both its face to the API server that asks it, and its own name at the API server and at the kubelet."""


def wanted(paths: Paths) -> bool:
    """Whether the cluster has one, running or not."""
    return paths.metrics_server.is_symlink() and paths.with_node


def write_configuration(paths: Paths) -> None:
    """Its certificate, made late where the cluster is older, and its kubeconfig."""
    certs.ensure_leaf(paths.pki, CERTIFICATE)
    files.write(kubeconfig(paths, NAME), certs.kubeconfig(paths.pki, NAME))


def component(paths: Paths) -> Component:
    """The process. It has figures once it has seen a pod twice; its readiness would wait for a pod."""
    own, pki = kubeconfig(paths, NAME), paths.pki
    argv: list[str | Path] = [
        paths.metrics_server,
        f"--kubeconfig={own}",
        f"--authentication-kubeconfig={own}",
        f"--authorization-kubeconfig={own}",
        f"--bind-address={ADDRESS}",
        f"--secure-port={PORT}",
        f"--tls-cert-file={pki}/{NAME}.crt",
        f"--tls-private-key-file={pki}/{NAME}.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",
        "--kubelet-use-node-status-port",
        f"--metric-resolution={RESOLUTION_SECONDS}s",
    ]
    return Component(NAME, argv, lambda: answers(f"https://{ADDRESS}:{PORT}/livez"), timeout=120)


def allow(server: ApiServer) -> bool:
    """Let it read what it measures, and ask who its callers are; True when that is in place."""
    group = "rbac.authorization.k8s.io"
    subjects = [{"apiGroup": group, "kind": "User", "name": USER}]

    def binding(kind: str, name: str, role_kind: str, role: str, **metadata: str) -> dict[str, Any]:
        reference = {"apiGroup": group, "kind": role_kind, "name": role}
        return {
            "apiVersion": f"{group}/v1",
            "kind": kind,
            "metadata": {"name": name, **metadata},
            "roleRef": reference,
            "subjects": subjects,
        }

    role: dict[str, Any] = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": USER},
        "rules": [
            {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
        ],
    }
    reader = "extension-apiserver-authentication-reader"
    return (
        server.create(f"{RBAC}/clusterroles", role)
        and server.create(
            f"{RBAC}/clusterrolebindings", binding("ClusterRoleBinding", USER, "ClusterRole", USER)
        )
        and server.create(
            f"{RBAC}/clusterrolebindings",
            binding("ClusterRoleBinding", f"{USER}-callers", "ClusterRole", "system:auth-delegator"),
        )
        and server.create(
            f"{RBAC}/namespaces/{NAMESPACE}/rolebindings",
            binding("RoleBinding", USER, "Role", reader, namespace=NAMESPACE),
        )
    )


def service() -> dict[str, Any]:
    """The name under which the API server finds the process."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {"type": "ExternalName", "externalName": ADDRESS},
    }


def api_service(pki: Path) -> dict[str, Any]:
    """The registration of metrics.k8s.io with the API server."""
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": API},
        "spec": {
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "service": {"name": NAME, "namespace": NAMESPACE, "port": PORT},
            "caBundle": base64.b64encode((pki / "ca.crt").read_bytes()).decode(),
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        },
    }


def register(server: ApiServer, pki: Path) -> bool:
    """Make the API server pass metrics.k8s.io on; True when that is in place."""
    return server.create(SERVICES, service()) and server.create(API_SERVICES, api_service(pki))


def unregister(server: ApiServer) -> bool:
    """Take that back; True when nothing is left. An API without a server keeps namespaces from going."""
    return server.delete(f"{API_SERVICES}/{API}") and server.delete(f"{SERVICES}/{NAME}")


def serves(server: ApiServer) -> bool:
    """Whether the API server gets figures of a node."""
    found = server.get("/apis/metrics.k8s.io/v1beta1/nodes") or {}
    return bool(found.get("items"))
