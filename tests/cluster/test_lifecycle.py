"""The embedded cluster's life on the real machine. Needs root; takes the cluster down and up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_cluster import lifecycle, network, processes, remains
from local_cluster.paths import BRIDGE, CHECKOUT
from tests.cluster.support import (
    PATHS,
    apply,
    attempt,
    deployment,
    down,
    kubectl,
    local_cluster,
    namespace,
    pod,
    service,
    up,
    wait_for,
)

pytestmark = pytest.mark.cluster

NAMES = {"containerd", "kubelet", "kube-apiserver", "kube-controller", "kube-scheduler", "kube-proxy", "etcd",
         "coredns", "docker-registry", "containerd-shim", "gpu-device-plug", "metrics-server", "pause",
         "probe"}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def cluster_stays_up() -> Iterator[None]:
    """However the tests end, others find the cluster as they left it: up."""
    up()
    yield
    up()


def pids() -> dict[str, int | None]:
    return {part.name: processes.running_pid(PATHS, part.name) for part in lifecycle.table(PATHS)}


def kill_everything() -> None:
    """Like a power cut, but for the kernel: no process of the cluster or its containers cleans up."""
    victims = processes.marked(PATHS)
    for cgroup in remains.pod_cgroups():
        for file in cgroup.rglob("cgroup.procs"):
            victims |= {int(line) for line in file.read_text().split()}
    assert victims
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not processes.marked(PATHS), "the killed processes to end")


def start_web(name: str) -> None:
    """A Deployment of a pod with a GPU, a volume, a host port and a Service: whatever leaves something
    behind.
    """
    web = pod("web", "serve", ":8080", namespace=name, gpus=1)
    web["spec"]["volumes"] = [{"name": "scratch", "emptyDir": {"medium": "Memory"}}]
    web["spec"]["containers"][0]["volumeMounts"] = [{"name": "scratch", "mountPath": "/scratch"}]
    open_space = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name},
    }  # restricted forbids host ports
    web["spec"]["containers"][0]["ports"] = [
        {"containerPort": 8080, "hostPort": 18555, "hostIP": "127.0.0.1"}
    ]
    apply(open_space, deployment(web), service("web", namespace=name))
    kubectl("-n", name, "rollout", "status", "deployment/web", "--timeout=90s")


def machine() -> dict[str, Any]:
    """What a cluster could leave behind, as seen without this package's help."""

    def lines(*command: str) -> set[str]:
        return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())

    def rules(tool: str) -> set[str]:
        # An empty built-in chain is the same as none.
        return {
            line for line in lines(tool) if line.startswith("-A") or (line.startswith(":") and " - " in line)
        }

    def comm(folder: Path) -> str:
        with contextlib.suppress(OSError):
            if " Z " not in (folder / "stat").read_text():  # an ended one that process 1 has yet to collect
                return (folder / "comm").read_text().strip()
        return ""

    return {
        "processes": {comm(folder) for folder in Path("/proc").glob("[0-9]*")} & NAMES,
        "mounts": {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
        "network namespaces": lines("lsns", "--type=net", "--noheadings", "--output=NS"),
        "named network namespaces": set(lines("ip", "netns", "list")),
        "links": {link["ifname"] for link in json.loads("".join(lines("ip", "-json", "link")))},
        "routes": lines("ip", "route", "show", "table", "all"),
        "rules": rules("iptables-save") | rules("ip6tables-save"),
        "pod cgroups": {str(folder) for folder in remains.pod_cgroups()},
        "settings": {name: (Path("/proc/sys") / name).read_text() for name in network.SYSCTLS},
        "shim sockets": {str(file) for file in Path("/run/containerd/s").glob("*")},
        "outside folders": {name for name in network.OUTSIDE_FOLDERS if Path(name).exists()},
    }


def test_up_on_a_healthy_cluster_changes_nothing() -> None:
    before = pids()

    printed = up()

    assert "already up" in printed
    assert pids() == before


def test_a_control_plane_without_a_node_is_another_cluster() -> None:
    refused = local_cluster("up", "--without-node")
    assert refused.returncode == 1
    assert "`down` first" in refused.stderr

    down()
    try:
        started = local_cluster("up", "--without-node")
        assert started.returncode == 0, started.stderr
        running = {name for name, pid in pids().items() if pid is not None}
        assert running == {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
        assert kubectl("get", "nodes", "-o", "name") == ""
        assert local_cluster("up").returncode == 1
    finally:
        down()
        up()


def test_up_restarts_only_the_part_that_died() -> None:
    before = pids()
    victim = before["kube-scheduler"]
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: pids()["kube-scheduler"] is None, "the scheduler to end")

    up()

    after = pids()
    assert after.pop("kube-scheduler") not in (None, before.pop("kube-scheduler"))
    assert after == before


def test_a_cluster_that_was_killed_comes_back_with_its_objects() -> None:
    start_web("survivor")
    time.sleep(1)  # etcd writes its log at most a tenth of a second late
    kill_everything()

    printed = up()

    assert "remains of a cluster" in printed
    # As after a power cut of a real node: a kubelet refuses pods whose devices are not back yet, and their
    # Deployment replaces them.
    ask = ("-n", "survivor", "exec", "deployment/web", "--", "/probe", "get", "http://web")
    wait_for(lambda: "GPU-" in attempt(*ask), "the pod's answer through its Service", seconds=120)
    kubectl("delete", "namespace", "survivor")


def test_a_torn_etcd_log_does_not_keep_the_cluster_down() -> None:
    kill_everything()
    log = max(PATHS.etcd.glob("member/wal/*.wal"))
    used = len(log.read_bytes().rstrip(b"\0"))
    os.truncate(log, used // 2)

    print(up())

    apply(namespace("after-torn"), pod("fresh", "wait", namespace="after-torn"))
    kubectl("-n", "after-torn", "wait", "--for=condition=Ready", "pod/fresh", "--timeout=90s")


def test_etcd_data_that_cannot_be_read_is_moved_aside_and_said_so() -> None:
    apply(namespace("lost"))
    kill_everything()
    for log in PATHS.etcd.glob("member/wal/*.wal"):
        log.write_bytes(b"\xff" * 4096)

    printed = up()

    assert "starting with an empty store" in printed
    assert str(PATHS.broken_etcd) in printed
    assert "lost" not in kubectl("get", "namespaces", "-o", "name")
    apply(namespace("after-loss"), pod("fresh", "wait", namespace="after-loss"))
    kubectl("-n", "after-loss", "wait", "--for=condition=Ready", "pod/fresh", "--timeout=90s")


def test_down_leaves_nothing_behind() -> None:
    down()
    before = machine()
    up()
    start_web("traces")
    during = machine()

    down()

    after = machine()
    for aspect in before:
        assert after[aspect] == before[aspect], aspect
    assert during["rules"] > before["rules"]  # the comparison can fail
    assert BRIDGE in during["links"]
    assert not after["processes"]
    assert not any("KUBE-" in rule or "CNI-" in rule for rule in after["rules"])
    assert not any(point.startswith(str(PATHS.state)) for point in after["mounts"])
    assert not processes.marked(PATHS)
    assert not PATHS.kubeconfig.exists()


def test_down_without_a_cluster_is_a_no_op() -> None:
    down()

    assert local_cluster("down").returncode == 0
    assert local_cluster("status").returncode == 1


def test_a_stranger_on_one_of_our_ports_is_named_and_left_alone() -> None:
    down()
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", 5000))
        stranger.listen()

        done = local_cluster("up")

    assert done.returncode == 2
    assert "port 5000" in done.stderr
    assert f"process {os.getpid()} " in done.stderr
    assert not network.bridge_exists()


def test_a_user_without_root_is_told_what_to_do() -> None:
    # The interpreter may lie where only root can read: load everything first, then become nobody.
    program = (
        "import os, sys, local_cluster.__main__ as command\n"
        "os.setgid(65534); os.setuid(65534); sys.argv[1:] = ['up']\n"
        "sys.exit(command.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert "root" in done.stderr
    assert "sudo" in done.stderr
    assert "Traceback" not in done.stderr
