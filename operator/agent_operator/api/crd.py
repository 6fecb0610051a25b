"""Generator of the CustomResourceDefinition. Layer: api; imports api.*, PyYAML. Pure but for main.

    python -m agent_operator.api.crd > crds/agentoperator.dev_agentdeployments.yaml
    python -m agent_operator.api.crd --check

The one idea: pydantic already writes JSON schema; what Kubernetes wants instead (a structural schema without
references, nulls or closed objects) is a handful of rewrites. Hand-written because the published generators
read Go types or write Python from a CRD, the other way round.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from agent_operator.api import names
from agent_operator.api.features import UNSUPPORTED, Unsupported
from agent_operator.api.root import AgentDeployment

Schema = dict[str, Any]

COMMITTED = Path(__file__).resolve().parents[3] / "crds" / "agentoperator.dev_agentdeployments.yaml"
COMMAND = "python -m agent_operator.api.crd"
NOT_YET = "Not supported by this version: the operator refuses the field with condition FeatureNotSupported."
_INT32_MAX = 2**31 - 1
_DROPPED_KEYS = ("title", "examples")

PRINTER_COLUMNS = (
    ("Ready", "string", ".status.ready", "Serving and wanted replicas.", 0),
    ("Model", "string", ".status.model", "Model that serves.", 0),
    ("GPU", "string", ".status.gpu", "Devices per replica.", 0),
    ("Revision", "string", ".status.currentRevision", "Revision that serves.", 0),
    ("P95", "integer", ".status.load.p95Milliseconds", "95th percentile of the response time in ms.", 0),
    ("Tok/s", "integer", ".status.load.tokensPerSecond", "Generated tokens per second.", 0),
    ("Status", "string", '.status.conditions[?(@.type=="Ready")].reason', "Reason of condition Ready.", 0),
    ("Age", "date", ".metadata.creationTimestamp", "Time since creation.", 0),
    ("Desired", "integer", ".status.replicas", "Replicas that shall run.", 1),
    ("Update", "string", ".status.updateRevision", "Revision the specification asks for.", 1),
    ("URL", "string", ".status.url", "Address inside the cluster.", 1),
    ("Message", "string", '.status.conditions[?(@.type=="Ready")].message', "Message of condition Ready.", 1),
)


def structural(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """A Kubernetes structural schema for a JSON schema of pydantic, with references replaced."""
    node = _without_null(_without_reference(dict(schema), definitions))
    node = _without_reference(node, definitions)
    example = node.get("examples")
    for key in _DROPPED_KEYS:
        node.pop(key, None)
    if "description" in node:
        node["description"] = " ".join(node["description"].split())
        if example:
            node["description"] += f" Example: {json.dumps(example[0])}."
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if node.get("type") == "integer":
        node["format"] = "int32" if node.get("maximum", _INT32_MAX + 1) <= _INT32_MAX else "int64"
    _simplify_default(node)
    _convert_children(node, definitions)
    return node


def _without_reference(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """The referenced definition under the keys that stand beside the reference."""
    reference = node.pop("$ref", None)
    return node if reference is None else {**definitions[reference.rpartition("/")[2]], **node}


def _without_null(node: Schema) -> Schema:
    """An optional value: Kubernetes says so by leaving the field out of `required`."""
    options = [option for option in node.get("anyOf", []) if option != {"type": "null"}]
    if "anyOf" not in node or node.get("x-kubernetes-int-or-string"):
        return node
    if len(options) != 1:
        raise ValueError(f"a structural schema has no unions: {node}")
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    return {**options[0], **rest}


def _simplify_default(node: Schema) -> None:
    """Without nulls and empty lists, which Kubernetes expresses by absence.

    An object's default is written out in full, because the API server checks it against the object's CEL
    rules before it fills in the defaults of the fields.
    """
    if "default" in node:
        default = _present(node.pop("default"))
        if default is not None:
            node["default"] = default


def _present(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: item for key, item in ((k, _present(v)) for k, v in value.items()) if item is not None}
    return None if value == [] else value


def _convert_children(node: Schema, definitions: dict[str, Schema]) -> None:
    if "properties" in node:
        node["properties"] = {
            name: structural(child, definitions) for name, child in node["properties"].items()
        }
    if "items" in node:
        node["items"] = structural(node["items"], definitions)
    additional = node.pop("additionalProperties", None)
    if isinstance(additional, dict):
        node["additionalProperties"] = structural(additional, definitions)


def root_schema() -> Schema:
    """The structural schema of the whole resource."""
    document = AgentDeployment.model_json_schema(by_alias=True)
    schema = structural(document, document.get("$defs", {}))
    schema.pop("$defs", None)
    properties = schema["properties"]
    schema["properties"] = {
        "apiVersion": {"type": "string", "description": f"{names.API_VERSION}."},
        "kind": {"type": "string", "description": f"{names.KIND}."},
        "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
        "spec": properties["spec"],
        # Who waits for the status of a new object, as kstatus does, sees that there is none yet.
        "status": properties["status"] | {"default": {"observedGeneration": -1}},
    }
    for line in UNSUPPORTED:
        _mark_unsupported(properties["spec"], line)
    return schema


def _mark_unsupported(spec: Schema, line: Unsupported) -> None:
    """Say in the field's description what the operator will refuse."""
    node = spec
    for name in line.path.split("."):
        node = node["properties"][name]
    if "default" not in node:
        node["description"] += f" {NOT_YET}"
    else:
        node["description"] += f" Not supported by this version: {line.feature}; {line.remedy}."


def custom_resource_definition() -> Schema:
    """The CustomResourceDefinition as a plain dict."""
    columns = [
        {"name": name, "type": kind, "description": text, "jsonPath": path, "priority": priority}
        for name, kind, path, text, priority in PRINTER_COLUMNS
    ]
    version = {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": columns,
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "schema": {"openAPIV3Schema": root_schema()},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": names.LIST_KIND,
                "plural": names.PLURAL,
                "singular": names.SINGULAR,
                "shortNames": list(names.SHORT_NAMES),
                "categories": list(names.CATEGORIES),
            },
            "versions": [version],
        },
    }


def render() -> str:
    """The CustomResourceDefinition as YAML, with a head line that says where it comes from."""
    without_shared_objects = json.loads(json.dumps(custom_resource_definition()))
    body = yaml.safe_dump(without_shared_objects, sort_keys=False, width=110, allow_unicode=True)
    return f"# Generated by `{COMMAND}` from operator/agent_operator/api. Do not edit.\n{body}"


def main(arguments: list[str]) -> int:
    """Print the CRD, or with --check compare it with the committed file; the exit status."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write(f"usage: {COMMAND} [--check]\n")
        return 2
    if not arguments:
        sys.stdout.write(render())
        return 0
    if COMMITTED.is_file() and COMMITTED.read_text(encoding="utf-8") == render():
        return 0
    target = f"crds/{COMMITTED.name}"
    sys.stderr.write(f"{target} does not match the models: run `{COMMAND} > {target}`\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
