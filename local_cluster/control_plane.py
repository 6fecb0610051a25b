"""etcd, the API server, the controller manager and the scheduler.

Layer: above processes and api. The one idea: each is a row of command line and health URL; everything listens
on loopback or on the bridge only.
"""

from __future__ import annotations

import json
from pathlib import Path

from local_cluster import certs, files
from local_cluster.api import ApiServer, answers
from local_cluster.paths import BRIDGE_ADDRESS, SERVICE_CIDR, Paths
from local_cluster.processes import Component

ETCD_CLIENT = "http://127.0.0.1:23790"
ETCD_PEER = "http://127.0.0.1:23800"
KUBECONFIGS = ("controller-manager", "scheduler", "proxy", "node", "dns")

# Every write and every read by a person or workload, without bodies; not the endless reads and heartbeats of
# the cluster's own parts. Writes per object are counted from this log.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "None",
            "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi*", "/metrics"],
        },
        {
            "level": "None",
            "users": [
                "system:apiserver",
                "system:kube-controller-manager",
                "system:kube-scheduler",
                "system:kube-proxy",
                "local-cluster-dns",
                "local-cluster-metrics-server",
            ],
            "verbs": ["get", "list", "watch"],
        },
        {
            "level": "None",
            "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"],
            "verbs": ["get", "list", "watch"],
        },
        {
            "level": "None",
            "userGroups": ["system:nodes"],
            "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}],
        },
        {"level": "Metadata"},
    ],
}


def write_configuration(paths: Paths) -> None:
    """Certificates, kubeconfigs and the audit policy."""
    certs.create(paths.pki)
    for user in KUBECONFIGS:
        files.write(kubeconfig(paths, user), certs.kubeconfig(paths.pki, user))
    # JSON is YAML: no YAML writer is needed.
    files.write(paths.run / "audit-policy.json", json.dumps(AUDIT_POLICY, indent=1))


def kubeconfig(paths: Paths, user: str) -> Path:
    """The kubeconfig of one of the cluster's own parts."""
    return paths.run / f"{user}.kubeconfig"


def etcd(paths: Paths) -> Component:
    """The store. Its data may be lost without harm, so it does not wait for the disk."""
    argv: list[str | Path] = [
        paths.bin / "etcd",
        "--name=local",
        f"--data-dir={paths.etcd}",
        f"--listen-client-urls={ETCD_CLIENT}",
        f"--advertise-client-urls={ETCD_CLIENT}",
        f"--listen-peer-urls={ETCD_PEER}",
        f"--initial-advertise-peer-urls={ETCD_PEER}",
        f"--initial-cluster=local={ETCD_PEER}",
        "--unsafe-no-fsync",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=10m",
        "--quota-backend-bytes=4294967296",
        "--log-level=warn",
    ]
    return Component("etcd", argv, lambda: answers(f"{ETCD_CLIENT}/readyz"), timeout=15)


def api_server(paths: Paths) -> Component:
    """The API server, on the bridge address because pods must reach it and nobody outside should."""
    pki = paths.pki
    argv: list[str | Path] = [
        paths.bin / "kube-apiserver",
        f"--advertise-address={BRIDGE_ADDRESS}",
        f"--bind-address={BRIDGE_ADDRESS}",
        "--secure-port=6443",
        f"--etcd-servers={ETCD_CLIENT}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        # Without it logs and exec fail: the node's name resolves nowhere.
        "--kubelet-preferred-address-types=InternalIP",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-to-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-to-kubelet.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki}/service-account.pub",
        f"--service-account-signing-key-file={pki}/service-account.key",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
        f"--proxy-client-key-file={pki}/front-proxy-client.key",
        f"--audit-policy-file={paths.run}/audit-policy.json",
        f"--audit-log-path={paths.audit_log}",
        # MB. Thousands of simulated objects are measured in one log.
        f"--audit-log-maxsize={100 if paths.with_node else 2000}",
        "--audit-log-maxbackup=3",
        "--profiling=false",
    ]
    return Component("kube-apiserver", argv, lambda: ApiServer(pki).ready(), timeout=90)


def controller_manager(paths: Paths) -> Component:
    """The controllers: garbage collection, deployments, service accounts and the rest."""
    own = kubeconfig(paths, "controller-manager")
    argv: list[str | Path] = [
        paths.bin / "kube-controller-manager",
        *_delegated(own),
        f"--cluster-signing-cert-file={paths.pki}/ca.crt",
        f"--cluster-signing-key-file={paths.pki}/ca.key",
        f"--root-ca-file={paths.pki}/ca.crt",
        f"--service-account-private-key-file={paths.pki}/service-account.key",
        "--use-service-account-credentials=true",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]
    if not paths.with_node:
        # Simulated nodes send no heartbeats: a thousand of them would be half of all writes.
        argv.append("--controllers=*,-node-lifecycle-controller")
    return Component("kube-controller-manager", argv, lambda: answers("https://127.0.0.1:10257/healthz"))


def scheduler(paths: Paths) -> Component:
    """The scheduler."""
    argv: list[str | Path] = [paths.bin / "kube-scheduler", *_delegated(kubeconfig(paths, "scheduler")),
            "--kube-api-qps=200", "--kube-api-burst=400"]  # fmt: skip
    return Component("kube-scheduler", argv, lambda: answers("https://127.0.0.1:10259/healthz"))


def _delegated(own: Path) -> list[str]:
    """Flags of a part that asks the API server who its callers are; alone, it needs no leader election."""
    return [
        f"--kubeconfig={own}",
        f"--authentication-kubeconfig={own}",
        f"--authorization-kubeconfig={own}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--profiling=false",
    ]
