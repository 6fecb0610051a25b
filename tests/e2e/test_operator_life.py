"""The operator on the real cluster: few writes, none when idle, none after a restart, quick fail-over."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support.audit import AuditMark
from tests.support.kubectl import Kubectl, kubeconfig, wait_for

NAME = "counted"
CREATED = {"deployments", "services", "configmaps"}


@pytest.fixture(scope="module")
def creation(cluster: Kubectl, references: dict[str, str]) -> Iterator[AuditMark]:
    """One agent brought to Ready; the mark stands before its creation."""
    mark = AuditMark()
    cluster.apply(
        {
            "apiVersion": "agentoperator.dev/v1alpha1",
            "kind": "AgentDeployment",
            "metadata": {"name": NAME},
            "spec": {
                "model": {"uri": f"oci://{references['geography']}"},
                "resources": {"gpu": {"count": 1}, "requests": {"cpu": "50m", "memory": "512Mi"}},
            },
        }
    )
    cluster.wait_ready(NAME)
    yield mark
    cluster.run("delete", "agd", NAME, "--wait=true")


def leader(operator: Kubectl) -> str:
    """Name of the pod that holds the Lease."""
    lease = operator.get("lease", "agent-operator") or {}
    holder = str(lease.get("spec", {}).get("holderIdentity") or "")
    pods = [p["metadata"]["name"] for p in operator.list("pods", "app.kubernetes.io/component=operator")]
    return next((p for p in pods if holder.startswith(p)), "")


def test_creation_costs_one_write_a_child_and_at_most_three_of_status(
    creation: AuditMark, cluster: Kubectl
) -> None:
    time.sleep(3)  # let a late status write show itself
    writes = creation.writes(namespace=cluster.namespace)
    status = sum(n for what, n in writes.items() if "agentdeployments/status" in what)
    children = {what.split()[1]: n for what, n in writes.items() if what.split()[1] in CREATED}
    assert children == dict.fromkeys(CREATED, 1), writes
    assert status <= 3, writes  # on its way, Ready, and how the replica started
    assert sum(writes.values()) == status + len(CREATED), writes  # a start that goes well is no Event


def test_an_idle_agent_costs_no_write(creation: AuditMark, cluster: Kubectl) -> None:
    mark = AuditMark()
    time.sleep(30)
    assert mark.writes() == {}


def test_a_restarted_operator_writes_to_no_object(
    creation: AuditMark, cluster: Kubectl, operator: Kubectl
) -> None:
    old = leader(operator)
    assert old
    mark = AuditMark()
    operator.run(
        "delete", "pod", "-l", "app.kubernetes.io/component=operator", "--wait=true", "--grace-period=1"
    )
    new = wait_for("a new leader", lambda: (leader(operator) or "") not in ("", old) and leader(operator), 60)
    operator.run("rollout", "status", "deployment/agent-operator", "--timeout=60s")

    def listed_everything() -> bool:
        metrics = operator.run(
            "get", "--raw", f"/api/v1/namespaces/{operator.namespace}/pods/{new}:8080/proxy/metrics"
        )
        counts = [line for line in metrics.splitlines() if line.startswith("agentoperator_reconcile_total")]
        return any(float(line.rsplit(" ", 1)[1]) > 0 for line in counts)

    wait_for("the new leader to reconcile", listed_everything, 60)
    time.sleep(10)
    assert mark.writes() == {}


def test_a_killed_leader_is_replaced_and_the_new_one_works(
    creation: AuditMark, cluster: Kubectl, operator: Kubectl
) -> None:
    old = leader(operator)
    operator.run("delete", "pod", old, "--grace-period=0", "--force")
    wait_for("another leader", lambda: leader(operator) not in ("", old), 60)
    cluster.run("delete", "service", NAME)
    wait_for("the Service to be repaired by the new leader", lambda: cluster.get("service", NAME), 30)


def test_the_operator_never_reads_secrets(operator: Kubectl) -> None:
    account = f"system:serviceaccount:{operator.namespace}:agent-operator"
    for verb in ("get", "list", "watch"):
        answer = can_i(operator, verb, "secrets", account)
        assert answer == "no"


def can_i(kubectl: Kubectl, verb: str, resource: str, account: str) -> str:
    try:
        return kubectl.run("auth", "can-i", verb, resource, "--as", account, "-A").strip()
    except AssertionError:
        return "no"


def test_helm_test_passes(operator: Kubectl) -> None:
    where = ("--kubeconfig", kubeconfig(), "--namespace", operator.namespace)
    command = ["helm", *where, "test", "agent-operator", "--timeout", "2m"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Succeeded" in done.stdout


def test_every_metric_promised_is_served(operator: Kubectl, creation: AuditMark) -> None:
    name = leader(operator)
    metrics = operator.run(
        "get", "--raw", f"/api/v1/namespaces/{operator.namespace}/pods/{name}:8080/proxy/metrics"
    )
    for promised in (
        "workqueue_depth",
        "workqueue_adds_total",
        "rest_client_requests_total",
        "agentoperator_reconcile_total",
        "leader_election_master_status",
    ):
        assert promised in metrics
