"""The generated CRD is structural, bounded, described, free of floats, and the committed one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from agent_operator.api import crd, reference
from tests.support.kubectl import ROOT

Schema = dict[str, Any]
FOREIGN_VOCABULARY = {
    "dtype": "the names are those of PyTorch",
    "level": "the names are those of Python's logging",
}
"""Fields whose enum values are another system's words, and so not CamelCase."""
STRUCTURAL_KEYS = {
    "type", "description", "default", "enum", "format", "items", "properties", "required", "pattern", "anyOf",
    "additionalProperties", "minimum", "maximum", "minLength", "maxLength", "maxItems", "maxProperties",
    "x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations",
}  # fmt: skip


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every node of spec and status with its path; the root's own three fields left out."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        if path or name in ("spec", "status"):
            yield from nodes(child, f"{path}.{name}")
    for key, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield from nodes(schema[key], path + suffix)


ALL = list(nodes(crd.root_schema()))
QUANTITY = "x-kubernetes-int-or-string"


def complaints(wrong: Any) -> list[str]:
    """Paths of the nodes for which `wrong(path, node)` holds."""
    return [path for path, node in ALL if wrong(path, node)]


def test_only_keywords_of_structural_schemas_are_used() -> None:
    assert {key for _, node in ALL for key in node} <= STRUCTURAL_KEYS


def test_every_node_has_a_type() -> None:
    types = {"object", "array", "string", "integer", "boolean"}

    assert complaints(lambda _, node: node.get("type") not in types and QUANTITY not in node) == []


def test_there_are_no_floats() -> None:
    assert (
        complaints(lambda _, node: node.get("type") == "number" or isinstance(node.get("default"), float))
        == []
    )


def test_every_field_is_described() -> None:
    assert complaints(lambda path, node: path[-1:] not in ("]", "}") and not node.get("description")) == []


def test_descriptions_are_sentences() -> None:
    assert complaints(lambda _, node: not node.get("description", "x.").rstrip().endswith(".")) == []


def test_every_string_is_bounded() -> None:
    def unbounded(_: str, node: Schema) -> bool:
        return node.get("type") == "string" and "maxLength" not in node and "enum" not in node

    assert complaints(unbounded) == []


def test_every_list_and_map_is_bounded() -> None:
    assert complaints(lambda _, node: node.get("type") == "array" and "maxItems" not in node) == []
    assert complaints(lambda _, node: "additionalProperties" in node and "maxProperties" not in node) == []


def test_every_integer_is_bounded_within_what_a_float_can_hold() -> None:
    def unbounded(_: str, node: Schema) -> bool:
        return node.get("type") == "integer" and not (
            -1 <= node.get("minimum", -2) <= node.get("maximum", -2) < 2**53
        )

    assert complaints(unbounded) == []


def test_lists_of_named_objects_are_maps_by_name() -> None:
    def unkeyed(path: str, node: Schema) -> bool:
        items = node.get("items", {})
        keyed = node.get("x-kubernetes-list-type") == "map"
        return "name" in items.get("required", []) and not keyed

    assert complaints(unkeyed) == []


def test_map_keys_of_lists_are_required() -> None:
    def optional(_: str, node: Schema) -> bool:
        keys = node.get("x-kubernetes-list-map-keys", [])
        return not set(keys) <= set(node.get("items", {}).get("required", []))

    assert complaints(optional) == []


def test_enum_values_are_camel_case_words() -> None:
    def other(path: str, node: Schema) -> bool:
        words = node.get("enum", [])
        return path.rpartition(".")[2] not in FOREIGN_VOCABULARY and not all(
            re.fullmatch("[A-Z][A-Za-z0-9]+", word) for word in words
        )

    assert complaints(other) == []


def test_no_enum_value_is_a_boolean_or_null_when_yaml_reads_it_unquoted() -> None:
    values = {value for _, node in ALL for value in node.get("enum", [])} - {"True", "False"}

    assert [value for value in sorted(values) if yaml.safe_load(value) != value] == []


