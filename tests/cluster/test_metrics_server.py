"""metrics-server on the embedded cluster: comes, measures, survives, goes. Needs root; leaves none behind."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_cluster import metrics_server, processes
from tests.cluster.support import PATHS, apply, attempt, kubectl, local_cluster, namespace, pod, up, wait_for

pytestmark = pytest.mark.cluster

SPACE = "metrics-proof"
MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def served() -> Iterator[None]:
    """A cluster with a metrics-server; whether it had one before does not matter."""
    up()
    add()
    yield
    up()
    remove()


def add() -> str:
    done = local_cluster("metrics-server")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def remove() -> str:
    done = local_cluster("no-metrics-server")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pid() -> int | None:
    return processes.running_pid(PATHS, metrics_server.NAME)


def test_it_measures_nodes_and_pods() -> None:
    apply(namespace(SPACE), pod("measured", "wait", namespace=SPACE))
    try:
        kubectl("-n", SPACE, "wait", "--for=condition=Ready", "pod/measured", "--timeout=90s")

        def used() -> str:
            return attempt("-n", SPACE, "top", "pod", "measured", "--no-headers")

        name, cpu, memory = wait_for(used, "the pod's figures", 90).split()
        assert (name, cpu[-1], memory[-2:]) == ("measured", "m", "Mi")
        node = kubectl("top", "node", "--no-headers").split()
        assert int(node[1].removesuffix("m")) > 0
    finally:
        kubectl("delete", "namespace", SPACE, "--wait=true", "--timeout=90s")


def test_its_api_is_registered_and_verified() -> None:
    found = json.loads(kubectl("get", "apiservice", metrics_server.API, "-o", "json"))

    conditions = {c["type"]: c["status"] for c in found["status"]["conditions"]}
    assert conditions["Available"] == "True"
    assert not found["spec"].get("insecureSkipTLSVerify")


def test_adding_it_twice_changes_nothing() -> None:
    before = pid()

    add()

    assert pid() == before is not None


def test_it_takes_little_memory() -> None:
    """The bound is loose; the figure is printed."""
    status = Path(f"/proc/{pid()}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024
    print(f"metrics-server: {resident / MIB:.0f} MiB resident")

    assert resident < 150 * MIB


def test_one_that_died_comes_back_with_the_cluster() -> None:
    victim = pid()
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: pid() is None, "metrics-server to end")

    up()

    assert pid() not in (None, victim)
    assert wait_for(lambda: attempt("top", "node", "--no-headers"), "figures again", 90)


def test_once_removed_neither_process_nor_api_is_left_and_namespaces_still_go() -> None:
    assert "gone" in remove()
    try:
        assert pid() is None
        assert metrics_server.API not in kubectl("get", "apiservices", "-o", "name")
        assert not PATHS.metrics_server.is_symlink()
        apply(namespace(SPACE))
        kubectl("delete", "namespace", SPACE, "--wait=true", "--timeout=60s")
        assert "no metrics-server" in remove()
    finally:
        add()
