"""The operator under test: this checkout's source as a process, with the chart's rights. Layer: tests.

The one idea: its ServiceAccount and its roles are the chart's own, rendered for one namespace: one right too
few shows up here, and the audit log tells its writes from all others.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.accounts import ACCOUNT, grant_as_the_chart, write_kubeconfig
from tests.support.kubectl import ROOT, Kubectl, wait_for
from tests.support.processes import answer_of, end, free_port, sample

RUNTIME_IMAGE = "localhost/none:1"
GATEWAY_SERVICE = "aot-no-such-gateway"
"""With a Service of gateways that is not there, agents get their ports, and no gateway answers anywhere."""
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
        return answer_of(self.port, path, seconds=10)

    def metric(self, name: str) -> float:
        """Sum of a metric over its labels, 0 when it is not there."""
        return sample(self.answer("/metrics")[1], name) or 0.0

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


@contextmanager
def operator(kubectl: Kubectl, folder: Path) -> Iterator[Operator]:
    """The operator, ready, for kubectl's namespace; stopped by its process at the end."""
    grant_as_the_chart(kubectl)
    namespace, port = kubectl.namespace, free_port()
    command = [sys.executable, "-m", "agent_operator"]
    command += [f"--runtime-image={RUNTIME_IMAGE}", f"--http-port={port}"]
    command += [f"--gateway-service={GATEWAY_SERVICE}"]
    command += [f"--watch-namespaces={namespace}", f"--lease-namespace={namespace}"]
    environment = {
        **os.environ,
        "KUBECONFIG": str(write_kubeconfig(kubectl, ACCOUNT, folder / "operator.kubeconfig")),
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
        end(process)
