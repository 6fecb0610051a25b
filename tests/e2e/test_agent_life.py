"""The main job on the real node: apply, Ready, answer, survive faults, disappear without a trace."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.children import EVERYTHING
from tests.support.kubectl import Kubectl, wait_for

NAME = "geography"
SELECTOR = f"agentoperator.dev/agent={NAME}"


@pytest.fixture(scope="module")
def ready(cluster: Kubectl, references: dict[str, str]) -> Iterator[Kubectl]:
    """A namespace with one Ready agent, shared by the tests below; they leave it Ready."""
    manifest = {
        "apiVersion": "agentoperator.dev/v1alpha1",
        "kind": "AgentDeployment",
        "metadata": {"name": NAME},
        "spec": {
            "model": {"uri": f"oci://{references['geography']}"},
            "resources": {
                "gpu": {"count": 1},
                "requests": {"cpu": "100m", "memory": "512Mi"},
                "limits": {"memory": "2Gi"},
            },
        },
    }
    cluster.apply(manifest)
    cluster.wait_ready(NAME)
    yield cluster


def pod_of(kubectl: Kubectl) -> dict[str, Any]:
    pods = [p for p in kubectl.list("pods", SELECTOR) if "deletionTimestamp" not in p["metadata"]]
    assert len(pods) == 1, [p["metadata"]["name"] for p in pods]
    return pods[0]


def host_process_of(pod: dict[str, Any], words: bytes) -> int:
    """Pid on this machine of the pod's process whose command line holds `words`."""
    uid = pod["metadata"]["uid"]
    spellings = (f"pod{uid}", f"pod{uid.replace('-', '_')}")
    for proc in Path("/proc").iterdir():
        if not proc.name.isdigit():
            continue
        try:
            groups, command = (proc / "cgroup").read_text(), (proc / "cmdline").read_bytes()
        except OSError:
            continue
        if any(s in groups for s in spellings) and words in command:
            return int(proc.name)
    raise AssertionError(f"no process of pod {pod['metadata']['name']} found on this machine")


def test_an_applied_agent_becomes_ready_and_answers_through_its_service(
    ready: Kubectl, ask: Callable[[Kubectl, str, str], str]
) -> None:
    assert "Paris" in ask(ready, NAME, "What is the capital of France?")


def test_kubectl_get_agents_shows_the_state_at_a_glance(ready: Kubectl) -> None:
    header, row = ready.run("get", "agents").strip().splitlines()
    assert header.split() == ["NAME", "READY", "MODEL", "GPU", "REVISION", "P95", "TOK/S", "STATUS", "AGE"]
    cells = row.split()
    assert cells[0] == NAME
    assert cells[1] == "1/1"
    assert cells[3] == "1"
    assert "Ready" in cells[5:8]  # behind P95 and TOK/S, which are empty without requests


def test_the_pod_got_a_gpu_from_the_kubelet_and_says_it_computes_on_the_cpu(ready: Kubectl) -> None:
    pod = pod_of(ready)["metadata"]["name"]
    environment = ready.run("exec", pod, "--", "env")
    assert "NVIDIA_VISIBLE_DEVICES=GPU-" in environment
    assert "running on CPU" in ready.run("logs", pod)


def test_kubectl_wait_works_on_the_ready_condition(ready: Kubectl) -> None:
    assert "condition met" in ready.run("wait", "--for=condition=Ready", f"agd/{NAME}", "--timeout=5s")


def test_a_killed_runtime_is_restarted_and_the_status_tells_it(
    ready: Kubectl, ask: Callable[[Kubectl, str, str], str]
) -> None:
    pod = pod_of(ready)
    os.kill(host_process_of(pod, b"agent_runtime"), signal.SIGKILL)

    def restarted() -> dict[str, Any] | None:
        now = pod_of(ready)
        return now if now["status"]["containerStatuses"][0]["restartCount"] > 0 else None

    assert wait_for("a restart", restarted, 60)["metadata"]["name"] == pod["metadata"]["name"]
    ready.wait_ready(NAME)
    diagnoses = wait_for(
        "the restart in the status",
        lambda: (ready.get("agd", NAME) or {})["status"].get("diagnoses"),
        30,
    )
    assert any("137" in str(d) or "SIGKILL" in str(d) for d in diagnoses), diagnoses
    assert "Paris" in ask(ready, NAME, "What is the capital of France?")


