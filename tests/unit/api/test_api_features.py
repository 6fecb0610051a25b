"""No field is silently ignored: each one works or is refused with a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from agent_operator.api import AgentDeploymentSpec
from agent_operator.api.crd import root_schema
from agent_operator.api.features import SUPPORTED, UNSUPPORTED, unsupported

Schema = dict[str, Any]
SPEC = root_schema()["properties"]["spec"]
MINIMAL = {"model": {"uri": "hf://example/geography"}}


def leaves(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every field that holds a value itself; a list counts as one."""
    for name, child in schema["properties"].items():
        inner = f"{path}.{name}".lstrip(".")
        if child.get("properties"):
            yield from leaves(child, inner)
        else:
            yield inner, child


def other_value(schema: Schema) -> Any:
    """A valid value that differs from the default."""
    default = schema.get("default")
    if "enum" in schema:
        return next(value for value in schema["enum"] if value != default)
    if "x-kubernetes-int-or-string" in schema:
        return 1
    match schema["type"]:
        case "boolean":
            return not default
        case "integer":
            return schema["minimum"] if schema["minimum"] != default else schema["minimum"] + 1
        case "array":
            return [filled(schema["items"])]
        case "object":
            return filled(schema)
    return text(schema)


def filled(schema: Schema) -> Any:
    """The smallest value of a list's item or of an object."""
    if "properties" in schema:
        return {name: filled(schema["properties"][name]) for name in schema.get("required", [])}
    return {} if schema["type"] == "object" else other_value(schema)


def text(schema: Schema) -> str:
    """A text that fits the pattern: the first of a few that does."""
    candidates = ("x", "0.5", "1", "a.b/c", "http://x", "/x/y", "* * * * *", "hf://a/b")
    pattern = schema.get("pattern", "")
    long_enough = (c for c in candidates if len(c) >= schema.get("minLength", 0))
    return next(c for c in long_enough if re.search(pattern, c))


def nested(path: str, value: Any) -> Any:
    """`{"a": {"b": value}}` for `a.b`, with the fields that the sections on the way require."""
    document = value
    names = path.split(".")
    for depth in range(len(names) - 1, -1, -1):
        section = SPEC
        for name in names[:depth]:
            section = section["properties"][name]
        siblings = {
            name: filled(section["properties"][name])
            for name in section.get("required", [])
            if name != names[depth] and depth
        }
        document = {**siblings, names[depth]: document}
    return document


def covers(prefix: str, path: str) -> bool:
    """Whether a line of a table speaks of the field."""
    return path == prefix or path.startswith(f"{prefix}.")


LEAVES = list(leaves(SPEC))


@pytest.mark.parametrize(("path", "schema"), LEAVES, ids=[path for path, _ in LEAVES])
def test_a_field_that_is_set_works_or_is_refused(path: str, schema: Schema) -> None:
    document = nested(path, other_value(schema))
    if not path.startswith("model."):
        document |= MINIMAL
    spec = AgentDeploymentSpec.model_validate(document)

    refused = [field for field in unsupported(spec) if covers(field.path.removeprefix("spec."), path)]

    works = any(covers(prefix, path) for prefix in SUPPORTED)
    assert works != bool(refused), "say in api/features.py whether the field works"


def test_every_line_of_the_tables_names_fields_that_exist() -> None:
    for path in [*SUPPORTED, *(line.path for line in UNSUPPORTED)]:
        section = SPEC
        for name in path.split("."):
            section = section["properties"][name]


def test_defaults_ask_for_nothing_that_is_missing() -> None:
    assert unsupported(AgentDeploymentSpec.model_validate(MINIMAL)) == []


def test_sections_written_out_with_their_defaults_are_not_refused() -> None:
    spec = AgentDeploymentSpec.model_validate(
        {**MINIMAL, "tuning": {"mode": "Disabled"}, "remediation": {}, "strategy": {"gpuScarcity": "Auto"}}
    )

    assert unsupported(spec) == []


@pytest.mark.parametrize("uri", ["s3://bucket/key", "hf://a/b", "pvc://a/b", "oci://localhost/a:b"])
def test_a_model_may_lie_in_any_place_a_uri_can_name(uri: str) -> None:
    assert unsupported(AgentDeploymentSpec.model_validate({"model": {"uri": uri}})) == []


def test_a_refusal_says_what_is_missing_and_what_to_do() -> None:
    spec = AgentDeploymentSpec.model_validate({**MINIMAL, "tuning": {"mode": "Auto"}})

    (field,) = unsupported(spec)

    assert field.path == "spec.tuning.mode"
    assert "not supported by this version" in field.why
    assert field.remedy == "use Disabled"


def test_every_missing_feature_is_reported_at_once() -> None:
    spec = AgentDeploymentSpec.model_validate(
        {**MINIMAL, "access": {"allowedNamespaces": ["a"]}, "strategy": {"type": "Canary"}}
    )

    paths = [field.path for field in unsupported(spec)]
    assert paths == ["spec.strategy.type", "spec.access.allowedNamespaces"]
