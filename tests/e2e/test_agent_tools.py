"""An agent with tools on the real node: the model decides, an MCP server in another pod answers, keys hold.

The question goes through the Service from a client pod; what the shop has is set here, so an answer with its
numbers has come all the way from the tool.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support.kubectl import ROOT, Kubectl, wait_for

KEY = "ao-end-to-end-only"
LAMPS, EUROS = random.randrange(1, 30), random.randrange(30, 90)
CLIENT = """
import json, sys, urllib.error, urllib.request
url, key, body = sys.argv[1:]
headers = {"Content-Type": "application/json"} | ({"Authorization": "Bearer " + key} if key else {})
request = urllib.request.Request(url, body.encode(), headers)
try:
    with urllib.request.urlopen(request, timeout=60) as answer:
        print(json.dumps([answer.status, json.load(answer)]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, json.load(error)]))
"""
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(name: str, image: str, command: list[str], **container: Any) -> dict[str, Any]:
    """A pod of one container that the restricted standard admits, with shop.py at /shop."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": name, "image": image, "command": command, "securityContext": RESTRICTED,
                    "volumeMounts": [{"name": "shop", "mountPath": "/shop"}], **container,
                }
            ],
            "volumes": [{"name": "shop", "configMap": {"name": "shop"}}],
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def clerk(cluster: Kubectl, references: dict[str, str]) -> Iterator[Kubectl]:
    """The shop, a pod to ask from, and the clerk of examples/clerk.yaml with one access key."""
    source = (ROOT / "examples" / "tools" / "shop.py").read_text()
    image = references["runtime"]
    cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shop"}, "data": {"shop.py": source}}
    )
    shop = {"env": [{"name": "SHOP", "value": f"lamps={LAMPS},{EUROS}"}], "ports": [{"containerPort": 8080}]}
    cluster.apply(pod("shop", image, ["python", "/shop/shop.py"], **shop))
    cluster.apply(pod("client", image, ["sleep", "1800"]))
    ports = [{"port": 8080, "targetPort": 8080}]
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "shop"},
            "spec": {"selector": {"app": "shop"}, "ports": ports},
        }
    )
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    cluster.run("create", "secret", "generic", "keys", f"--from-literal=tester=sha256:{digest}")
    manifest = yaml.safe_load((ROOT / "examples" / "clerk.yaml").read_text())
    manifest["spec"]["model"]["uri"] = f"oci://{references['clerk']}"
    manifest["spec"]["access"] = {"apiKeysSecretRef": {"name": "keys"}}
    cluster.apply(manifest)
    cluster.wait_ready("clerk")
    cluster.run("wait", "pod/client", "pod/shop", "--for=condition=Ready", "--timeout=120s")
    yield cluster


def post(kubectl: Kubectl, path: str, body: dict[str, Any], key: str = KEY) -> tuple[int, dict[str, Any]]:
    """Status and body of a request that the client pod sends through the Service."""
    command = ("python", "-c", CLIENT, f"http://clerk{path}", key, json.dumps(body))
    status, answer = json.loads(kubectl.run("exec", "client", "--", *command))
    return status, answer


def test_the_agent_answers_with_what_its_tools_found(clerk: Kubectl) -> None:
    asked = {"input": "How many lamps are there, and what do they cost?"}

    def answered() -> dict[str, Any] | None:
        status, run = post(clerk, "/v1/agent/runs", asked)  # the shop may have started after the agent
        return run if status == 200 and run["steps"][0]["tool_calls"] else None

    run = wait_for("the agent has its tools", answered, timeout=60)

    calls = [call for step in run["steps"] for call in step["tool_calls"]]
    assert [call["name"] for call in calls] == ["stock", "price"]
    assert run["output"] == f"There are {LAMPS} lamps. They cost {EUROS} euros each."
    assert (run["status"], run["finish_reason"]) == ("completed", "answer")


def test_each_action_was_chosen_from_its_exact_probability(clerk: Kubectl) -> None:
    _, run = post(clerk, "/v1/agent/runs", {"input": "What do lamps cost?"})

    decision = run["steps"][0]["decision"]
    assert decision["label"] == "price"
    assert sum(decision["probabilities"].values()) == pytest.approx(1.0)
    assert decision["confidence"] == max(decision["probabilities"].values())


def test_decide_returns_the_distribution_over_the_candidates(clerk: Kubectl) -> None:
    body = {"input": "Thank you", "candidates": ["You are welcome.", "Goodbye."]}

    status, decision = post(clerk, "/v1/decide", body)

    assert (status, decision["label"]) == (200, "You are welcome.")
    assert sum(decision["probabilities"].values()) == pytest.approx(1.0)


@pytest.mark.parametrize(("key", "code"), [("", "missing_api_key"), ("ao-somebody-elses", "invalid_api_key")])
def test_nobody_gets_in_without_a_key(clerk: Kubectl, key: str, code: str) -> None:
    status, answer = post(clerk, "/v1/agent/runs", {"input": "Hello"}, key)

    assert status == 401
    assert answer["error"]["code"] == code
