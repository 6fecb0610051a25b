"""Keys and certificates, by the openssl command.

Layer: above paths. The one idea: a table of who needs which certificate. openssl because the standard library
can read certificates but not make them.
"""

from __future__ import annotations

import base64
import subprocess
from dataclasses import dataclass
from pathlib import Path

from local_cluster.errors import ClusterError
from local_cluster.paths import API_SERVICE_ADDRESS, API_URL, BRIDGE_ADDRESS, CLUSTER_DOMAIN, NODE_NAME

DAYS = "3650"


@dataclass(frozen=True)
class Certificate:
    """One leaf certificate: its file name, its subject, its issuer and, for servers, its names."""

    name: str
    subject: str
    issuer: str = "ca"
    alternative_names: tuple[str, ...] = ()


LEAVES = (
    Certificate(
        "apiserver",
        "/CN=kube-apiserver",
        alternative_names=(
            "DNS:localhost",
            "DNS:kubernetes",
            "DNS:kubernetes.default",
            "DNS:kubernetes.default.svc",
            f"DNS:kubernetes.default.svc.{CLUSTER_DOMAIN}",
            "IP:127.0.0.1",
            f"IP:{API_SERVICE_ADDRESS}",
            f"IP:{BRIDGE_ADDRESS}",
        ),
    ),
    Certificate("apiserver-to-kubelet", "/O=system:masters/CN=kube-apiserver-kubelet-client"),
    Certificate(
        "kubelet-server", f"/CN={NODE_NAME}", alternative_names=(f"DNS:{NODE_NAME}", f"IP:{BRIDGE_ADDRESS}")
    ),
    Certificate("front-proxy-client", "/CN=front-proxy-client", issuer="front-proxy-ca"),
    Certificate("admin", "/O=system:masters/CN=local-cluster-admin"),
    Certificate("controller-manager", "/CN=system:kube-controller-manager"),
    Certificate("scheduler", "/CN=system:kube-scheduler"),
    Certificate("proxy", "/CN=system:kube-proxy"),
    Certificate("node", f"/O=system:nodes/CN=system:node:{NODE_NAME}"),
    Certificate("dns", "/CN=local-cluster-dns"),
)


def create(pki: Path) -> None:
    """Make every key and certificate that is not there yet."""
    pki.mkdir(parents=True, exist_ok=True, mode=0o700)
    complete = pki / "complete"
    if complete.exists():
        return
    for authority in ("ca", "front-proxy-ca"):
        _new_key(pki / f"{authority}.key")
        subject = f"/CN=agent-operator-cluster-{authority}"
        usage = "keyUsage=critical,keyCertSign,cRLSign"
        _openssl("req", "-x509", "-new", "-key", pki / f"{authority}.key", "-subj", subject, "-days", DAYS,
                 "-addext", usage, "-out", pki / f"{authority}.crt")  # fmt: skip
    for leaf in LEAVES:
        _sign(pki, leaf)
    _new_key(pki / "service-account.key")
    _openssl("pkey", "-in", pki / "service-account.key", "-pubout", "-out", pki / "service-account.pub")
    complete.touch()


def ensure_leaf(pki: Path, leaf: Certificate) -> None:
    """Make one more certificate of a cluster that runs, if it is not there yet."""
    if not (pki / f"{leaf.name}.crt").exists():
        _sign(pki, leaf)


def _sign(pki: Path, leaf: Certificate) -> None:
    key, request, extensions = (pki / f"{leaf.name}.{suffix}" for suffix in ("key", "csr", "ext"))
    _new_key(key)
    _openssl("req", "-new", "-key", key, "-subj", leaf.subject, "-out", request)
    lines = [
        "basicConstraints=CA:FALSE",
        "keyUsage=digitalSignature",
        "extendedKeyUsage=serverAuth,clientAuth",
    ]
    if leaf.alternative_names:
        lines.append("subjectAltName=" + ",".join(leaf.alternative_names))
    extensions.write_text("\n".join(lines) + "\n")
    issuer = ("-CA", pki / f"{leaf.issuer}.crt", "-CAkey", pki / f"{leaf.issuer}.key", "-CAcreateserial")
    _openssl("x509", "-req", "-in", request, *issuer, "-days", DAYS, "-extfile", extensions,
             "-out", pki / f"{leaf.name}.crt")  # fmt: skip
    request.unlink()
    extensions.unlink()


def _new_key(path: Path) -> None:
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)
    path.chmod(0o600)


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"openssl {arguments[0]} failed: {done.stderr.strip()[-500:]}")


def kubeconfig(pki: Path, user: str) -> str:
    """A kubeconfig for one of the client certificates, with everything inside it."""

    def encoded(name: str) -> str:
        return base64.b64encode((pki / name).read_bytes()).decode()

    return f"""apiVersion: v1
kind: Config
clusters:
- name: agent-operator-cluster
  cluster:
    server: {API_URL}
    certificate-authority-data: {encoded("ca.crt")}
users:
- name: {user}
  user:
    client-certificate-data: {encoded(user + ".crt")}
    client-key-data: {encoded(user + ".key")}
contexts:
- name: agent-operator-cluster
  context:
    cluster: agent-operator-cluster
    user: {user}
current-context: agent-operator-cluster
"""
