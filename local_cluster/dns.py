"""CoreDNS on the bridge address, for the names of services.

Layer: above control_plane. The one idea: a process of the host instead of a pod, so names resolve as soon as
the API server answers, and no image is needed for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from local_cluster import files
from local_cluster.api import ApiServer, answers
from local_cluster.control_plane import kubeconfig
from local_cluster.paths import BRIDGE_ADDRESS, CLUSTER_DOMAIN, Paths
from local_cluster.processes import Component

HEALTH = f"{BRIDGE_ADDRESS}:18080"
READY = f"{BRIDGE_ADDRESS}:18181"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
NAME = "local-cluster-dns"


def corefile(paths: Paths, host_resolver: Path = Path("/etc/resolv.conf")) -> str:
    """CoreDNS' configuration: the cluster's names here, others where the host asks, if anywhere."""
    has_upstream = host_resolver.exists() and "nameserver" in host_resolver.read_text()
    forward = (
        f"    forward . {host_resolver} {{\n        max_concurrent 1000\n    }}\n" if has_upstream else ""
    )
    return f""".:53 {{
    bind {BRIDGE_ADDRESS}
    errors
    health {HEALTH}
    ready {READY}
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig(paths, "dns")}
        pods insecure
        ttl 5
        fallthrough in-addr.arpa ip6.arpa
    }}
    cache 5
{forward}}}
"""


def write_configuration(paths: Paths) -> None:
    """Write the Corefile."""
    files.write(paths.run / "Corefile", corefile(paths))


def allow_reading(server: ApiServer) -> bool:
    """Let CoreDNS read what it serves; True when that is in place."""
    role: dict[str, Any] = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": NAME},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    }
    binding: dict[str, Any] = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": NAME},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": NAME}],
    }
    return server.create(f"{RBAC}/clusterroles", role) and server.create(
        f"{RBAC}/clusterrolebindings", binding
    )


def coredns(paths: Paths) -> Component:
    """The name server."""
    argv: list[str | Path] = [paths.bin / "coredns", "-conf", paths.run / "Corefile"]
    return Component("coredns", argv, lambda: answers(f"http://{READY}/ready"))