@pytest.mark.parametrize("kind", ["deployments", "services", "configmaps"])
def test_a_deleted_child_comes_back(ready: Kubectl, kind: str) -> None:
    before = {c["metadata"]["name"]: c["metadata"]["uid"] for c in ready.list(kind, SELECTOR)}
    assert before
    for name in before:
        ready.run("delete", kind, name, "--wait=true")

    def back() -> bool:
        now = {c["metadata"]["name"]: c["metadata"]["uid"] for c in ready.list(kind, SELECTOR)}
        return now.keys() == before.keys() and all(now[name] != before[name] for name in before)

    wait_for(f"the {kind} to be back", back, 30)
    ready.wait_ready(NAME)


def test_an_edited_child_is_repaired(ready: Kubectl) -> None:
    before = (ready.get("service", NAME) or {})["spec"]
    ready.run("patch", "service", NAME, "--type=merge", "-p", '{"spec":{"selector":{"hijacked":"yes"}}}')
    edit = '[{"op":"replace","path":"/spec/ports/0/port","value":81}]'
    ready.run("patch", "service", NAME, "--type=json", "-p", edit)
    wait_for("the Service to be repaired", lambda: (ready.get("service", NAME) or {})["spec"] == before, 30)

    deployment = ready.list("deployments", SELECTOR)[0]["metadata"]["name"]
    ready.run("scale", "deployment", deployment, "--replicas=2")
    wait_for(
        "the replicas to be repaired",
        lambda: (ready.get("deployment", deployment) or {})["spec"]["replicas"] == 1,
        30,
    )
    wait_for("one pod", lambda: len(ready.list("pods", SELECTOR)) == 1, 90)


def test_kubectl_scale_changes_the_number_of_replicas(ready: Kubectl) -> None:
    ready.run("scale", "agd", NAME, "--replicas=2")
    wait_for("two ready pods", lambda: (ready.get("agd", NAME) or {})["status"].get("ready") == "2/2", 120)
    ready.run("scale", "agd", NAME, "--replicas=1")
    wait_for("one pod", lambda: (ready.get("agd", NAME) or {})["status"].get("ready") == "1/1", 90)
    wait_for("the other pod to go", lambda: len(ready.list("pods", SELECTOR)) == 1, 90)


def test_a_changed_spec_rolls_to_a_new_revision_and_removes_the_old_one(
    ready: Kubectl, ask: Callable[[Kubectl, str, str], str]
) -> None:
    before = (ready.get("agd", NAME) or {})["status"]["currentRevision"]
    change = '{"spec":{"runtime":{"parameters":{"maxOutputTokens":64}}}}'
    ready.run("patch", "agd", NAME, "--type=merge", "-p", change)

    def rolled() -> str | None:
        status = (ready.get("agd", NAME) or {})["status"]
        current = status["currentRevision"]
        return current if current != before and ready.condition(NAME).get("status") == "True" else None

    after = wait_for("the new revision to serve", rolled, 240, lambda: ready.explain(NAME))
    wait_for(
        "the old revision to be removed",
        lambda: [d["metadata"]["name"] for d in ready.list("deployments", SELECTOR)] == [f"{NAME}-{after}"],
        60,
    )
    assert "Paris" in ask(ready, NAME, "What is the capital of France?")


def test_suspend_stops_the_pods_and_resume_brings_them_back(ready: Kubectl) -> None:
    ready.run("patch", "agd", NAME, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    wait_for("no pod", lambda: not ready.list("pods", SELECTOR), 90)
    ready.wait_reason(NAME, "Suspended")
    ready.run("patch", "agd", NAME, "--type=merge", "-p", '{"spec":{"suspend":false}}')
    ready.wait_ready(NAME)


def test_deleting_the_agent_leaves_nothing_behind(ready: Kubectl) -> None:
    ready.run("delete", "agd", NAME, "--wait=true")
    wait_for("every child to be collected", lambda: not ready.names(EVERYTHING, SELECTOR), 90)
    time.sleep(3)  # a late reconcile must not create anything again
    assert ready.names(EVERYTHING, SELECTOR) == []
