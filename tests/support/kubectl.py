"""A small kubectl driver for tests: dicts in, dicts out, and waiting that says what it waits for.

Layer: tests. kubectl rather than a Python client on purpose: it is what users type, so a test fails
where a user would.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]


def kubeconfig() -> str:
    """Path of the kubeconfig the tests use; a clear failure when there is no cluster."""
    path = os.environ.get("KUBECONFIG", str(ROOT / ".local" / "kubeconfig"))
    if not Path(path).exists():
        pytest.exit(f"no kubeconfig at {path}: start a cluster first (make cluster-up)", returncode=2)
    return path


class KubectlError(AssertionError):
    """kubectl exited non-zero; the message is its standard error."""


class Kubectl:
    """kubectl bound to one namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Standard output of `kubectl -n NAMESPACE ...`; raises KubectlError with its stderr."""
        command = ["kubectl", "--kubeconfig", kubeconfig(), "-n", self.namespace, *arguments]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, manifest: dict[str, Any]) -> None:
        self.run("apply", "-f", "-", stdin=json.dumps(manifest))

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """The object as a dict, or None when it does not exist."""
        text = self.run("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def list(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        chosen = ["-l", selector] if selector else []
        return list(json.loads(self.run("get", kind, "-o", "json", *chosen))["items"])

    def names(self, kinds: str, selector: str = "") -> list[str]:
        chosen = ["-l", selector] if selector else []
        return self.run("get", kinds, "-o", "name", *chosen).split()

    def condition(self, agent: str, kind: str = "Ready") -> dict[str, Any]:
        """One condition of an AgentDeployment; an empty dict before the first status."""
        found = self.get("agentdeployment", agent) or {}
        conditions = found.get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {})

    def wait_ready(self, agent: str, timeout: float = 240) -> dict[str, Any]:
        """Waits for Ready=True; the failure shows the whole status and the pods."""
        return wait_for(
            f"{agent} to be Ready",
            lambda: self.condition(agent) if self.condition(agent).get("status") == "True" else None,
            timeout,
            lambda: self.explain(agent),
        )

    def wait_reason(self, agent: str, reason: str, timeout: float = 120) -> dict[str, Any]:
        """Waits until any condition of the agent carries the reason, and returns that condition."""

        def look() -> dict[str, Any] | None:
            found = self.get("agentdeployment", agent) or {}
            conditions = found.get("status", {}).get("conditions", [])
            return next((c for c in conditions if c["reason"] == reason), None)

        return wait_for(f"{agent} to say {reason}", look, timeout, lambda: self.explain(agent))

    def explain(self, agent: str) -> str:
        """What a person would look at when a wait failed."""
        status = (self.get("agentdeployment", agent) or {}).get("status")
        pods = self.run("get", "pods", "-o", "wide")
        events = self.run("get", "events", "--sort-by=.lastTimestamp")
        return f"status: {json.dumps(status, indent=1)}\n{pods}\n{events[-3000:]}"


def wait_for(
    what: str,
    look: Callable[[], T | None],
    timeout: float,
    explain: Callable[[], str] = lambda: "",
) -> T:
    """Polls `look` every 0.3 s until it returns something true; fails with `explain()` at the timeout."""
    begin = shown = time.monotonic()
    while True:
        found = look()
        if found:
            return found
        now = time.monotonic()
        if now - begin > timeout:
            pytest.fail(f"waited {timeout:.0f}s for {what}\n{explain()}")
        if now - shown > 20:
            shown = now
            print(f"  … {now - begin:.0f}s waiting for {what}", file=sys.stderr, flush=True)
        time.sleep(0.3)
