"""Objects of an earlier operator under this one: no pod restarts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from agent_operator.core.drift import stamped
from tests.conformance.cluster.operating import Operator, play_kubelet, references, selector, wait_observed
from tests.support.audit import AuditMark
from tests.support.kubectl import ROOT, Kubectl, wait_for

FOLDER = ROOT / "tests/unit/core/upgrade"
PRIORITY = {
    "apiVersion": "scheduling.k8s.io/v1",
    "kind": "PriorityClass",
    "metadata": {"name": "high"},
    "value": 1000,
}
"""The agent of the folder asks for it."""


@pytest.fixture
def earlier(kubectl: Kubectl, operator: Operator) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An agent with the children that the first operator made, serving, and no operator."""
    operator.stop()
    installed = kubectl.get("priorityclass", "high")
    if installed is None:
        kubectl.apply(PRIORITY)
    manifest = yaml.safe_load((FOLDER / "agent.yaml").read_text())
    name = manifest["metadata"]["name"]
    kubectl.apply({**manifest, "metadata": {"name": name}})
    uid = (kubectl.get("agd", name) or {})["metadata"]["uid"]
    for child in yaml.safe_load_all((FOLDER / "children.yaml").read_text()):
        child["metadata"]["namespace"] = kubectl.namespace
        child["metadata"]["ownerReferences"][0]["uid"] = uid
        whole = stamped(child)  # the hash covers namespace and owner, which are other ones here
        apply = ("apply", "--server-side", "--field-manager=agent-operator", "-f", "-")
        kubectl.run(*apply, stdin=json.dumps(whole))
    yield name, kubectl.list("deployments", selector(name))
    operator.stop()
    kubectl.run("delete", "agd", name, "--timeout=30s")
    wait_for("the children to go", lambda: not references(kubectl, "deployments,pods", name), 60)
    operator.start()
    if installed is None:
        kubectl.run("delete", "priorityclass", "high")


def test_what_an_earlier_operator_made_is_taken_over_without_restarting_a_pod(
    earlier: tuple[str, list[dict[str, Any]]], kubectl: Kubectl, operator: Operator
) -> None:
    name, (before,) = earlier
    play_kubelet(kubectl, name, 3)
    pods = {pod["metadata"]["uid"] for pod in kubectl.list("pods", selector(name))}
    mark = AuditMark()

    operator.start()
    kubectl.wait_ready(name, 30)
    written = operator.settle(mark)

    (after,) = kubectl.list("deployments", selector(name))
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert {pod["metadata"]["uid"] for pod in kubectl.list("pods", selector(name))} == pods
    assert {what.split()[1] for what in written} <= {"agentdeployments/status", "events"}, written
    assert wait_observed(kubectl, name)["status"]["ready"] == "3/3"


def test_a_pod_of_an_earlier_operator_that_is_lost_can_still_be_replaced(
    earlier: tuple[str, list[dict[str, Any]]], kubectl: Kubectl, operator: Operator
) -> None:
    name, _ = earlier
    play_kubelet(kubectl, name, 3)
    operator.start()
    kubectl.wait_ready(name, 30)
    operator.settle(AuditMark())
    lost, *_ = kubectl.list("pods", selector(name))

    kubectl.run("delete", "pod", lost["metadata"]["name"], "--force", "--grace-period=0")

    def replaced() -> bool:
        uids = {pod["metadata"]["uid"] for pod in kubectl.list("pods", selector(name))}
        return len(uids) == 3 and lost["metadata"]["uid"] not in uids

    wait_for("a pod in the place of the lost one", replaced, 30)


def test_an_edit_of_the_metadata_of_an_earlier_deployment_is_undone_without_restarting_a_pod(
    earlier: tuple[str, list[dict[str, Any]]], kubectl: Kubectl, operator: Operator
) -> None:
    name, (before,) = earlier
    play_kubelet(kubectl, name, 3)
    operator.start()
    kubectl.wait_ready(name, 30)
    deployment, label = before["metadata"]["name"], "app.kubernetes.io/managed-by"

    kubectl.run("label", "deployment", deployment, f"{label}=somebody", "--overwrite")

    def labels() -> dict[str, str]:
        return dict((kubectl.get("deployment", deployment) or {})["metadata"]["labels"])

    wait_for("the label to be put back", lambda: labels()[label] == before["metadata"]["labels"][label], 30)
    after = kubectl.get("deployment", deployment) or {}
    assert after["spec"]["template"] == before["spec"]["template"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
