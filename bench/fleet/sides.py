"""The operators under measurement, each a process with a user of its own. Layer: tooling.

The one idea: a side is how it is started and what its agents look like; everything else is the same for
all, so a difference in figures is a difference of operators.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import yaml

from bench.peers import build, children
from tests.support.accounts import write_kubeconfig
from tests.support.kubectl import ROOT, Kubectl, wait_for
from tests.support.processes import answer_of, end, sample

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SYSTEM = "bench-fleet-system"
"""Where the sides' users live; their agents live in namespaces that come and go."""


@dataclass(frozen=True)
class Side:
    """One operator. `command` gets the namespace and the port for probes and metrics."""

    name: str
    path: str
    """URL path of its agents below the namespace, with `{namespace}`."""
    manifest: Callable[[str, int], dict[str, Any]]
    command: Callable[[str, int], list[str]]
    reconciles: str
    """The metric that counts reconciles, "" where there is none."""
    in_pod: bool = False
    """Started with the credentials of a pod instead of a kubeconfig, whose loader costs ours memory."""

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{SYSTEM}:{self.name}"

    def agents(self, namespace: str) -> str:
        return self.path.format(namespace=namespace)


def _ours(namespace: str, port: int) -> list[str]:
    return [
        sys.executable, "-m", "agent_operator", f"--runtime-image={children.RUNTIME_IMAGE}",
        f"--watch-namespaces={namespace}", f"--lease-namespace={namespace}", f"--http-port={port}",
        "--log-level=warning",
    ]  # fmt: skip


def _naive(namespace: str, port: int) -> list[str]:
    return [
        sys.executable, "-m", "kopf", "run", "bench/peers/naive_kopf.py", "--standalone", "--quiet",
        f"--namespace={namespace}", f"--liveness=http://127.0.0.1:{port}/healthz",
    ]  # fmt: skip


def _go(namespace: str, port: int) -> list[str]:
    return [
        str(build.binary()), f"--namespace={namespace}", f"--metrics-bind-address=127.0.0.1:{port}",
        "--health-probe-bind-address=0", f"--children={children.FILE}",
        "--max-concurrent-reconciles=16",  # as many as ours
    ]  # fmt: skip


def shard(name: str) -> Side:
    """Ours, serving one shard only."""

    def command(namespace: str, port: int) -> list[str]:
        return [*_ours(namespace, port), f"--shard={name}"]

    return Side(f"shard-{name}", OURS.path, OURS.manifest, command, OURS.reconciles)


PEER_PATH = f"/apis/{children.GROUP}/{children.VERSION}/namespaces/{{namespace}}/{children.PLURAL}"
OURS = Side(
    "ours",
    "/apis/agentoperator.dev/v1alpha1/namespaces/{namespace}/agentdeployments",
    children.ours_manifest,
    _ours,
    "agentoperator_reconcile_total",
    in_pod=True,
)
NAIVE = Side("naive-kopf", PEER_PATH, children.peer_manifest, _naive, "")
GO = Side(
    "controller-runtime",
    PEER_PATH,
    children.peer_manifest,
    _go,
    "controller_runtime_reconcile_total",
)


class Running:
    """An operator that runs. Figures of the process, read from outside."""

    def __init__(self, process: psutil.Process, side: Side, port: int) -> None:
        self._process, self._side, self._port = process, side, port

    def cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def rss_mib(self) -> float:
        return float(self._process.memory_info().rss / 2**20)

    def files(self) -> int:
        return int(self._process.num_fds())

    def connections(self, port: int) -> int:
        """Open connections to this port of whomever."""
        return sum(bool(c.raddr) and c.raddr.port == port for c in self._process.net_connections("tcp"))

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def reconciles(self) -> float | None:
        """Reconciles since the start, None where the operator does not say."""
        if not self._side.reconciles:
            return None
        return sample(self.metrics(), self._side.reconciles) or 0.0


def answers(port: int) -> bool:
    """Whether an operator answers on its port for probes or metrics."""
    return any(answer_of(port, path)[0] == 200 for path in ("/readyz", "/healthz", "/metrics"))


@contextmanager
def account(kubeconfig: Path) -> Iterator[dict[str, str]]:
    """What a pod would find of its service account on this machine, and the variables beside it."""
    document = yaml.safe_load(kubeconfig.read_text())
    cluster = document["clusters"][0]["cluster"]
    place = urlsplit(cluster["server"])
    if (ACCOUNT / "namespace").exists() and (ACCOUNT / "namespace").read_text() == SYSTEM:
        shutil.rmtree(ACCOUNT)  # what an interrupted run left
    ACCOUNT.mkdir(parents=True)  # never over the account of a pod that runs the benchmark
    try:
        (ACCOUNT / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        (ACCOUNT / "token").write_text(document["users"][0]["user"]["token"])
        (ACCOUNT / "namespace").write_text(SYSTEM)
        yield {
            "KUBERNETES_SERVICE_HOST": str(place.hostname),
            "KUBERNETES_SERVICE_PORT": str(place.port),
        }
    finally:
        shutil.rmtree(ACCOUNT)


@contextmanager
def running(side: Side, namespace: str, port: int, folder: Path) -> Iterator[Running]:
    """Starts the operator, waits until it answers, stops it by its pid."""
    kubeconfig = folder / f"{side.name}.kubeconfig"
    with account(kubeconfig) if side.in_pod else nullcontext({"KUBECONFIG": str(kubeconfig)}) as credentials:
        inherited = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
        environment = {**inherited, **credentials, "PYTHONPATH": f"{ROOT}/operator:{ROOT}"}
        with _process(side, side.command(namespace, port), environment, folder) as process:
            log = folder / f"{side.name}.log"
            wait_for(f"{side.name} to start", lambda: answers(port), 90, lambda: log.read_text()[-2000:])
            yield Running(psutil.Process(process.pid), side, port)


@contextmanager
def _process(
    side: Side, command: list[str], environment: dict[str, str], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{side.name}.log").open("ab") as output:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=output)
    try:
        yield process
    finally:
        end(process, patience=30)


def prepare(sides: tuple[Side, ...], folder: Path) -> None:
    """The CRDs, and for each side a user with a token in a kubeconfig of its own."""
    kubectl = Kubectl(SYSTEM)
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}})
    kubectl.apply(children.peer_crd())
    kubectl.run("apply", "--server-side", "-f", str(ROOT / "crds"), "--force-conflicts")
    kubectl.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    for side in sides:
        kubectl.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": side.name}})
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
        subject = {"kind": "ServiceAccount", "name": side.name, "namespace": SYSTEM}
        kubectl.apply(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": f"{SYSTEM}-{side.name}"},
                "roleRef": role,
                "subjects": [subject],
            }
        )
        write_kubeconfig(kubectl, side.name, folder / f"{side.name}.kubeconfig", duration="6h")
