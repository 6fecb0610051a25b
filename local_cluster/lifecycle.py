"""Up and down, told from top to bottom.

Layer: above everything but the command line. The one idea: `up` looks at what runs and starts what does not;
whatever state the machine is in, the same command leads to a healthy cluster.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from local_cluster import (
    certs,
    components,
    control_plane,
    dns,
    files,
    images,
    metrics_server,
    network,
    node,
    preflight,
    registry,
    remains,
)
from local_cluster.api import ApiServer
from local_cluster.console import duration, say
from local_cluster.errors import ClusterError
from local_cluster.paths import NODE_NAME, WITHOUT_NODE, Paths
from local_cluster.processes import Component, end, log_tail, marked, running_pid, start, stop, wait_ready

Factory = Callable[[Paths], Component]
# Each stage starts when the one before it serves.
STAGES: tuple[tuple[Factory, ...], ...] = (
    (node.containerd, registry.registry, control_plane.etcd),
    (control_plane.api_server,),
    (control_plane.controller_manager, control_plane.scheduler, dns.coredns, node.kubelet, node.proxy),
    (node.gpu_device_plugin,),
)


CONTROL_PLANE = frozenset(
    {control_plane.etcd, control_plane.api_server, control_plane.controller_manager, control_plane.scheduler}
)


def stages(paths: Paths) -> list[list[Component]]:
    """The components of this cluster, stage by stage."""
    found = [
        [factory(paths) for factory in stage if paths.with_node or factory in CONTROL_PLANE]
        for stage in STAGES
    ]
    return [*found, [metrics_server.component(paths)]] if metrics_server.wanted(paths) else found


def table(paths: Paths) -> list[Component]:
    """Every component in the order of starting."""
    return [part for stage in stages(paths) for part in stage]


@contextlib.contextmanager
def locked(paths: Paths) -> Iterator[None]:
    """One command at a time: a second one waits for the first."""
    paths.state.mkdir(parents=True, exist_ok=True, mode=0o755)
    with (paths.state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another local_cluster command is at work; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def up(paths: Paths) -> None:
    """Make the cluster run and healthy, from whatever is there."""
    began = time.monotonic()
    preflight.check_machine(paths)
    with locked(paths):
        if paths.run.exists() and paths.with_node == (paths.run / WITHOUT_NODE).exists():
            kind = "without" if paths.with_node else "with"
            raise ClusterError(f"the cluster that runs is one {kind} a node: `down` first")
        if healthy(paths):
            _write_kubeconfig(paths)
            say(f"the cluster is already up and healthy (checked in {duration(time.monotonic() - began)})")
            _mention_other_binaries(paths)
            return
        preflight.install_packages()
        preflight.check_ports(paths)
        binaries = components.ensure(paths)
        first = stages(paths)[0][0].name
        if running_pid(paths, first) is None or not network.bridge_exists():
            _clear_remains(paths)
        _link(paths.bin, binaries)
        if metrics_server.wanted(paths):
            _link(paths.metrics_server, components.build_addon(paths, *metrics_server.SOURCE))
        _start_all(paths)
        if paths.with_node:
            _await_node(paths)
        _write_kubeconfig(paths)
        say(f"the cluster is up after {duration(time.monotonic() - began)}")
    say(f"  export KUBECONFIG={paths.kubeconfig} PATH={paths.checkout_bin}:$PATH")


def healthy(paths: Paths) -> bool:
    """Whether every component runs and answers, and the node is ready with all its GPUs."""
    if not network.bridge_exists() or not (paths.pki / "complete").exists():
        return False
    all_serve = all(running_pid(paths, part.name) is not None and part.ready() for part in table(paths))
    return all_serve and not (paths.with_node and _node_lacks(ApiServer(paths.pki), since=0.0))


def _mention_other_binaries(paths: Paths) -> None:
    wanted = components.built_folder(paths)
    if wanted is None or paths.bin.resolve() != wanted.resolve():
        say("note: it runs binaries built from other sources than these; `down` and `up` replace them")


def _clear_remains(paths: Paths) -> None:
    """After a cluster that was killed: end what is left of it and start from its data."""
    if _exists(paths):
        say("found remains of a cluster that was not shut down: removing its processes, mounts and links")
        remains.sweep(paths)


def _exists(paths: Paths) -> bool:
    """Whether a cluster of this state folder runs or left something behind."""
    return paths.run.exists() or paths.system_snapshot.exists() or bool(marked(paths))


def _link(link: Path, target: Path) -> None:
    partial = link.with_name(link.name + ".partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(link)


def _start_all(paths: Paths) -> None:
    paths.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not paths.with_node:
        (paths.run / WITHOUT_NODE).touch()
    network.set_up(paths)
    for module in (control_plane, node, registry, dns):
        module.write_configuration(paths)
    if metrics_server.wanted(paths):
        metrics_server.write_configuration(paths)
    for stage in stages(paths):
        started = _start(stage, paths)
        if any(part.name == "containerd" for part in started):
            images.import_all(paths)
        if any(part.name == "kube-apiserver" for part in started):
            _await(
                lambda: dns.allow_reading(ApiServer(paths.pki)),
                "the API server to accept objects",
                seconds=30,
            )
            if metrics_server.wanted(paths):
                _allow_metrics_server(paths)


def _start(stage: Sequence[Component], paths: Paths) -> list[Component]:
    """Start the parts that do not run and answer; return when all of them serve."""
    started = []
    for part in stage:
        if _serves(paths, part):
            continue
        stop(paths, part.name)
        start(paths, part)
        started.append(part)
    for part in started:
        began = time.monotonic()
        try:
            wait_ready(paths, part)
        except ClusterError:
            if part.name != "etcd":
                raise
            _start_etcd_afresh(paths, part)
        say(f"  {part.name} is ready ({duration(time.monotonic() - began)})")
    return started


def _serves(paths: Paths, part: Component, patience: float = 10.0) -> bool:
    """Whether a part runs and answers; a busy machine may need a while for the answer."""
    deadline = time.monotonic() + patience
    while running_pid(paths, part.name) is not None:
        if part.ready():
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return False


def _start_etcd_afresh(paths: Paths, part: Component) -> None:
    """Give up data that etcd cannot open: the store does not wait for the disk, so a crash may tear it."""
    evidence = log_tail(paths, "etcd", lines=3)
    stop(paths, part.name)
    broken = paths.broken_etcd
    if not paths.etcd.exists():
        raise ClusterError(f"etcd does not start.\n{evidence}")
    shutil.rmtree(broken, ignore_errors=True)
    paths.etcd.rename(broken)
    say(f"etcd cannot open its data: starting with an empty store, so the cluster's objects are gone.\n"
        f"The old data is in {broken}. {evidence}")  # fmt: skip
    start(paths, part)
    wait_ready(paths, part)


def _await_node(paths: Paths) -> None:
    server, since = ApiServer(paths.pki), time.time()
    _await(
        lambda: not _node_lacks(server, since), lambda: "the node: " + _node_lacks(server, since), seconds=90
    )


def _node_lacks(server: ApiServer, since: float) -> str:
    """What the node still lacks to run pods with GPUs, or "" if nothing; `since` excludes what an older life
    said.
    """
    found = server.get(f"/api/v1/nodes/{NODE_NAME}")
    lease = server.get(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE_NAME}")
    if not found or not lease:
        return "it has not registered"
    renewed = str(lease.get("spec", {}).get("renewTime", ""))
    if renewed < time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since)):
        return "no heartbeat since this start"
    ready = [c for c in found["status"].get("conditions", []) if c["type"] == "Ready"]
    if not ready or ready[0]["status"] != "True":
        return f"not Ready: {ready[0].get('message', '') if ready else 'no condition yet'}"
    capacity = found["status"].get("capacity", {}).get(node.GPU_RESOURCE, "0")
    if capacity != str(len(node.GPUS)):
        return f"{capacity} of {len(node.GPUS)} GPUs"
    if not server.get("/api/v1/namespaces/default/serviceaccounts/default"):
        return "no service account in the default namespace"
    return ""


def _await(done: Callable[[], bool], what: str | Callable[[], str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            missing = what if isinstance(what, str) else what()
            raise ClusterError(f"waited {seconds:.0f} s for {missing}")
        time.sleep(0.2)


def _write_kubeconfig(paths: Paths) -> None:
    files.write(paths.kubeconfig, certs.kubeconfig(paths.pki, "admin"))
    _link(paths.checkout_bin, paths.bin)


def add_metrics_server(paths: Paths) -> None:
    """Give the running cluster a metrics-server; from then on it is one of its parts, until it is removed."""
    began = time.monotonic()
    preflight.check_machine(paths)
    binary = components.build_addon(paths, *metrics_server.SOURCE)
    with locked(paths):
        if not paths.with_node or not healthy(paths):
            raise ClusterError("metrics-server needs a healthy cluster with a node: `up` first")
        _link(paths.metrics_server, binary)
        metrics_server.write_configuration(paths)
        _allow_metrics_server(paths)
        _start([metrics_server.component(paths)], paths)
        server = ApiServer(paths.pki)
        _await(lambda: metrics_server.serves(server), "the API metrics.k8s.io to be available", seconds=60)
    say(f"metrics-server serves metrics.k8s.io after {duration(time.monotonic() - began)}")


def _allow_metrics_server(paths: Paths) -> None:
    """What it needs in the API server, whether or not it was there before."""
    server = ApiServer(paths.pki)
    _await(
        lambda: metrics_server.allow(server) and metrics_server.register(server, paths.pki),
        "the API server to accept metrics-server's rights and its API",
        seconds=30,
    )


def remove_metrics_server(paths: Paths) -> None:
    """Take the metrics-server out of the running cluster; first its API, which would be missed everywhere."""
    with locked(paths):
        if not metrics_server.wanted(paths):
            say("the cluster has no metrics-server")
            return
        server = ApiServer(paths.pki)
        _await(lambda: metrics_server.unregister(server), "the API to be unregistered", seconds=30)
        stop(paths, metrics_server.NAME)
        paths.metrics_server.unlink(missing_ok=True)
    say("metrics-server is gone")


def down(paths: Paths) -> None:
    """Remove the cluster and every trace of it outside its own folder; keep pulled and pushed images, and the
    logs.
    """
    began = time.monotonic()
    if os.geteuid() != 0:
        preflight.check_machine(paths)
    if not _exists(paths):  # its remains could only be those of a cluster in another state folder
        say("there is no cluster")
        return
    with locked(paths):
        _stop_all(paths)
        remains.sweep(paths)
        remains.remove_cluster_data(paths)
        paths.kubeconfig.unlink(missing_ok=True)
    say(
        f"the cluster is down after {duration(time.monotonic() - began)}; "
        f"images and logs stay in {paths.state}"
    )


def _stop_all(paths: Paths) -> None:
    """Stop newest first. Containers go through containerd, so that it forgets them too."""
    for part in reversed(table(paths)):
        if part.name == "containerd" and running_pid(paths, part.name) is not None and part.ready():
            with contextlib.suppress(ClusterError):  # what stays is removed with the remains
                images.remove_containers(paths)
        stop(paths, part.name)
    end(marked(paths), patience=5.0)


def purge(paths: Paths) -> None:
    """Down, and remove images, logs and built binaries too."""
    down(paths)
    for folder in (paths.state, paths.cache):
        shutil.rmtree(folder, ignore_errors=True)
    paths.checkout_bin.unlink(missing_ok=True)
    say(
        f"removed {paths.state} and {paths.cache}; "
        "Go's own caches stay (go clean -cache -modcache removes them)"
    )
