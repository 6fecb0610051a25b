"""No installed operator for a while: it would work on the agents of an operator under test. Layer: tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.kubectl import Kubectl

SYSTEM = "agent-operator-system"


@contextmanager
def no_installed_operator() -> Iterator[None]:
    """Scales an installed operator to zero and, in the end, back."""
    system = Kubectl(SYSTEM)
    installed = system.get("deployment", "agent-operator")
    replicas = installed["spec"]["replicas"] if installed else 0
    if replicas:
        system.run("scale", "deployment", "agent-operator", "--replicas=0")
        chosen = "app.kubernetes.io/component=operator"
        system.run("wait", "--for=delete", "pod", "-l", chosen, "--timeout=60s")
    try:
        yield
    finally:
        if replicas:
            system.run("scale", "deployment", "agent-operator", f"--replicas={replicas}")
