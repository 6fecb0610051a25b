"""Removes what processes leave behind: containers' processes, mounts, namespaces, cgroups, sockets and links.

Layer: above network and processes. The one idea: nothing here asks a running component, so it works the same
after `down` and after everything was killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from local_cluster import network, processes
from local_cluster.errors import ClusterError
from local_cluster.paths import CNI_NETWORK, KUBELET_PLUGIN_DIR, Paths

CGROUP_ROOT = Path("/sys/fs/cgroup")
MNT_DETACH = 2


def sweep(paths: Paths) -> None:
    """Remove everything of a dead cluster but its data: etcd, keys, images, and the kubelet's folder."""
    sockets = list(_shim_sockets(paths))
    processes.end(processes.marked(paths), patience=5.0)
    _kill_containers()
    _unmount_under(paths.state)
    for socket in sockets:
        socket.unlink(missing_ok=True)
    _remove_cgroups()
    network.tear_down_links()
    network.tear_down_rules(paths)
    _remove_outside_files(paths)
    shutil.rmtree(paths.run, ignore_errors=True)


def _shim_sockets(paths: Paths) -> Iterator[Path]:
    """containerd's shims listen below /run/containerd wherever containerd is; they note where."""
    for note in (paths.run / "containerd").glob("io.containerd.runtime.v2.task/*/*/bootstrap.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            address = json.loads(note.read_text())["address"].removeprefix("unix://")
            if address.startswith("/"):
                yield Path(address)


def pod_cgroups() -> list[Path]:
    """The folder of all pods in the cgroup tree, or in each tree of cgroup v1."""
    return [
        folder for folder in (CGROUP_ROOT / "kubepods", *CGROUP_ROOT.glob("*/kubepods")) if folder.is_dir()
    ]


def _members(cgroup: Path) -> set[int]:
    pids: set[int] = set()
    for file in cgroup.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            pids |= {int(line) for line in file.read_text().split()}
    return pids


def _kill_containers() -> None:
    processes.end({pid for cgroup in pod_cgroups() for pid in _members(cgroup)}, patience=0.0)


def _remove_cgroups() -> None:
    for top in pod_cgroups():
        for folder, _, _ in os.walk(top, topdown=False):
            _remove_cgroup(Path(folder))


def _remove_cgroup(folder: Path) -> None:
    """Remove an empty cgroup; the kernel needs a moment after its last process ended."""
    for _ in range(100):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise ClusterError(f"the cgroup {folder} cannot be removed; processes in it: {sorted(_members(folder))}")


def mounts_under(folder: Path) -> list[str]:
    """Mount points in a folder, deepest and newest first."""
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == str(folder) or point.startswith(f"{folder}/"):
            points.append(point)
    return points[::-1]


def _unmount_under(folder: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(3):  # a mount may have been stacked on another
        for point in mounts_under(folder):
            if libc.umount2(point.encode(), 0):
                libc.umount2(point.encode(), MNT_DETACH)
    if left := mounts_under(folder):
        raise ClusterError(f"cannot unmount {', '.join(left[:5])}; try again, or unmount by hand")


def _remove_outside_files(paths: Paths) -> None:
    """Remove the few files that the kubelet and CNI put outside our folder."""
    for socket in (*KUBELET_PLUGIN_DIR.glob("*.sock"), KUBELET_PLUGIN_DIR / "kubelet.sock"):
        socket.unlink(missing_ok=True)
    for cached in Path("/var/lib/cni/results").glob(f"{CNI_NETWORK}-*"):
        cached.unlink(missing_ok=True)
    for link in Path("/var/log/containers").glob("*.log"):
        with contextlib.suppress(OSError):
            if str(link.readlink()).startswith(f"{paths.state}/"):
                link.unlink()


def remove_cluster_data(paths: Paths) -> None:
    """After `sweep`, remove the cluster itself and put the machine back as it was; images and logs stay."""
    for folder in (paths.etcd, paths.broken_etcd, paths.pki, paths.kubelet):
        shutil.rmtree(folder, ignore_errors=True)
    paths.metrics_server.unlink(missing_ok=True)
    if not paths.system_snapshot.exists():
        return
    for file in KUBELET_PLUGIN_DIR.glob("kubelet_internal_checkpoint"):
        file.unlink()
    found_before = network.recorded(paths).get("folders", [])
    for name in reversed(network.OUTSIDE_FOLDERS):
        if name not in found_before:
            with contextlib.suppress(OSError):
                Path(name).rmdir()
    network.restore_sysctls(paths)
    paths.system_snapshot.unlink()
