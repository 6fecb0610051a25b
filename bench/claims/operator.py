"""What the operator costs: API writes, memory, start-up. Beside a naive kopf operator, on one API server.

Layer: tooling. Both run as processes on this machine with a ServiceAccount token of their own, so that
the API server's audit log tells their writes apart. The agents are suspended: the children are all
there, but no pod competes for the two cores.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import yaml

from bench.claim import Claim, Runs
from tests.support.audit import AuditMark
from tests.support.kubectl import ROOT, Kubectl, kubeconfig, wait_for

NAMESPACE = "bench-operator"
OBJECTS = 100
ROUNDS = 3
IDLE_SECONDS = 120
CHILD_KINDS = "deployments,services,configmaps,serviceaccounts,poddisruptionbudgets"


@dataclass
class Side:
    """One of the two operators: how it is started, what it watches, and what was measured of it."""

    name: str
    plural: str
    command: list[str]
    port: int
    manifest: Callable[[str], dict[str, Any]]
    creation: list[float] = field(default_factory=list)
    restart: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)
    converged: list[float] = field(default_factory=list)
    idle: float | None = None

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{NAMESPACE}:{self.name}"


def ours_manifest(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "agentoperator.dev/v1alpha1",
        "kind": "AgentDeployment",
        "metadata": {"name": name},
        "spec": {"suspend": True, "model": {"uri": "oci://localhost/none:1"}},
    }


def peer_manifest(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "bench.agentoperator.dev/v1",
        "kind": "NaiveAgent",
        "metadata": {"name": name},
        "spec": {},
    }


def peer_crd() -> dict[str, Any]:
    """A CRD for the peer that keeps every field."""
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": free, "status": free}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": "NaiveAgent", "plural": "naiveagents", "singular": "naiveagent"}
    spec = {"group": "bench.agentoperator.dev", "scope": "Namespaced", "names": names, "versions": [version]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "naiveagents.bench.agentoperator.dev"},
        "spec": spec,
    }


def token_kubeconfig(kubectl: Kubectl, account: str, folder: Path) -> Path:
    """A kubeconfig that authenticates as the ServiceAccount, made cluster-admin for the measurement."""
    kubectl.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}})
    kubectl.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"{NAMESPACE}-{account}"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}],
        }
    )
    token = kubectl.run("create", "token", account, "--duration=2h").strip()
    document = yaml.safe_load(Path(kubeconfig()).read_text())
    document["users"] = [{"name": account, "user": {"token": token}}]
    document["contexts"][0]["context"]["user"] = account
    path = folder / f"{account}.kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


@contextmanager
def running(side: Side, config: Path, log: Path) -> Iterator[psutil.Process]:
    """The operator as a process of its own; stopped by its pid at the end."""
    environment = {**os.environ, "KUBECONFIG": str(config), "PYTHONPATH": f"{ROOT}/operator:{ROOT}"}
    with log.open("ab") as output:
        process = subprocess.Popen(side.command, env=environment, cwd=ROOT, stdout=output, stderr=output)
    try:
        yield psutil.Process(process.pid)
    except BaseException:
        print(log.read_text(errors="replace")[-2000:], file=sys.stderr)
        raise
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def alive(port: int) -> bool:
    """Whether the operator's own readiness endpoint says yes."""
    for path in ("/readyz", "/healthz"):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1) as answer:
                if answer.status == 200:
                    return True
        except OSError:
            continue
    return False


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def settle(mark: AuditMark, side: Side, quiet: float = 4.0) -> int:
    """Waits until the side has written nothing for `quiet` seconds; returns its writes since the mark."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < quiet:
        now = sum(mark.writes(user=side.user).values())
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.5)
    return last


def one_round(kubectl: Kubectl, side: Side, config: Path, log: Path, number: int) -> None:
    """Creation and restart of one side with OBJECTS objects; figures are appended to the side."""
    names = [f"a{number}-{i:03}" for i in range(OBJECTS)]
    begin = time.monotonic()
    with running(side, config, log) as process:
        wait_for(f"{side.name} to start", lambda: alive(side.port), 60)
        side.start.append(time.monotonic() - begin)
        mark, begin = AuditMark(), time.monotonic()
        kubectl.apply({"apiVersion": "v1", "kind": "List", "items": [side.manifest(n) for n in names]})
        writes = settle(mark, side)
        side.converged.append(time.monotonic() - begin - 4.0)
        side.creation.append(writes / OBJECTS)
        side.memory.append(process.memory_info().rss / 2**20)
    mark = AuditMark()
    with running(side, config, log):
        wait_for(f"{side.name} to start again", lambda: alive(side.port), 60)
        side.restart.append(settle(mark, side, quiet=8.0) / OBJECTS)
        if number == ROUNDS - 1:
            mark = AuditMark()
            time.sleep(IDLE_SECONDS)
            side.idle = sum(mark.writes(user=side.user).values()) / OBJECTS
        # While it runs: a kopf timer puts a finalizer on its objects, which only its operator removes.
        kubectl.run("delete", side.plural, "--all", "--wait=true", timeout=300)


@cache
def experiment() -> tuple[Side, Side]:
    """Both sides, interleaved, ROUNDS times; the installed operator is scaled to zero meanwhile."""
    python, (our_port, peer_port) = sys.executable, free_ports(2)
    ours = Side(
        "ours",
        "agentdeployments",
        [python, "-m", "agent_operator", "--runtime-image=localhost/none:1",
         f"--watch-namespaces={NAMESPACE}", f"--lease-namespace={NAMESPACE}", f"--http-port={our_port}"],
        our_port,
        ours_manifest,
    )  # fmt: skip
    peer = Side(
        "peer",
        "naiveagents.bench.agentoperator.dev",
        [python, "-m", "kopf", "run", "bench/peers/naive_kopf.py", "--standalone", f"--namespace={NAMESPACE}",
         f"--liveness=http://127.0.0.1:{peer_port}/healthz"],
        peer_port,
        peer_manifest,
    )  # fmt: skip
    kubectl, system = Kubectl(NAMESPACE), Kubectl("agent-operator-system")
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    kubectl.apply(peer_crd())
    kubectl.run("apply", "--server-side", "-f", str(ROOT / "crds"), "--force-conflicts")
    installed = system.get("deployment", "agent-operator")
    if installed:
        system.run("scale", "deployment", "agent-operator", "--replicas=0")
    try:
        with tempfile.TemporaryDirectory() as folder:
            configs = {s.name: token_kubeconfig(kubectl, s.name, Path(folder)) for s in (ours, peer)}
            for number in range(ROUNDS):
                for side in (ours, peer):
                    print(f"    round {number + 1}/{ROUNDS}: {side.name}", flush=True)
                    one_round(kubectl, side, configs[side.name], Path(folder) / f"{side.name}.log", number)
    finally:
        if installed:
            system.run("scale", "deployment", "agent-operator", f"--replicas={installed['spec']['replicas']}")
        kubectl.run("delete", "namespace", NAMESPACE, "--wait=false")
        kubectl.run("delete", "crd", "naiveagents.bench.agentoperator.dev", "--wait=false")
    return ours, peer


def figures(pick: Callable[[Side], list[float]]) -> Callable[[], Runs]:
    """A claim's measurement: one series of each side, with everything else kept as details."""

    def measure() -> Runs:
        ours, peer = experiment()
        details: dict[str, object] = {
            side.name: {
                "objects": OBJECTS,
                "writes_per_object_at_creation": statistics.median(side.creation),
                "writes_per_object_after_restart": statistics.median(side.restart),
                "writes_per_object_idle": {"seconds": IDLE_SECONDS, "writes": side.idle},
                "rss_mib_with_all_objects": round(statistics.median(side.memory), 1),
                "start_seconds": round(statistics.median(side.start), 2),
                "all_converged_seconds": round(statistics.median(side.converged), 1),
            }
            for side in (ours, peer)
        }
        return Runs(ours=pick(ours), peer=pick(peer), details=json.loads(json.dumps(details)))

    return measure


PEER = "naive kopf operator with the typed client, same five children"
CLAIMS = (
    Claim(
        "operator-writes",
        "operator",
        "API writes per AgentDeployment at creation: one a child and at most two of status",
        "writes per object",
        "lower",
        1.0,
        figures(lambda side: side.creation),
        PEER,
    ),
    Claim(
        "operator-memory",
        "operator",
        "Resident memory of the operator with 100 AgentDeployments and their children",
        "MiB",
        "lower",
        0.7,
        figures(lambda side: side.memory),
        PEER,
    ),
    Claim(
        "operator-start",
        "operator",
        "From process start to answering its health endpoint",
        "seconds",
        "lower",
        1.0,
        figures(lambda side: side.start),
        PEER,
    ),
)
