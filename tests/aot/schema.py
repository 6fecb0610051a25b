"""The CRD's schema of `spec`, and places in a manifest. Layer: tests.

The one idea: a field is named by one path, `agent.tools[].http.url`, whichever manifest it stands in; a place
is that path with an index for each list.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml

from tests.support.kubectl import ROOT

Schema = dict[str, Any]
Spec = dict[str, Any]
Place = tuple[str | int, ...]

CRD = ROOT / "crds" / "agentoperator.dev_agentdeployments.yaml"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Unset:
    def __repr__(self) -> str:
        return "unset"


UNSET = _Unset()
"""Instead of a value: the field is left out."""


@cache
def definition() -> Schema:
    """The CustomResourceDefinition as committed."""
    document: Schema = yaml.load(CRD.read_text(), LOADER)
    return document


def root() -> Schema:
    """The schema of the whole resource."""
    schema: Schema = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


@cache
def fields() -> dict[str, Schema]:
    """Every field below spec by its path, sections and lists included."""
    return dict(_walk(root()["properties"]["spec"], ""))


def leaves() -> dict[str, Schema]:
    """The fields that hold a value of their own: what is not a section or a list of sections."""
    return {path: node for path, node in fields().items() if not sections_below(node)}


def sections_below(node: Schema) -> bool:
    """Whether the field is made of further named fields."""
    return "properties" in node or "properties" in node.get("items", {})


def _walk(node: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    for name, child in node.get("properties", {}).items():
        below = f"{path}.{name}" if path else name
        yield below, child
        if "properties" in child.get("items", {}):
            yield from _walk(child["items"], f"{below}[]")
        else:
            yield from _walk(child, below)


def rules() -> set[str]:
    """The messages of all cross-field rules of the resource."""
    return {rule["message"] for rule in _rules(root())}


def _rules(node: Any) -> Iterator[Schema]:
    if isinstance(node, dict):
        yield from node.get("x-kubernetes-validations", ())
        for child in node.values():
            yield from _rules(child)


def open_section(path: str) -> bool:
    """Whether a section keeps fields that the schema does not name."""
    node = fields()[path.removesuffix("[]")]
    node = node["items"] if path.endswith("[]") else node
    return bool(node.get("x-kubernetes-preserve-unknown-fields"))


def place(path: str, spec: Spec) -> Place:
    """Where a field stands in a manifest: in the first list item that has what comes next, else in item 0."""
    found: list[str | int] = []
    here: Any = spec
    names = path.split(".")
    for number, name in enumerate(names):
        key = name.removesuffix("[]")
        found.append(key)
        here = here.get(key) if isinstance(here, dict) else None
        if name.endswith("[]"):
            items = here if isinstance(here, list) else []
            after = names[number + 1].removesuffix("[]") if number + 1 < len(names) else ""
            index = next((i for i, item in enumerate(items) if after in item), 0)
            found.append(index)
            here = items[index] if items else None
    return tuple(found)


def spelt(where: Place) -> str:
    """A place as the API server spells it."""
    return "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)


def get(spec: Any, where: Place) -> Any:
    """The value at a place, UNSET where there is none."""
    for part in where:
        if isinstance(part, int):
            if not isinstance(spec, list) or part >= len(spec):
                return UNSET
        elif not isinstance(spec, dict) or part not in spec:
            return UNSET
        spec = spec[part]
    return spec


def put(spec: Spec, where: Place, value: Any) -> Spec:
    """A copy of the manifest with the value at the place; UNSET takes the field out."""
    result = copy.deepcopy(spec)
    here: Any = result
    for part, following in itertools.pairwise(where):
        empty: Any = [] if isinstance(following, int) else {}
        if isinstance(part, int):
            while len(here) <= part:
                here.append({})
            here = here[part]
        else:
            here = here.setdefault(part, empty)
    last = where[-1]
    if isinstance(last, int):
        raise ValueError(f"{spelt(where)} is a list item, not a field")
    if value is UNSET:
        here.pop(last, None)
    else:
        here[last] = copy.deepcopy(value)
    return result


def stored(spec: Spec) -> Spec:
    """The manifest as the API server keeps it: no nulls, and defaults wherever their section is there."""
    found: Spec = _stored(spec, root()["properties"]["spec"])
    return found


def _stored(value: Any, node: Schema) -> Any:
    if isinstance(value, list) and "properties" in node.get("items", {}):
        return [_stored(item, node["items"]) for item in value]
    if not isinstance(value, dict) or "properties" not in node:
        return copy.deepcopy(value)
    known = node["properties"]
    said = {name: child for name, child in value.items() if child is not None}
    absent = {name: child["default"] for name, child in known.items() if "default" in child}
    return {name: _stored(child, known.get(name, {})) for name, child in {**absent, **said}.items()}
