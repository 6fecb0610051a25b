"""Fixtures on the real node: images, the trained model, the installed chart, a restricted namespace.

Everything here is what `make demo` does for a user, step by step; nothing is faked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.kubectl import ROOT, Kubectl, wait_for

SYSTEM = "agent-operator-system"


@pytest.fixture(scope="session")
def references() -> dict[str, str]:
    """Image references by name (operator, runtime, geography, clerk), as the build wrote them."""
    path = ROOT / ".local" / "images.json"
    if not path.exists():
        pytest.exit("no images: build them first (make images model clerk)", returncode=2)
    found = json.loads(path.read_text())
    missing = {"operator", "runtime", "geography", "clerk"} - set(found)
    if missing:
        pytest.exit(f"images missing: {sorted(missing)} (make images model clerk)", returncode=2)
    return dict(found)


@pytest.fixture(scope="session")
def operator(references: dict[str, str]) -> Kubectl:
    """The chart installed as `make install` does it; returns kubectl in the operator's namespace."""
    subprocess.run(
        [sys.executable, "examples/demo.py", "install"], cwd=ROOT, check=True, env=None, timeout=300
    )
    return Kubectl(SYSTEM)


@pytest.fixture(scope="module")
def cluster(operator: Kubectl) -> Iterator[Kubectl]:
    """A namespace of the test module's own that enforces the restricted Pod Security Standard."""
    name = f"e2e-{uuid.uuid4().hex[:6]}"
    kubectl = Kubectl(name)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    kubectl.apply(namespace)
    yield kubectl
    # Not waited for: Kubernetes looks again after half of the longest grace period, however soon pods end.
    kubectl.run("delete", "namespace", name, "--wait=false")
    wait_for("the pods are gone", lambda: not kubectl.list("pods"), 120)


@pytest.fixture
def agent(references: dict[str, str]) -> Callable[..., dict[str, Any]]:
    """Builds a small, valid AgentDeployment; keyword arguments replace parts of its spec."""

    def build(name: str, **spec: Any) -> dict[str, Any]:
        base: dict[str, Any] = {
            "model": {"uri": f"oci://{references['geography']}"},
            "resources": {
                "gpu": {"count": 1},
                "requests": {"cpu": "100m", "memory": "512Mi"},
                "limits": {"memory": "2Gi"},
            },
        }
        return {
            "apiVersion": "agentoperator.dev/v1alpha1",
            "kind": "AgentDeployment",
            "metadata": {"name": name},
            "spec": base | spec,
        }

    return build


@pytest.fixture
def ask(references: dict[str, str]) -> Callable[[Kubectl, str, str], str]:
    """Asks an agent one question through its Service, from a client pod of its own."""

    def send(kubectl: Kubectl, name: str, question: str) -> str:
        where = ("--namespace", kubectl.namespace, "--agent", name)
        command = [sys.executable, "examples/demo.py", "ask", *where, question]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    return send
