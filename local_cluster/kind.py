"""The same cluster in Docker, for machines that have Docker and kind.

Layer: above images. The one idea: kind makes the cluster, and we add what the embedded cluster also has, a
registry on 127.0.0.1:5000 and two simulated GPUs, so that everything after `up` is the same.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from local_cluster import components, images
from local_cluster.console import say
from local_cluster.errors import ClusterError, UnsuitableMachineError
from local_cluster.paths import REGISTRY, Paths

HERE = Path(__file__).resolve().parent
CONFIGURATION = HERE / "kind.yaml"
GPU_MANIFEST = HERE / "kind-gpu.yaml"
CLUSTER = "agent-operator"
NODE = f"{CLUSTER}-control-plane"
REGISTRY_CONTAINER = "agent-operator-registry"
REGISTRY_IMAGE = "docker.io/library/registry:2"
GPU_IMAGE = "localhost/gpu-device-plugin:1"


def up(paths: Paths) -> None:
    """Create what is missing of registry, cluster and GPUs."""
    _require_commands()
    _start_registry()
    if CLUSTER not in _run("kind", "get", "clusters").split():
        say(f"creating the kind cluster {CLUSTER}")
        _run("kind", "create", "cluster", "--config", str(CONFIGURATION), "--wait", "120s")
    paths.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    _run("kind", "export", "kubeconfig", "--name", CLUSTER, "--kubeconfig", str(paths.kubeconfig))
    _connect_registry()
    _start_gpus(paths)
    say(f"the kind cluster is up\n  export KUBECONFIG={paths.kubeconfig}")


def down(paths: Paths) -> None:
    """Delete the cluster; the registry with its images stays, as with the embedded cluster."""
    _require_commands()
    _run("kind", "delete", "cluster", "--name", CLUSTER)
    paths.kubeconfig.unlink(missing_ok=True)
    say(f"the kind cluster is gone; its registry stays (docker rm -f {REGISTRY_CONTAINER} removes it)")


def status(paths: Paths) -> None:
    """Say whether the cluster exists."""
    _require_commands()
    if CLUSTER not in _run("kind", "get", "clusters").split():
        raise ClusterError(
            "the kind cluster does not exist; `python3 -m local_cluster --provider kind up` makes it"
        )
    say(f"the kind cluster {CLUSTER} exists, kubeconfig {paths.kubeconfig}")


def registry_hosts() -> str:
    """What the node's containerd must know: pull images named 127.0.0.1:5000/... from the registry's
    container.
    """
    return (
        f'server = "http://{REGISTRY}"\n'
        f'[host."http://{REGISTRY_CONTAINER}:5000"]\n'
        '  capabilities = ["pull", "resolve"]\n'
    )


def _require_commands() -> None:
    missing = [name for name in ("docker", "kind", "kubectl") if shutil.which(name) is None]
    if missing:
        raise UnsuitableMachineError(
            f"CLUSTER=kind needs {', '.join(missing)} on PATH. Install them "
            "(https://kind.sigs.k8s.io, kind v0.32 or newer), or leave CLUSTER unset: "
            "the embedded cluster needs no Docker."
        )
    done = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnsuitableMachineError(f"CLUSTER=kind needs a running Docker: {done.stderr.strip()[-300:]}")


def _start_registry() -> None:
    running = _run("docker", "ps", "--filter", f"name=^{REGISTRY_CONTAINER}$", "--format", "{{.Names}}")
    if running.strip():
        return
    subprocess.run(["docker", "rm", "--force", REGISTRY_CONTAINER], capture_output=True, check=False)
    name, volume = f"--name={REGISTRY_CONTAINER}", f"--volume={REGISTRY_CONTAINER}:/var/lib/registry"
    publish = f"--publish={REGISTRY}:5000"
    _run("docker", "run", "--detach", "--restart=always", name, publish, volume, REGISTRY_IMAGE)


def _connect_registry() -> None:
    networks = _run("docker", "inspect", "--format", "{{json .NetworkSettings.Networks}}", REGISTRY_CONTAINER)
    if '"kind"' not in networks:
        _run("docker", "network", "connect", "kind", REGISTRY_CONTAINER)
    folder = f"/etc/containerd/certs.d/{REGISTRY}"
    _run("docker", "exec", NODE, "mkdir", "-p", folder)
    _run(
        "docker",
        "exec",
        "--interactive",
        NODE,
        "cp",
        "/dev/stdin",
        f"{folder}/hosts.toml",
        text=registry_hosts(),
    )


def _start_gpus(paths: Paths) -> None:
    binary = components.build_one(paths, "gpu-device-plugin")
    archive = binary.with_suffix(".tar")
    archive.write_bytes(images.archive(binary, GPU_IMAGE))
    _run("kind", "load", "image-archive", str(archive), "--name", CLUSTER)
    kubectl = ("kubectl", "--kubeconfig", str(paths.kubeconfig))
    _run(*kubectl, "apply", "-f", str(GPU_MANIFEST))
    _run(
        *kubectl,
        "--namespace=kube-system",
        "rollout",
        "status",
        "daemonset/gpu-device-plugin",
        "--timeout=120s",
    )


def _run(*arguments: str, text: str | None = None) -> str:
    done = subprocess.run(arguments, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{' '.join(arguments)} failed: {(done.stderr or done.stdout).strip()[-800:]}")
    return done.stdout
