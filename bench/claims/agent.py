"""From `kubectl apply` to the first answer, split by phase; beside the same pod written by hand.

Layer: tooling. The peer is a Deployment and a Service that a user would write without us, with the same
runtime image, model and probes: the ratio is what the operator adds.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
import urllib.request
from typing import Any

from bench.claim import Claim, Runs
from tests.support.kubectl import ROOT, Kubectl, wait_for

NAMESPACE = "bench-agent"
ROUNDS = 7
QUESTION = "What is the capital of France?"


def manifest(name: str, model: str) -> dict[str, Any]:
    return {
        "apiVersion": "agentoperator.dev/v1alpha1",
        "kind": "AgentDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": f"oci://{model}"},
            "resources": {
                "gpu": {"count": 1},
                "requests": {"cpu": "100m", "memory": "512Mi"},
                "limits": {"memory": "2Gi"},
            },
        },
    }


def by_hand(kubectl: Kubectl, name: str) -> list[dict[str, Any]]:
    """The children of the agent `name`, as plain objects of a user's own (taken before it is deleted)."""
    selector = f"agentoperator.dev/agent={name}"
    found = [kubectl.list(kind, selector)[0] for kind in ("configmaps", "services", "deployments")]
    plain = []
    for child in found:
        metadata = {"name": f"plain-{child['metadata']['name']}"}
        body = {k: copy.deepcopy(v) for k, v in child.items() if k in ("apiVersion", "kind", "spec", "data")}
        plain.append(body | {"metadata": metadata})
    service, deployment = plain[1]["spec"], plain[2]["spec"]
    for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        service.pop(field, None)
    labels = {"app": f"plain-{name}"}
    service["selector"] = deployment["selector"]["matchLabels"] = deployment["template"]["metadata"][
        "labels"
    ] = labels
    pod = deployment["template"]["spec"]
    for spread in pod.get("topologySpreadConstraints", []):
        spread["labelSelector"] = {"matchLabels": labels}
    for volume in pod["volumes"]:
        if "configMap" in volume:
            volume["configMap"]["name"] = plain[0]["metadata"]["name"]
    return plain


class Phases:
    """Seconds after the apply at which each phase was first seen."""

    def __init__(self) -> None:
        self.begin, self.seen = time.monotonic(), dict[str, float]()

    def note(self, phase: str) -> None:
        self.seen.setdefault(phase, round(time.monotonic() - self.begin, 2))

    def look(self, pods: list[dict[str, Any]]) -> None:
        for pod in pods[:1]:
            self.note("pod created")
            conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
            states = pod["status"].get("containerStatuses", [])
            if conditions.get("PodScheduled") == "True":
                self.note("pod scheduled")
            if any("running" in s["state"] for s in states):
                self.note("images mounted, container started")
            if conditions.get("Ready") == "True":
                self.note("model loaded and warm, pod ready")


def first_answer(kubectl: Kubectl, service: str, model: str) -> str:
    """Asks through the Service's cluster address, which this machine (the node) reaches directly."""
    address = (kubectl.get("service", service) or {})["spec"]["clusterIP"]
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": QUESTION}]}).encode()
    request = urllib.request.Request(
        f"http://{address}/v1/chat/completions", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return str(json.load(response)["choices"][0]["message"]["content"])


def ours(kubectl: Kubectl, model: str) -> tuple[Phases, list[dict[str, Any]]]:
    """One agent from apply to first answer; also returns its children as plain manifests."""
    name, phases = "timed", Phases()
    kubectl.apply(manifest(name, model))

    def look() -> bool:
        phases.look(kubectl.list("pods", f"agentoperator.dev/agent={name}"))
        return kubectl.condition(name).get("status") == "True"

    wait_for("the agent to be Ready", look, 300)
    phases.note("agent Ready")
    phases.look(kubectl.list("pods", f"agentoperator.dev/agent={name}"))  # it may have passed between looks
    answer = first_answer(kubectl, name, name)
    phases.note("first answer")
    assert "Paris" in answer
    children = by_hand(kubectl, name)
    kubectl.run("delete", "agd", name, "--wait=true")
    wait_for("its pod to go", lambda: not kubectl.list("pods"), 90)
    return phases, children


def peer(kubectl: Kubectl, children: list[dict[str, Any]]) -> Phases:
    """The same pod from plain manifests."""
    phases = Phases()
    kubectl.apply({"apiVersion": "v1", "kind": "List", "items": children})

    def look() -> bool:
        phases.look(kubectl.list("pods"))
        return "model loaded and warm, pod ready" in phases.seen

    wait_for("the plain pod to be ready", look, 300)
    service = next(c["metadata"]["name"] for c in children if c["kind"] == "Service")
    wait_for("the plain Service to answer", lambda: try_answer(kubectl, service), 30)
    phases.note("first answer")
    for child in reversed(children):
        kubectl.run("delete", child["kind"], child["metadata"]["name"], "--wait=true")
    wait_for("its pod to go", lambda: not kubectl.list("pods"), 90)
    return phases


def try_answer(kubectl: Kubectl, service: str) -> bool:
    try:
        return "Paris" in first_answer(kubectl, service, "timed")
    except OSError:
        return False


def measure() -> Runs:
    kubectl = Kubectl(NAMESPACE)
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    model = json.loads((ROOT / ".local" / "images.json").read_text())["geography"]
    own: list[Phases] = []
    plain: list[Phases] = []
    try:
        for number in range(ROUNDS):
            print(f"    round {number + 1}/{ROUNDS}", flush=True)
            phases, children = ours(kubectl, model)
            own.append(phases)
            plain.append(peer(kubectl, children))
    finally:
        kubectl.run("delete", "namespace", NAMESPACE, "--wait=false")
    medians = {
        side: {phase: statistics.median(r.seen[phase] for r in runs) for phase in runs[0].seen}
        for side, runs in (("ours", own), ("peer", plain))
    }
    return Runs(
        ours=[r.seen["first answer"] for r in own],
        peer=[r.seen["first answer"] for r in plain],
        details={"median seconds after apply": medians},
    )


CLAIMS = (
    Claim(
        "agent-first-answer",
        "runtime",
        "From kubectl apply to the first answer, images on the node: the operator adds at most 10 percent",
        "seconds",
        "lower",
        1.1,
        measure,
        "the same Deployment and Service written by hand",
    ),
)
