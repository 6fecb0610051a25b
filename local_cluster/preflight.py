"""Finds out before anything is touched whether this machine can carry the cluster.

Layer: above network. The one idea: one clear message with what to do, exit code 2, and the machine as it was.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from local_cluster import components, network, processes
from local_cluster.console import say
from local_cluster.errors import UnsuitableMachineError
from local_cluster.paths import BRIDGE_ADDRESS, Paths

GIB = 1 << 30
DISK_TO_BUILD = 15 * GIB
DISK_TO_RUN = 5 * GIB
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
OTHERWISE = "With Docker and kind: CLUSTER=kind. With a cluster of your own: CLUSTER=existing."

# Debian package: a file that shows it is installed.
PACKAGES = {
    "runc": "/usr/sbin/runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "conntrack": "/usr/sbin/conntrack",
    "iptables": "/usr/sbin/iptables",
    "iproute2": "/bin/ip",
    "openssl": "/usr/bin/openssl",
    "docker-registry": "/usr/bin/docker-registry",
    "buildah": "/usr/bin/buildah",
    "mmdebstrap": "/usr/bin/mmdebstrap",
    "ca-certificates": "/etc/ssl/certs/ca-certificates.crt",
}
POLICY = Path("/usr/sbin/policy-rc.d")


def architecture() -> str:
    """This machine's architecture as Go and OCI images name it."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


def check_machine(paths: Paths) -> None:
    """Refuse a machine that cannot carry the cluster at all."""
    if platform.system() != "Linux" or platform.machine() not in ARCHITECTURES:
        raise UnsuitableMachineError(
            f"the embedded cluster runs on Linux on x86_64 or aarch64, this is {platform.system()} on "
            f"{platform.machine()}. {OTHERWISE}"
        )
    if os.geteuid() != 0:
        raise UnsuitableMachineError(
            f"the embedded cluster starts containers and so needs root; this is user {os.geteuid()}. Run the "
            f"same command with sudo. {OTHERWISE}"
        )
    if not cgroups_usable(Path("/sys/fs/cgroup")):
        raise UnsuitableMachineError(
            "no usable cgroups at /sys/fs/cgroup (the cpu, memory and pids controllers are needed). "
            f"In a container, start it privileged; on a machine, mount cgroup2 there. {OTHERWISE}"
        )
    _check_disk(paths)


def cgroups_usable(root: Path) -> bool:
    """Whether the cpu, memory and pids controllers are there, in one cgroup v2 tree or in v1 trees."""
    unified = root / "cgroup.controllers"
    if unified.exists():
        return {"cpu", "memory", "pids"} <= set(unified.read_text().split())
    return all((root / name / "cgroup.procs").exists() for name in ("cpu", "memory", "pids"))


def _check_disk(paths: Paths) -> None:
    built = components.is_built(paths)
    needs = {paths.state: DISK_TO_RUN, paths.cache: DISK_TO_RUN if built else DISK_TO_BUILD}
    for folder, needed in needs.items():
        place = folder
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if free < needed:
            variable = "LOCAL_CLUSTER_DIR" if folder == paths.state else "XDG_CACHE_HOME"
            raise UnsuitableMachineError(
                f"{folder} needs {needed // GIB} GiB of free disk, {free / GIB:.1f} GiB are left. "
                f"Free some, or set {variable} to a place on a larger disk."
            )


def install_packages(packages: Mapping[str, str] = PACKAGES) -> None:
    """Install the Debian packages that are missing, without letting them start services.

    `packages` has a file of each, by which it is found to be there.
    """
    missing = [
        package for package, file in packages.items() if not Path(file).exists() and not _on_path(file)
    ]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise UnsuitableMachineError(
            f"missing here: {', '.join(missing)}, and there is no apt-get to install them. The embedded "
            f"cluster and the tests know Debian and Ubuntu; install the programs by hand. {OTHERWISE}"
        )
    say(f"installing Debian packages: {', '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    with _no_services():
        done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            subprocess.run(["apt-get", "update"], env=environment, capture_output=True, check=False)
            done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnsuitableMachineError(
            f"`{' '.join(install)}` failed: {(done.stderr or done.stdout).strip()[-800:]}\n"
            "Mend that, then try again."
        )


def _on_path(file: str) -> bool:
    return (
        shutil.which(Path(file).name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        is not None
    )


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Debian's way to say that an installed package must not start its service: ours listens on the same
    port.
    """
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


@dataclass(frozen=True)
class Port:
    """A TCP port the cluster listens on, and what for."""

    number: int
    address: str
    purpose: str


PORTS = (
    Port(5000, "127.0.0.1", "image registry"),
    Port(23790, "127.0.0.1", "etcd"),
    Port(23800, "127.0.0.1", "etcd"),
    Port(10248, "127.0.0.1", "kubelet"),
    Port(10249, "127.0.0.1", "kube-proxy"),
    Port(10256, "127.0.0.1", "kube-proxy"),
    Port(10257, "127.0.0.1", "kube-controller-manager"),
    Port(10259, "127.0.0.1", "kube-scheduler"),
    Port(18080, BRIDGE_ADDRESS, "CoreDNS"),
    Port(18181, BRIDGE_ADDRESS, "CoreDNS"),
    Port(53, BRIDGE_ADDRESS, "CoreDNS"),
    Port(6443, BRIDGE_ADDRESS, "kube-apiserver"),
    Port(10250, BRIDGE_ADDRESS, "kubelet"),
)


def check_ports(paths: Paths) -> None:
    """Refuse to start where a stranger listens on one of our ports."""
    network.check_addresses_free()
    ours = processes.marked(paths)
    for listener in listeners():
        for port in PORTS:
            if listener.port == port.number and listener.address in (port.address, "*"):
                pid = _owner(listener.inode)
                if pid not in ours:
                    raise UnsuitableMachineError(
                        f"port {port.number} on {port.address}, needed for the {port.purpose}, is taken by "
                        f"{_describe(pid)}. Stop it, then try again."
                    )


@dataclass(frozen=True)
class Listener:
    """A listening TCP socket; address "*" stands for all addresses."""

    address: str
    port: int
    inode: int


def listeners() -> list[Listener]:
    """Every listening TCP socket of this network namespace."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            found += parse_listeners(Path(table).read_text())
    return found


def parse_listeners(table: str) -> list[Listener]:
    """The listening sockets in the text of /proc/net/tcp or tcp6."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[3] != "0A":  # LISTEN
            continue
        address, port = fields[1].split(":")
        if set(address) == {"0"}:
            shown = "*"
        else:  # the last four bytes, little-endian; an IPv6 socket holds a mapped IPv4 address there
            shown = ".".join(str(byte) for byte in reversed(bytes.fromhex(address[-8:])))
        found.append(Listener(shown, int(port, 16), int(fields[9])))
    return found


def _owner(inode: int) -> int | None:
    """The process that holds a socket."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(link.readlink()) == f"socket:[{inode}]":
                return int(link.parts[2])
    return None


def _describe(pid: int | None) -> str:
    if pid is None:
        return "a process outside this container or namespace"
    try:
        words = (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        )
    except OSError:
        words = "?"
    return f"process {pid} ({words[:120]})"
