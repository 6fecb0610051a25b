"""The node: containerd, kubelet, kube-proxy and the GPUs.

Layer: above control_plane. The one idea: the node is real, and every setting that differs from a default says
which trap it avoids.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from local_cluster import files
from local_cluster.api import accepts, answers
from local_cluster.control_plane import kubeconfig
from local_cluster.paths import (
    BRIDGE,
    BRIDGE_ADDRESS,
    CLUSTER_DOMAIN,
    CNI_NETWORK,
    KUBELET_PLUGIN_DIR,
    NODE_NAME,
    POD_CIDR,
    REGISTRY,
    Paths,
)
from local_cluster.processes import Component

PAUSE_IMAGE = "localhost/pause:1"  # a name without a registry host would be looked up at a public one
GPUS = ("GPU-0", "GPU-1")
GPU_RESOURCE = "nvidia.com/gpu"
LABELS = {
    "agentoperator.dev/local-cluster": "true",
    "nvidia.com/gpu.present": "true",
    "nvidia.com/gpu.count": str(len(GPUS)),
    "nvidia.com/gpu.product": "simulated",
    "topology.kubernetes.io/zone": "local",
}


def write_configuration(paths: Paths) -> None:
    """Everything containerd, CNI, the kubelet and kube-proxy read."""
    _write_containerd(paths)
    _write_cni(paths)
    files.write(paths.run / "kubelet.json", json.dumps(kubelet_configuration(paths), indent=1))
    files.write(paths.run / "kube-proxy.json", json.dumps(proxy_configuration(paths), indent=1))


def _write_containerd(paths: Paths) -> None:
    hosts = paths.run / "certs.d" / REGISTRY
    files.write(
        hosts / "hosts.toml",
        f'server = "http://{REGISTRY}"\n[host."http://{REGISTRY}"]\n'
        '  capabilities = ["pull", "resolve", "push"]\n',
    )
    files.write(
        paths.run / "containerd.toml",
        f"""version = 3
root = "{paths.containerd}"
state = "{paths.run}/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.erofs", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{paths.containerd_socket}"
[plugins.'io.containerd.internal.v1.opt']
  path = "{paths.run}/containerd-opt"
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{PAUSE_IMAGE}"
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = "{paths.run}/certs.d"
[plugins.'io.containerd.cri.v1.runtime']
  # Root without CAP_SYS_RESOURCE cannot lower oom_score_adj: every sandbox would die with
  # "can't get final child's PID from pipe: EOF".
  restrict_oom_score_adj = true
  # Network namespaces under our own folder, where `down` finds them.
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{cni_plugins()}"]
    conf_dir = "{paths.run}/cni"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = "{shutil.which("runc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")}"
      SystemdCgroup = false
""",
    )


def cni_plugins() -> Path | None:
    """Where the CNI plugins are: Debian's package has a place of its own."""
    places = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
    return next((place for place in places if (place / "bridge").exists()), None)


def _write_cni(paths: Paths) -> None:
    configuration = {
        "cniVersion": "1.0.0",
        "name": CNI_NETWORK,
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": True,
                "hairpinMode": True,  # a pod may reach itself through its Service
                "ipam": {
                    "type": "host-local",
                    "dataDir": f"{paths.run}/cni-addresses",
                    "ranges": [[{"subnet": POD_CIDR, "gateway": BRIDGE_ADDRESS}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        ],
    }
    files.write(paths.run / "cni" / "10-bridge.conflist", json.dumps(configuration, indent=1))


def kubelet_configuration(paths: Paths) -> dict[str, Any]:
    """The kubelet's configuration file."""
    resolver = Path("/etc/resolv.conf")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": BRIDGE_ADDRESS,
        "healthzBindAddress": "127.0.0.1",
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{paths.pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{paths.pki}/kubelet-server.crt",
        "tlsPrivateKeyFile": f"{paths.pki}/kubelet-server.key",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,  # nothing needs them any more, and `down` has less to remove
        "containerRuntimeEndpoint": f"unix://{paths.containerd_socket}",
        "podLogsDir": f"{paths.run}/pod-logs",
        "volumePluginDir": f"{paths.kubelet}/volume-plugins",
        "clusterDomain": CLUSTER_DOMAIN,
        "clusterDNS": [BRIDGE_ADDRESS],
        "resolvConf": str(resolver) if resolver.exists() else "",
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        # A full disk is the developer's business: evicting pods for it would only hide what happened.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
                         "imagefs.available": "0%", "imagefs.inodesFree": "0%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        # Sooner than the defaults, so that a change or a failure shows in seconds and not in minutes.
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
        "crashLoopBackOff": {"maxContainerRestartPeriod": "10s"},
    }  # fmt: skip


def proxy_configuration(paths: Paths) -> dict[str, Any]:
    """kube-proxy's configuration file."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "bindAddress": BRIDGE_ADDRESS,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "hostnameOverride": NODE_NAME,
        "clientConnection": {"kubeconfig": str(kubeconfig(paths, "proxy"))},
        # Masquerading all service traffic makes answers between pods of one bridge come back through the
        # host, where the translation is undone, whether or not the kernel passes bridged packets to iptables.
        "iptables": {
            "masqueradeAll": True,
            "localhostNodePorts": False,
            "syncPeriod": "30s",
            "minSyncPeriod": "0s",
        },
        "nodePortAddresses": [f"{BRIDGE_ADDRESS}/32"],
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def containerd(paths: Paths) -> Component:
    """The container runtime, with root, state and socket of its own."""
    argv: list[str | Path] = [paths.bin / "containerd", "--config", paths.run / "containerd.toml"]
    return Component("containerd", argv, lambda: accepts(paths.containerd_socket), timeout=30)


def kubelet(paths: Paths) -> Component:
    """The kubelet, registering the node under its fixed name and the bridge address."""
    argv: list[str | Path] = [
        paths.bin / "kubelet",
        f"--config={paths.run}/kubelet.json",
        f"--kubeconfig={kubeconfig(paths, 'node')}",
        f"--root-dir={paths.kubelet}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={BRIDGE_ADDRESS}",
        "--node-labels=" + ",".join(f"{name}={value}" for name, value in LABELS.items()),
    ]
    return Component("kubelet", argv, lambda: answers("http://127.0.0.1:10248/healthz"))


def proxy(paths: Paths) -> Component:
    """kube-proxy, which turns service addresses into pod addresses."""
    argv: list[str | Path] = [paths.bin / "kube-proxy", f"--config={paths.run}/kube-proxy.json"]
    return Component("kube-proxy", argv, lambda: answers("http://127.0.0.1:10256/livez"))


def gpu_device_plugin(paths: Paths) -> Component:
    """The GPUs. No compute is behind them; the kubelet counts, hands out and loses them like real ones."""
    argv: list[str | Path] = [
        paths.bin / "gpu-device-plugin",
        f"--resource={GPU_RESOURCE}",
        f"--devices={','.join(GPUS)}",
        f"--plugin-dir={KUBELET_PLUGIN_DIR}",
        f"--unhealthy-file={paths.unhealthy_gpus}",
    ]
    socket = KUBELET_PLUGIN_DIR / (GPU_RESOURCE.replace("/", "-") + ".sock")
    return Component("gpu-device-plugin", argv, lambda: accepts(socket))
