"""The children of the benchmark's agent as templates, so that the peers make what ours makes.

Layer: tooling. The one idea: our own renderer says what the children are; `children.json` is its output
with the agent's name, namespace, uid and replicas taken out again, and every peer fills them in. A child
that only more replicas ask for carries the number from which it is wanted.

`python -m bench.peers.children` writes the file anew, `--check` fails when it is not current.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("children.json")
RUNTIME_IMAGE = "localhost/none:1"
AGENT_LABEL = "agentoperator.dev/agent"
HASH_ANNOTATION = "agentoperator.dev/applied-hash"
POD_TEMPLATE_ANNOTATION = "agentoperator.dev/pod-template"

GROUP, VERSION, KIND, PLURAL = "bench.agentoperator.dev", "v1", "PeerAgent", "peeragents"
CRD_NAME = f"{PLURAL}.{GROUP}"

_STANDS_FOR = {"zz-agent-zz": "${NAME}", "zz-space-zz": "${NAMESPACE}", "zz-uid-zz": "${UID}"}
"""What is rendered with, valid as names of objects, and the placeholder it becomes."""
_REPLICAS = '"${REPLICAS}"'
_TRIED = (0, 1, 2, 3)


def ours_manifest(name: str, replicas: int = 1) -> dict[str, Any]:
    """The AgentDeployment of the benchmark: its pods go to simulated nodes."""
    pod = {
        "nodeSelector": {"type": "kwok"},
        "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
    }
    return {
        "apiVersion": "agentoperator.dev/v1alpha1",
        "kind": "AgentDeployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "model": {"uri": "oci://localhost/none:1"},
            "template": {"spec": pod},
        },
    }


def peer_manifest(name: str, replicas: int = 1) -> dict[str, Any]:
    """The same agent for a peer."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": name},
        "spec": {"replicas": replicas},
    }


def peer_crd() -> dict[str, Any]:
    """The CRD of PeerAgent: replicas and any other field, status as a subresource."""
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    replicas = {"type": "integer", "format": "int32", "minimum": 0, "default": 1}
    spec = {**free, "properties": {"replicas": replicas}}
    schema = {"type": "object", "properties": {"spec": spec, "status": free}}
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": CRD_NAME},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": KIND, "plural": PLURAL, "singular": "peeragent"},
            "versions": [version],
        },
    }


def load() -> list[dict[str, Any]]:
    """The templates as they are stored."""
    templates: list[dict[str, Any]] = json.loads(FILE.read_text())
    return templates


def filled(
    templates: list[dict[str, Any]], name: str, namespace: str, uid: str, replicas: int
) -> list[dict[str, Any]]:
    """The children of one agent, in the order in which they are applied."""
    children = []
    for template in templates:
        if replicas < template["minReplicas"]:
            continue
        written = json.dumps(template["object"], separators=(",", ":")).replace(_REPLICAS, str(replicas))
        for placeholder, value in (("${NAME}", name), ("${NAMESPACE}", namespace), ("${UID}", uid)):
            written = written.replace(placeholder, value)
        digest = hashlib.sha256(written.encode()).hexdigest()[:16]
        children.append(json.loads(written.replace("${HASH}", digest)))
    return children


def generate() -> list[dict[str, Any]]:
    """The templates made from what our operator would apply now."""
    by_replicas = {replicas: _rendered(replicas) for replicas in _TRIED}
    templates = []
    for key, most in by_replicas[_TRIED[-1]].items():
        wanted_from = min(replicas for replicas, children in by_replicas.items() if key in children)
        least = by_replicas[wanted_from][key]
        merged = _merged(least, most, wanted_from, _TRIED[-1])
        templates.append({"minReplicas": wanted_from, "object": _with_placeholders(merged)})
    return templates


def _rendered(replicas: int) -> dict[tuple[str, str], dict[str, Any]]:
    # Imported here: a peer loads this module and must not carry our operator in its memory.
    from datetime import UTC, datetime

    from agent_operator.core.plan import Apply
    from agent_operator.core.reconcile import reconcile
    from agent_operator.core.snapshot import Defaults, Snapshot

    name, namespace, uid = _STANDS_FOR
    agent = ours_manifest(name, replicas)
    agent["metadata"] |= {"namespace": namespace, "uid": uid, "generation": 1}
    plan = reconcile(Snapshot(agent, (), (), Defaults(RUNTIME_IMAGE)), datetime(2026, 1, 1, tzinfo=UTC))
    objects = [write.object for write in plan.writes if isinstance(write, Apply)]
    return {(child["kind"], child["metadata"]["name"]): child for child in objects}


def _merged(least: Any, most: Any, low: int, high: int) -> Any:
    """One value of two renderings; where they differ they may only be the replicas or a hash."""
    if isinstance(least, dict) and isinstance(most, dict) and least.keys() == most.keys():
        return {
            key: "${HASH}" if key == HASH_ANNOTATION else _merged(least[key], most[key], low, high)
            for key in least
        }
    if isinstance(least, list) and isinstance(most, list) and len(least) == len(most):
        return [_merged(a, b, low, high) for a, b in zip(least, most, strict=True)]
    if low != high and (least, most) == (low, high):
        return "${REPLICAS}"
    if least != most:
        raise ValueError(f"{least!r} at {low} replicas and {most!r} at {high}: no template covers both")
    return least


def _with_placeholders(child: dict[str, Any]) -> dict[str, Any]:
    owner = child["metadata"]["ownerReferences"][0]
    owner |= {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND}
    written = json.dumps(child)
    for value, placeholder in _STANDS_FOR.items():
        written = written.replace(value, placeholder)
    result: dict[str, Any] = json.loads(written)
    return result


def main(arguments: list[str]) -> int:
    """Writes children.json, or with --check compares it."""
    written = json.dumps(generate(), indent=1) + "\n"
    if "--check" not in arguments:
        FILE.write_text(written)
        print(f"wrote {FILE}")
        return 0
    if not FILE.exists() or FILE.read_text() != written:
        print(f"{FILE} is not what our renderer makes: run python -m bench.peers.children", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
