"""Where everything of the embedded cluster lies, and its fixed addresses.

Layer: bottom, imports nothing of this package. The one idea: one object names every path, so that `down` and
`purge` can remove exactly what was made.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]

BRIDGE = "aocni0"  # a name of its own: cni0 may belong to another cluster
BRIDGE_ADDRESS = "10.244.0.1"
POD_CIDR = "10.244.0.0/24"
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
API_URL = f"https://{BRIDGE_ADDRESS}:6443"
CLUSTER_DOMAIN = "cluster.local"
NODE_NAME = "local-gpu-node"
CNI_NETWORK = "agent-operator-cluster"
REGISTRY = "127.0.0.1:5000"
WITHOUT_NODE = "without-node"  # a file in the run folder of a cluster that is a control plane only
KUBELET_PLUGIN_DIR = Path("/var/lib/kubelet/device-plugins")  # the kubelet's, whatever its --root-dir


@dataclass(frozen=True)
class Paths:
    """Every path the cluster uses, derived from its state and cache folders."""

    state: Path
    cache: Path
    kubeconfig: Path
    with_node: bool = True
    """Whether there is a machine that runs pods; without one it is a control plane for simulated nodes."""

    @staticmethod
    def from_environment() -> Paths:
        """Honour LOCAL_CLUSTER_DIR and XDG_CACHE_HOME; the admin kubeconfig stays in the checkout."""
        state = Path(os.environ.get("LOCAL_CLUSTER_DIR") or "/var/lib/agent-operator-cluster").absolute()
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        with_node = not (state / "run" / WITHOUT_NODE).exists()
        cache, kubeconfig = caches / "agent-operator" / "components", CHECKOUT / ".local" / "kubeconfig"
        return Paths(state, cache, kubeconfig, with_node)

    # Lost with `down`: the cluster itself.
    @property
    def run(self) -> Path:
        """Pid files, sockets, generated configuration and the mounts of containers."""
        return self.state / "run"

    @property
    def etcd(self) -> Path:
        return self.state / "etcd"

    @property
    def broken_etcd(self) -> Path:
        """Data that etcd could not open, moved aside by `up`."""
        return self.state / "etcd.broken"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def kubelet(self) -> Path:
        return self.state / "kubelet"

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"

    @property
    def unhealthy_gpus(self) -> Path:
        """A test writes the name of a GPU here to break it."""
        return self.run / "unhealthy-gpus"

    @property
    def metrics_server(self) -> Path:
        """A link to the metrics-server's binary, there while the cluster has one."""
        return self.state / "metrics-server"

    @property
    def system_snapshot(self) -> Path:
        """What `up` found on the machine, for `down` to put back."""
        return self.state / "system-before-up.json"

    # Kept by `down`, removed by `purge`: what makes the next `up` quick, and what explains the last one.
    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def audit_log(self) -> Path:
        return self.logs / "audit.log"

    @property
    def containerd(self) -> Path:
        """Pulled images."""
        return self.state / "containerd"

    @property
    def registry(self) -> Path:
        """Pushed images."""
        return self.state / "registry"

    @property
    def bin(self) -> Path:
        """A link to the binaries in use."""
        return self.state / "bin"

    @property
    def checkout_bin(self) -> Path:
        """The same link inside the checkout, for people and Makefiles."""
        return self.kubeconfig.parent / "bin"
