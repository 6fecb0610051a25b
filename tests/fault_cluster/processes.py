"""Operator processes that can be killed, frozen, cut off and lied to about the time. Layer: tests."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from local_cluster.preflight import install_packages
from tests.support.kubectl import ROOT, Kubectl, kubeconfig, wait_for

START_SECONDS = 30


def clock_library() -> Path:
    """libfaketime, installed where it is missing: it moves the clock of one process, not of the machine."""
    path = Path(f"/usr/lib/{platform.machine()}-linux-gnu/faketime/libfaketimeMT.so.1")
    install_packages({"libfaketime": str(path)})
    return path


def token_of(kubectl: Kubectl, account: str) -> str:
    """A token of a new ServiceAccount that may do everything in its namespace."""
    kubectl.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}})
    kubectl.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": account},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": kubectl.namespace}],
        }
    )
    return kubectl.run("create", "token", account, "--duration=1h").strip()


def cluster_of_kubeconfig() -> dict[str, Any]:
    """The cluster entry of the tests' kubeconfig: server and authority."""
    return dict(yaml.safe_load(Path(kubeconfig()).read_text())["clusters"][0]["cluster"])


@dataclass
class Operator:
    """One operator process of the fleet; `account` names its user in the audit log."""

    namespace: str
    account: str
    token: str
    folder: Path
    lease: str
    server: str = ""
    fake_clock: bool = False
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{self.account}"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.lease}-{self.account}.log"

    @property
    def _clock(self) -> Path:
        return self.folder / f"{self.lease}-{self.account}.clock"

    def start(self) -> None:
        """Start it and wait until it stands for election."""
        command = [
            sys.executable, "-m", "agent_operator", "--runtime-image=localhost/none:1", "--http-port=0",
            "--http-host=127.0.0.1", f"--watch-namespaces={self.namespace}",
            f"--lease-namespace={self.namespace}", f"--lease-name={self.lease}",
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator"), "KUBECONFIG": str(self._config())}
        if self.fake_clock:
            self.jump(0)
            environment |= {
                "LD_PRELOAD": str(clock_library()),
                "FAKETIME_TIMESTAMP_FILE": str(self._clock),
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command, env=environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
            )
        wait_for(f"{self.account} to start", self._stands_or_ended, START_SECONDS, self.tail)
        assert self.process.poll() is None, f"{self.account} ended\n{self.tail()}"

    def wait_leading(self) -> None:
        wait_for(f"{self.account} to lead", self.leads, START_SECONDS, self.tail)

    def leads(self) -> bool:
        """Whether the Lease names this process."""
        lease = Kubectl(self.namespace).get("lease", self.lease) or {}
        return bool(lease) and lease["spec"].get("holderIdentity") == self._identity()

    def jump(self, seconds: int) -> None:
        """Move the process's time of day, and only its, so far from the real one."""
        fresh = self._clock.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}")
        fresh.replace(self._clock)

    def signal(self, number: signal.Signals) -> float:
        """Send a signal; returns when."""
        self.process.send_signal(number)
        return time.time()

    def exit_code(self, seconds: float) -> int:
        """Wait until it has ended."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.account} still runs after {seconds} s\n{self.tail()}") from None

    def end(self) -> None:
        """Whatever state it is in, it is gone after this."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
                self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        self.process.kill()
        self.process.wait()

    def refused_writes(self) -> int:
        """How many writes it wanted to make and kept to itself, because it did not surely lead."""
        return self.log.read_text(errors="replace").count("FencedError")

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]

    def _stands_or_ended(self) -> bool:
        return bool(self._identity()) or self.process.poll() is not None

    def _identity(self) -> str:
        found = re.search(r"waiting for lease \S+ as ([^\s\"]+)", self.log.read_text(errors="replace"))
        return found[1] if found else ""

    def _config(self) -> Path:
        """A kubeconfig of its own: its token, and its way to the API server."""
        cluster = cluster_of_kubeconfig()
        cluster["server"] = self.server or cluster["server"]
        if self.fake_clock:
            # To a clock an hour behind, the certificates of a young cluster are not valid yet.
            cluster = {"server": cluster["server"], "insecure-skip-tls-verify": True}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "clusters": [{"name": "it", "cluster": cluster}],
            "users": [{"name": "it", "user": {"token": self.token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        }
        path = self.folder / f"{self.account}.kubeconfig"
        path.write_text(yaml.safe_dump(document))
        return path
