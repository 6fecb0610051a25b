"""The operator under test: this checkout's source as a process, with the chart's rights. Layer: tests.

The one idea: its ServiceAccount and its roles are the chart's own, rendered for one namespace: one right too
few shows up here, and the audit log tells its writes from all others.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.chart.rendering import Rendered, helm
from tests.support.kubectl import ROOT, Kubectl, kubeconfig, wait_for

ACCOUNT = "agent-operator"
RUNTIME_IMAGE = "localhost/none:1"
CHART = ROOT / "charts" / "agent-operator"
ERRORS = "agentoperator_reconcile_errors_total"
_ALARMING = re.compile(r"traceback|exception|refused", re.IGNORECASE)


@dataclass
class Operator:
    """A running operator and what it shows of itself."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    namespace: str

    @property
    def user(self) -> str:
        """Its name in the audit log."""
        return f"system:serviceaccount:{self.namespace}:{ACCOUNT}"

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def answer(self, path: str) -> tuple[int, str]:
        """Status and text of one of its endpoints; 0 without an answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def metric(self, name: str) -> float:
        """Sum of a metric over its labels."""
        lines = self.answer("/metrics")[1].splitlines()
        return sum(
            float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} "))
        )

    def alarming_lines(self, expected: set[tuple[str, int]]) -> list[str]:
        """Lines of the log that a person would be called for: errors, tracebacks, what is not JSON.

        Refusals of children that are expected, by agent and generation, are none.
        """
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if _alarming(line, expected)]


def _alarming(line: str, expected: set[tuple[str, int]]) -> bool:
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        return bool(line.strip())
    about = (entry.get("object"), entry.get("generation"))
    if about in expected and str(entry.get("message")).startswith("refused (Invalid)"):
        return False
    return entry.get("level") in ("error", "critical") or "exc_info" in entry or bool(_ALARMING.search(line))


def _install_account(kubectl: Kubectl, namespace: str) -> None:
    values = {"watchNamespaces": [namespace]}
    shown = [f"--show-only=templates/{name}.yaml" for name in ("rbac", "serviceaccount")]
    done = helm("template", ACCOUNT, str(CHART), "--namespace", namespace, *shown, values=values)
    assert done.returncode == 0, done.stderr
    for item in Rendered(done.stdout).objects:
        kubectl.apply(item)


def _kubeconfig(kubectl: Kubectl, folder: Path) -> Path:
    token = kubectl.run("create", "token", ACCOUNT, "--duration=2h").strip()
    document = yaml.safe_load(Path(kubeconfig()).read_text())
    document["users"] = [{"name": ACCOUNT, "user": {"token": token}}]
    document["contexts"][0]["context"]["user"] = ACCOUNT
    path = folder / "operator.kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


@contextmanager
def operator(kubectl: Kubectl, namespace: str, folder: Path) -> Iterator[Operator]:
    """The operator, ready, for one namespace; stopped by its process at the end."""
    _install_account(kubectl, namespace)
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "agent_operator"]
    command += [f"--runtime-image={RUNTIME_IMAGE}", f"--http-port={port}"]
    command += [f"--watch-namespaces={namespace}", f"--lease-namespace={namespace}"]
    environment = {
        **os.environ,
        "KUBECONFIG": str(_kubeconfig(kubectl, folder)),
        "PYTHONPATH": f"{ROOT}/operator:{ROOT}",
        "PYTHONFAULTHANDLER": "1",
    }
    log = folder / "operator.log"
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=output)
    running = Operator(process, port, log, namespace)
    try:
        wait_for(
            "the operator to be ready",
            lambda: running.answer("/readyz")[0] == 200,
            60,
            lambda: log.read_text(errors="replace")[-3000:],
        )
        yield running
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
