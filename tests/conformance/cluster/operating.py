"""An operator from source as a process of its own, with the permissions the chart grants. Layer: tests.

The one idea: the operator under test has a ServiceAccount, a namespace and a Lease of its own, so the API
server's audit log tells its writes from everybody else's, and a permission the chart forgets shows itself.
Its pods need a node that does not exist: everything is real but the kubelet, whose part a test plays by
writing pods' status.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.accounts import ACCOUNT, write_kubeconfig
from tests.support.audit import AuditMark
from tests.support.kubectl import ROOT, Kubectl, wait_for
from tests.support.processes import answer_of, end, free_port, sample

Object = dict[str, Any]
NODE_LABEL = "conformance.example.com/node"
QUIET_SECONDS = 3.0


class Operator:
    """The process; started and stopped at will, with one log over all its lives."""

    def __init__(self, kubectl: Kubectl, folder: Path) -> None:
        self.kubectl = kubectl
        self.user = f"system:serviceaccount:{kubectl.namespace}:{ACCOUNT}"
        self.log = folder / "operator.log"
        self._config = write_kubeconfig(kubectl, ACCOUNT, folder / "operator.kubeconfig")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self) -> None:
        """Start it and wait until it leads and has looked at everything."""
        self.port = free_port()
        self._process = self.spawn(self.port)
        wait_for("the operator to lead", lambda: self.metric("leader_election_master_status") == 1, 60)
        wait_for("the operator to be idle", lambda: self.metric("workqueue_depth") == 0, 60)

    def spawn(self, port: int) -> subprocess.Popen[bytes]:
        """One more process of it, on another port."""
        name = self.kubectl.namespace
        command = [
            sys.executable, "-m", "agent_operator", "--runtime-image=localhost/none:1", f"--http-port={port}",
            f"--watch-namespaces={name}", f"--lease-namespace={name}", f"--lease-name={ACCOUNT}",
            "--http-host=127.0.0.1",
        ]  # fmt: skip
        environment = {
            "PATH": os.environ["PATH"],
            "KUBECONFIG": str(self._config),
            "PYTHONPATH": f"{ROOT}/operator:{ROOT}",
        }
        with self.log.open("ab") as output:
            return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=output)

    def stop(self) -> float:
        """Ask it to end; the seconds that took."""
        if self._process is None:
            return 0.0
        process, self._process = self._process, None
        return end(process)

    def get(self, path: str, port: int | None = None) -> tuple[int, str]:
        """Status and body of one of its endpoints; status 0 when nothing answers."""
        return answer_of(port or self.port, path)

    def metric(self, name: str) -> float | None:
        """Sum over all label values of a metric, None when it is not there."""
        return sample(self.get("/metrics")[1], name)

    def lines(self) -> list[str]:
        """Everything it ever logged."""
        return self.log.read_text(errors="replace").splitlines()

    def settle(self, mark: AuditMark) -> dict[str, int]:
        """Wait until it has written nothing for QUIET_SECONDS; what it wrote since the mark."""
        seen, since = dict(mark.writes(self.user)), time.monotonic()
        end_of_patience = since + 60
        while time.monotonic() - since < QUIET_SECONDS:
            assert time.monotonic() < end_of_patience, f"it never stops writing: {seen}"
            time.sleep(0.3)
            if (now := dict(mark.writes(self.user))) != seen:
                seen, since = now, time.monotonic()
        return seen


def manifest(name: str, **spec: Any) -> Object:
    """An agent whose pods no existing node may run."""
    homeless = {"spec": {"nodeSelector": {NODE_LABEL: "none"}}}
    return {
        "apiVersion": "agentoperator.dev/v1alpha1",
        "kind": "AgentDeployment",
        "metadata": {"name": name},
        "spec": {"model": {"uri": "oci://localhost/none:1"}, "template": homeless, **spec},
    }


def selector(name: str) -> str:
    """Label selector of an agent's children and pods."""
    return f"agentoperator.dev/agent={name}"


def references(kubectl: Kubectl, kinds: str, name: str) -> list[str]:
    """An agent's objects of these kinds, as kind/name."""
    return kubectl.run("get", kinds, "-o", "name", "-l", selector(name)).split()


def observed(kubectl: Kubectl, name: str) -> Object | None:
    """The agent, once its status is about its newest generation."""
    found = kubectl.get("agd", name) or {}
    seen = found.get("status", {}).get("observedGeneration")
    return found if found and seen == found["metadata"]["generation"] else None


def wait_observed(kubectl: Kubectl, name: str) -> Object:
    """The agent with a status about its newest generation."""
    return wait_for(f"the status of {name}", lambda: observed(kubectl, name), 30)


def play_kubelet(kubectl: Kubectl, name: str, count: int = 1) -> None:
    """Make `count` pods of the agent, all it has, ready."""

    def pods() -> list[Object] | None:
        found = [p for p in kubectl.list("pods", selector(name)) if "deletionTimestamp" not in p["metadata"]]
        return found if len(found) == count else None

    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": moment}
        for kind in ("Ready", "ContainersReady")
    ]
    patch = json.dumps({"status": {"phase": "Running", "conditions": conditions}})
    for pod in wait_for(f"{count} pods of {name}", pods, 30):
        name_ = pod["metadata"]["name"]
        kubectl.run("patch", "pod", name_, "--subresource=status", "--type=strategic", "-p", patch)