def test_every_rule_names_a_field_that_exists_and_tells_how_to_mend_it() -> None:
    for path, node in ALL:
        for rule in node.get("x-kubernetes-validations", []):
            fields = re.findall(r"\.(\w+)|\['([^']+)'\]", rule["fieldPath"])
            current = node
            for dotted, bracketed in fields:
                assert (dotted or bracketed) in current["properties"], f"{path}: {rule['fieldPath']}"
                current = current["properties"][dotted or bracketed]
            assert len(rule["message"].split()) >= 4, f"{path}: {rule['message']}"
            assert not rule["message"].endswith("."), f"{path}: {rule['message']}"


def test_subresources_and_names_are_those_the_design_fixes() -> None:
    spec = crd.custom_resource_definition()["spec"]
    version = spec["versions"][0]

    assert spec["names"]["shortNames"] == ["agents", "agent", "agd"]
    assert version["subresources"]["scale"]["labelSelectorPath"] == ".status.selector"
    assert [column["name"] for column in version["additionalPrinterColumns"] if not column["priority"]] == [
        "Ready", "Model", "GPU", "Revision", "P95", "Tok/s", "Status", "Age",
    ]  # fmt: skip


def test_printer_columns_read_fields_that_exist() -> None:
    paths = {path for path, _ in ALL} | {".metadata.creationTimestamp"}

    for _, _, path, _, _ in crd.PRINTER_COLUMNS:
        assert re.sub(r"\[\?\(.*\)\]", "[]", path) in paths


def test_the_good_manifests_of_the_contract_tests_set_every_field_of_the_spec() -> None:
    good = yaml.safe_load((ROOT / "tests" / "contract" / "good_manifests.yaml").read_text())
    refused = {".spec.template.spec.restartPolicy"}
    given = {path for case in good for path in paths_of(case["spec"], ".spec")}

    wanted = {path for path, _ in ALL if path.startswith(".spec.") and path[-1:] not in ("]", "}")}

    assert wanted - given - refused == set()


def test_the_bad_manifests_of_the_contract_tests_break_every_rule() -> None:
    bad = yaml.safe_load((ROOT / "tests" / "contract" / "bad_manifests.yaml").read_text())
    elsewhere = {".metadata.name": "a rule on the name", ".store": "a rule on a change"}

    def broken(rule: dict[str, str]) -> bool:
        field = rule["fieldPath"].replace("['", ".").replace("']", "")
        return any(
            case["says"][0].partition(": ")[0].endswith(field.replace("..", "."))
            and any(part in rule["message"] for part in case["says"][1:])
            for case in bad
        )

    rules = [rule for _, node in ALL for rule in node.get("x-kubernetes-validations", [])]
    assert [r for r in rules if r["fieldPath"] not in elsewhere and not broken(r)] == []


def paths_of(value: Any, path: str) -> Iterator[str]:
    """Every path a manifest sets, lists written as []."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths_of(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from paths_of(item, f"{path}[]")


@pytest.mark.parametrize("generator", [crd, reference], ids=["crd", "reference"])
def test_the_committed_file_is_what_the_models_generate(
    generator: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generator.main(["--check"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("generator", [crd, reference], ids=["crd", "reference"])
def test_a_file_that_does_not_match_is_reported_with_the_command_that_mends_it(
    generator: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    stale = tmp_path / generator.COMMITTED.name
    stale.write_text("stale")
    monkeypatch.setattr(generator, "COMMITTED", stale)

    assert generator.main(["--check"]) == 1
    assert f"run `{generator.COMMAND} > " in capsys.readouterr().err


def test_the_generated_yaml_is_the_definition() -> None:
    assert yaml.safe_load(crd.render()) == crd.custom_resource_definition()


def test_the_reference_has_a_row_for_every_field_and_a_line_for_every_rule() -> None:
    page = reference.render()

    for path, node in ALL:
        if node.get("properties") and path:
            section = page.partition(f"### {path[1:]}\n")[2].partition("\n### ")[0]
            assert all(f"| `{name}` |" in section for name in node["properties"]), path
            assert all(rule["message"] in section for rule in node.get("x-kubernetes-validations", [])), path
    assert all(meaning for _, meaning in reference.reasons())
