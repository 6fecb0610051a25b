"""A control plane of its own with simulated GPU nodes. Layer: tooling.

The one idea: API server, etcd, scheduler and controllers are real and have both cores to themselves and
the operators; kubelets are played by kwok, so a thousand nodes fit on one machine. The simulated pods'
addresses are those of a network namespace while the nodes exist: whoever asks such a pod is answered there,
or refused at once, and nothing leaves the machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psutil

from bench.fleet.client import MERGE, Client, in_parallel, run
from bench.signals.runtimes import answering
from local_cluster.network import command
from local_cluster.paths import Paths
from local_cluster.processes import running_pid
from tests.support.kubectl import ROOT

STAGES = Path(__file__).with_name("stages.yaml")
GPUS_PER_NODE = "8"
POD_CIDR = "198.18.0.0/15"
"""Set aside for benchmarks by RFC 2544, so no cluster and no network uses it."""
NETNS, LINK = "simulated-pods", "simulated0"
OUTSIDE, INSIDE = "169.254.77.1", "169.254.77.2"
TAINT = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
"""Only who tolerates it lands on a simulated node."""


def node(name: str) -> dict[str, Any]:
    """A simulated node with GPUs."""
    capacity = {"cpu": "96", "memory": "1Ti", "pods": "250", "nvidia.com/gpu": GPUS_PER_NODE}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"type": "kwok", "kubernetes.io/hostname": name}},
        "spec": {"taints": [TAINT]},
        "status": {"capacity": capacity, "allocatable": capacity},
    }


def local_cluster(*arguments: str) -> int:
    return subprocess.run(
        [sys.executable, "-m", "local_cluster", *arguments], cwd=ROOT, check=False
    ).returncode


@contextmanager
def control_plane() -> Iterator[None]:
    """Takes a running cluster down and starts a fresh control plane without a node; puts back what was."""
    was_up = local_cluster("status") == 0
    local_cluster("down")
    if local_cluster("up", "--without-node"):
        raise SystemExit("the control plane did not start")
    os.environ["KUBECONFIG"] = str(ROOT / ".local" / "kubeconfig")
    try:
        yield
    finally:
        local_cluster("down")
        if was_up:
            local_cluster("up")


@contextmanager
def pod_network() -> Iterator[None]:
    """A network namespace to which all addresses of simulated pods belong."""
    _remove_network()  # what an interrupted run left
    command("ip", "netns", "add", NETNS)
    command("ip", "link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", NETNS)
    command("ip", "address", "add", f"{OUTSIDE}/30", "dev", LINK)
    command("ip", "link", "set", LINK, "up")
    for inside in (f"address add {INSIDE}/30 dev eth0", "link set eth0 up", "link set lo up",
                    f"route add local {POD_CIDR} dev lo", f"route add default via {OUTSIDE}"):  # fmt: skip
        command("ip", "-n", NETNS, *inside.split())
    command("ip", "route", "add", POD_CIDR, "via", INSIDE)
    try:
        yield
    finally:
        _remove_network()


def _remove_network() -> None:
    """The namespace takes its link along, and the link its route."""
    if Path("/run/netns", NETNS).exists():
        command("ip", "netns", "delete", NETNS)


def simulated_replicas() -> AbstractContextManager[None]:
    """Every simulated pod says how it is, as a replica at work does; all the same record."""
    return answering("ip", "netns", "exec", NETNS)


@contextmanager
def simulated(count: int, folder: Path, *, heartbeats: bool = False) -> Iterator[None]:
    """`count` GPU nodes played by kwok; with `heartbeats` also for a cluster that watches over its nodes."""
    with pod_network():
        yield from _simulated(count, folder, heartbeats)


def _simulated(count: int, folder: Path, heartbeats: bool) -> Iterator[None]:
    names = [f"kwok-{i:04}" for i in range(count)]

    async def make(client: Client) -> None:
        await in_parallel([client.job("POST", "/api/v1/nodes", node(name)) for name in names])
        # The API server taints a new node as not ready, and without the controller of nodes nobody unties it.
        taints = {"spec": {"taints": [TAINT]}}
        await in_parallel([client.job("PATCH", f"/api/v1/nodes/{name}", taints, MERGE) for name in names])

    async def unmake(client: Client) -> None:
        await in_parallel([client.job("DELETE", f"/api/v1/nodes/{name}") for name in names])

    arguments = [
        str(ROOT / ".local/bin/kwok"), f"--kubeconfig={os.environ['KUBECONFIG']}", f"--config={STAGES}",
        "--manage-nodes-with-label-selector=type=kwok",
        f"--node-lease-duration-seconds={40 if heartbeats else 0}",
        f"--cidr={POD_CIDR}", "--v=ERROR",
    ]  # fmt: skip
    with (folder / "kwok.log").open("wb") as log:
        kwok = subprocess.Popen(arguments, stdout=log, stderr=log)
    try:
        run(unmake)  # what an interrupted run left
        run(make)
        _await_ready(count)
        yield
    finally:
        run(unmake)
        kwok.terminate()
        kwok.wait()


def footprint() -> dict[str, float]:
    """What the control plane takes at this moment, in MiB: etcd's file, and resident memory of its parts."""
    paths = Paths.from_environment()
    database = paths.etcd / "member" / "snap" / "db"
    found = {"etcd_file": database.stat().st_size / 2**20}
    for part in ("etcd", "kube-apiserver", "kube-controller-manager"):
        pid = running_pid(paths, part)
        if pid is not None:
            found[part] = psutil.Process(pid).memory_info().rss / 2**20
    return {name: round(value, 1) for name, value in found.items()}


def _await_ready(count: int) -> None:
    deadline = time.monotonic() + 120
    ready = 0
    while ready < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"{ready} of {count} simulated nodes are ready")
        time.sleep(1)
        command = [str(ROOT / ".local/bin/kubectl"), "get", "nodes", "--no-headers"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        ready = sum(line.split()[1] == "Ready" for line in lines)
