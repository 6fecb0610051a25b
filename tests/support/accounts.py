"""Users of their own for operators under test: the audit log tells their writes apart. Layer: tests."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.chart.rendering import Rendered, template
from tests.support.kubectl import Kubectl, kubeconfig

ACCOUNT = "agent-operator"


def grant_as_the_chart(kubectl: Kubectl) -> None:
    """The chart's account, roles and bindings, for this namespace only: one right too few shows up."""
    done = template({"watchNamespaces": [kubectl.namespace], "rbac": {"aggregateUserRoles": False}})
    assert done.returncode == 0, done.stderr
    wanted = ("ServiceAccount", "Role", "RoleBinding")
    objects = [obj for kind in wanted for obj in Rendered(done.stdout).all(kind)]
    for obj in objects:
        obj["metadata"]["namespace"] = kubectl.namespace
        for subject in obj.get("subjects", ()):
            subject["namespace"] = kubectl.namespace
    kubectl.apply({"apiVersion": "v1", "kind": "List", "items": objects})


def write_kubeconfig(kubectl: Kubectl, account: str, path: Path, duration: str = "2h") -> Path:
    """A kubeconfig that authenticates as a ServiceAccount of the namespace; returns its path."""
    token = kubectl.run("create", "token", account, f"--duration={duration}").strip()
    document = yaml.safe_load(Path(kubeconfig()).read_text())
    document["users"] = [{"name": account, "user": {"token": token}}]
    document["contexts"][0]["context"]["user"] = account
    path.write_text(yaml.safe_dump(document))
    path.chmod(0o600)
    return path
