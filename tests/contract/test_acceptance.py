"""What the API server accepts, fills in, prints and serves for AgentDeployments."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_operator.api import AgentDeploymentSpec
from agent_operator.api.crd import PRINTER_COLUMNS, root_schema
from tests.support.kubectl import ROOT, Kubectl, KubectlError, wait_for

Manifest = dict[str, Any]
Build = Callable[..., Manifest]
Create = Callable[[Manifest], subprocess.CompletedProcess[str]]

GOOD = yaml.safe_load((Path(__file__).parent / "good_manifests.yaml").read_text())
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.yaml"))
RIVAL = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: agents.rival.example.com}
spec:
  group: rival.example.com
  scope: Namespaced
  names: {kind: Agent, plural: agents, singular: agent}
  versions:
    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
"""


def without_empty_lists(value: Any) -> Any:
    """The models write an absent list as an empty one."""
    if isinstance(value, dict):
        return {key: without_empty_lists(item) for key, item in value.items() if item != []}
    return [without_empty_lists(item) for item in value] if isinstance(value, list) else value


def present(value: Any) -> Any:
    """A manifest without nulls, as the API server stores it."""
    if isinstance(value, dict):
        return {key: present(item) for key, item in value.items() if item is not None}
    return [present(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", GOOD, ids=[case["id"] for case in GOOD])
def test_a_good_manifest_is_accepted_and_read_back_as_the_models_read_it(
    case: dict[str, Any], manifest: Build, dry_create: Create
) -> None:
    document = manifest(case["spec"])

    answer = dry_create(document)

    assert answer.returncode == 0, answer.stderr
    stored = json.loads(answer.stdout)["spec"]
    read = AgentDeploymentSpec.model_validate(stored)
    assert read == AgentDeploymentSpec.model_validate(present(document["spec"]))
    assert without_empty_lists(read.to_manifest()) == stored


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_accepted(name: str, kubectl: Kubectl) -> None:
    kubectl.run("apply", "--dry-run=server", "-f", str(ROOT / "examples" / name))


def test_the_smallest_manifest_gets_the_documented_defaults(manifest: Build, dry_create: Create) -> None:
    stored = json.loads(dry_create(manifest()).stdout)["spec"]

    assert stored == {
        "replicas": 1,
        "suspend": False,
        "model": {"uri": "hf://example/geography", "dtype": "auto", "quantization": "Disabled"},
        "runtime": {
            "parameters": {
                "maxConcurrency": 16,
                "maxQueuedRequests": 64,
                "maxQueuedTokens": 65536,
                "maxInputTokens": 2048,
                "maxOutputTokens": 512,
                "requestTimeoutSeconds": 600,
            },
            "logging": {"level": "info"},
        },
        "strategy": {
            "type": "BlueGreen",
            "gpuScarcity": "Auto",
            "autoPromotionEnabled": True,
            "progressDeadlineSeconds": 1800,
        },
        "health": {"stallSeconds": 60},
    }


@pytest.mark.parametrize(
    ("given", "path", "filled"),
    [
        ({"runtime": {"image": "r/i"}}, ("runtime", "logging"), {"level": "info"}),
        ({"resources": {"gpu": {}}}, ("resources", "gpu", "count"), 1),
        ({"resources": {"gpu": {}}}, ("resources", "gpu", "resourceName"), "nvidia.com/gpu"),
        ({"model": {"tokenSecretRef": {"name": "hf"}}}, ("model", "tokenSecretRef", "key"), "token"),
        ({"autoscaling": {"maxReplicas": 2}}, ("autoscaling", "targetConcurrency"), 8),
        ({"tuning": {}}, ("tuning", "mode"), "Disabled"),
        ({"strategy": {"type": "Canary"}}, ("strategy", "progressDeadlineSeconds"), 1800),
        ({"health": {"startupDeadlineSeconds": 90}}, ("health", "stallSeconds"), 60),
        ({"agent": {"sessions": {}}}, ("agent", "sessions", "store"), "Memory"),
        ({"agent": {"limits": {}}}, ("agent", "limits", "maxSteps"), 8),
        ({"agent": {"prices": {}}}, ("agent", "prices", "perToolCall"), "0"),
        ({"agent": {"decision": {}}}, ("agent", "decision", "policy"), "Greedy"),
    ],
)
def test_a_partly_given_section_is_completed(
    given: Manifest, path: tuple[str, ...], filled: Any, manifest: Build, dry_create: Create
) -> None:
    value = json.loads(dry_create(manifest(given)).stdout)["spec"]

    for key in path:
        value = value[key]
    assert value == filled


@pytest.fixture(scope="module")
def stored(kubectl: Kubectl, manifest: Build) -> str:
    """Name of an AgentDeployment that exists; paused and suspended, so that no operator acts on it."""
    kubectl.apply(manifest({"suspend": True}, "stored"))
    return "stored"


def test_status_cannot_be_changed_through_the_main_endpoint(kubectl: Kubectl, stored: str) -> None:
    patch = json.dumps({"status": {"url": "http://forged"}})

    kubectl.run("patch", "agd", stored, "--type=merge", "-p", patch)
    document = kubectl.get("agentdeployment", stored)
    assert document is not None
    kubectl.run("replace", "-f", "-", stdin=json.dumps(document | {"status": {"url": "http://forged"}}))

    after = kubectl.get("agentdeployment", stored)
    assert after is not None
    assert after.get("status", {}).get("url") != "http://forged"


def test_spec_cannot_be_changed_through_the_status_endpoint(kubectl: Kubectl, stored: str) -> None:
    patch = json.dumps({"spec": {"replicas": 7}, "status": {"url": "http://x"}})

    kubectl.run("patch", "agd", stored, "--subresource=status", "--type=merge", "-p", patch)

    after = kubectl.get("agentdeployment", stored)
    assert after is not None
    assert after["spec"]["replicas"] == 1


def test_two_conditions_of_one_type_are_refused(kubectl: Kubectl, stored: str) -> None:
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "Ready",
        "message": "",
        "lastTransitionTime": "2026-01-31T12:00:00Z",
    }
    patch = json.dumps({"status": {"conditions": [condition, condition]}})

    with pytest.raises(KubectlError, match=r"status\.conditions\[1\]: Duplicate value"):
        kubectl.run("patch", "agd", stored, "--subresource=status", "--type=merge", "-p", patch)


def test_a_status_as_large_as_the_models_allow_is_accepted(kubectl: Kubectl, stored: str) -> None:
    patch = json.dumps({"status": largest(root_schema()["properties"]["status"])})

    kubectl.run(
        "patch", "agd", stored, "--subresource=status", "--type=merge", "--dry-run=server", "-p", patch
    )


def largest(schema: dict[str, Any], index: int = 0) -> Any:
    """A value at the upper bound of everything but the length of texts; names differ by `index`."""
    if "enum" in schema:
        return schema["enum"][0]
    match schema["type"]:
        case "object":
            return {name: largest(child, index) for name, child in schema["properties"].items()}
        case "array":
            return [largest(schema["items"], index) for index in range(schema["maxItems"])]
        case "integer":
            return schema["maximum"]
        case _ if schema.get("format") == "date-time":
            return "2026-01-31T12:00:00Z"
        case _ if "0-9]{0,5}" in schema.get("pattern", ""):
            return "99999.999999"
    return f"x{index}"


def test_the_scale_subresource_reads_and_writes_replicas(kubectl: Kubectl, stored: str) -> None:
    path = f"/apis/agentoperator.dev/v1alpha1/namespaces/{kubectl.namespace}/agentdeployments/{stored}/scale"
    selector = "agentoperator.dev/agent=stored"
    status = json.dumps({"status": {"replicas": 0, "selector": selector}})

    kubectl.run("scale", f"agd/{stored}", "--replicas=3")
    kubectl.run("patch", "agd", stored, "--subresource=status", "--type=merge", "-p", status)

    scale = json.loads(kubectl.run("get", "--raw", path))
    assert scale["spec"]["replicas"] == 3
    assert scale["status"]["selector"].startswith("agentoperator.dev/agent=")
    kubectl.run("scale", f"agd/{stored}", "--replicas=1")


@pytest.mark.parametrize(
    "word", ["agents", "agent", "agd", "agentdeployment", "agentdeployments", "agentoperator"]
)
def test_kubectl_get_knows_the_resource_by_every_name(
    word: str, kubectl: Kubectl, stored: str, tmp_path: Path
) -> None:
    listed = kubectl.run("--cache-dir", str(tmp_path), "get", word, "-o", "name").split()

    assert f"agentdeployment.agentoperator.dev/{stored}" in listed
    assert {name.partition("/")[0] for name in listed} == {"agentdeployment.agentoperator.dev"}


@pytest.fixture
def rival(kubectl: Kubectl) -> Iterator[Callable[..., str]]:
    """Another product's CRD with the plural `agents`; yields kubectl with a discovery cache of its own.

    The user's own cache must not learn of it: kubectl would look for the rival for hours afterwards.
    """
    with tempfile.TemporaryDirectory() as cache:

        def run(*arguments: str, stdin: str | None = None) -> str:
            return kubectl.run("--cache-dir", cache, *arguments, stdin=stdin)

        run("apply", "-f", "-", stdin=RIVAL)
        run("wait", "--for=condition=Established", "crd/agents.rival.example.com", "--timeout=30s")
        yield run
        run("delete", "crd", "agents.rival.example.com", "--timeout=60s")


def test_beside_a_resource_whose_plural_is_agents_only_agd_is_ours(
    kubectl: Kubectl, stored: str, rival: Callable[..., str]
) -> None:
    theirs = json.dumps(
        {"apiVersion": "rival.example.com/v1", "kind": "Agent", "metadata": {"name": "theirs"}}
    )

    def listed() -> bool:
        try:
            rival("apply", "-f", "-", stdin=theirs)
        except KubectlError:  # a kind that was just defined is not served at once
            return False
        return rival("get", "agents", "-o", "name").split() == ["agent.rival.example.com/theirs"]

    wait_for("kubectl get agents to list the rival's", listed, 30)
    assert f"agentdeployment.agentoperator.dev/{stored}" in rival("get", "agd", "-o", "name").split()
    ours = kubectl.get("crd", "agentdeployments.agentoperator.dev")
    assert ours is not None
    accepted = next(c for c in ours["status"]["conditions"] if c["type"] == "NamesAccepted")
    assert accepted["status"] == "True"


def test_kubectl_get_prints_the_columns_from_spec_and_status(kubectl: Kubectl, stored: str) -> None:
    status = {
        "ready": "1/1",
        "replicas": 1,
        "load": {"p95Milliseconds": 250, "tokensPerSecond": 640},
        "model": "example/geography",
        "gpu": "1",
        "currentRevision": "aaaa1111",
        "updateRevision": "bbbb2222",
        "url": "http://stored.example.svc",
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Ready",
                "message": "serves",
                "lastTransitionTime": "2026-01-31T12:00:00Z",
            }
        ],
    }
    patch = json.dumps({"status": status})
    kubectl.run("patch", "agd", stored, "--subresource=status", "--type=merge", "-p", patch)

    # An operator in the same cluster may write its own status meanwhile: compare one and the same version.
    def look() -> tuple[dict[str, Any], list[list[str]]] | None:
        before = kubectl.get("agentdeployment", stored) or {}
        lines = kubectl.run("get", "agd", stored, "-o", "wide").splitlines()
        after = kubectl.get("agentdeployment", stored) or {}
        same = before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
        return (after, [re.split(r"\s{2,}", line.strip()) for line in lines]) if same else None

    document, (header, row) = wait_for("two equal reads", look, 30)

    assert header == ["NAME", *(column[0].upper() for column in PRINTER_COLUMNS)]
    shown = dict(zip(header, row, strict=True))
    ready = next(c for c in document["status"]["conditions"] if c["type"] == "Ready")
    assert shown | {"AGE": ""} == {
        "NAME": stored,
        "READY": document["status"]["ready"],
        "MODEL": document["status"]["model"],
        "GPU": document["status"]["gpu"],
        "REVISION": document["status"]["currentRevision"],
        "P95": "250",
        "TOK/S": "640",
        "STATUS": ready["reason"],
        "AGE": "",
        "DESIRED": str(document["status"]["replicas"]),
        "UPDATE": document["status"]["updateRevision"],
        "URL": document["status"]["url"],
        "MESSAGE": ready["message"],
    }


def test_kubectl_explain_describes_every_section(kubectl: Kubectl) -> None:
    sections = ["", ".spec", ".status"] + [
        f".spec.{name}"
        for name, child in root_schema()["properties"]["spec"]["properties"].items()
        if child["type"] == "object"
    ]

    for section in sections:
        text = kubectl.run("explain", f"agentdeployments{section}")
        assert "<no description>" not in text, f"{section}:\n{text}"
