"""Arguments of a call: read leniently, judged by the schema."""

from __future__ import annotations

import pytest

from agent_runtime.agent.arguments import (
    MAX_ARGUMENT_CHARACTERS,
    ArgumentsError,
    canonical,
    check_schema,
    parse_arguments,
    parse_json,
    validate,
)

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1},
        "hourly": {"type": "boolean"},
        "unit": {"enum": ["C", "F"]},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["city"],
    "additionalProperties": False,
}
ONE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"city": "Paris", "days": 2}', {"city": "Paris", "days": 2}),
        ("city: Paris", {"city": "Paris"}),
        (
            "city: Paris; days: 2; hourly: yes; unit: F",
            {"city": "Paris", "days": 2, "hourly": True, "unit": "F"},
        ),
        ("city=Paris, France, days=3", {"city": "Paris, France", "days": 3}),
        ("city: Paris\ndays: 2", {"city": "Paris", "days": 2}),
        ('city: "Paris"; tags: ["a", "b"]', {"city": "Paris", "tags": ["a", "b"]}),
        ("city: 75001", {"city": "75001"}),
    ],
)
def test_json_and_pairs_are_read_by_the_types_of_the_schema(text, expected) -> None:
    assert parse_arguments(text, SCHEMA) == expected


def test_a_single_parameter_may_be_given_as_plain_text() -> None:
    assert parse_arguments("Paris, France", ONE) == {"city": "Paris, France"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'city' is a required property"),
        ('{"city": 3}', "city: 3 is not of type 'string'"),
        ('{"city": "Paris", "days": 0}', "days: 0 is less than the minimum of 1"),
        ('{"city": "Paris", "colour": 1}', "Additional properties are not allowed"),
        ("city: Paris; days: many", "days: 'many' is not of type 'integer'"),
        ("just Paris", "write them as city: ...; days: ..."),
        ('{"city": "Par', "the arguments are not JSON"),
    ],
)
def test_a_mistake_is_named_in_words_a_model_can_act_on(text: str, words: str) -> None:
    with pytest.raises(ArgumentsError) as error:
        parse_arguments(text, SCHEMA)

    assert words in str(error.value)


@pytest.mark.parametrize("text", ["[]", "3", "NaN", '{"x": Infinity}', "[" * 100_000, "{" * 10])
def test_json_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ArgumentsError):
        parse_json(text)


def test_arguments_longer_than_the_limit_are_refused_unread() -> None:
    with pytest.raises(ArgumentsError, match="longer than"):
        parse_json('"' + "x" * MAX_ARGUMENT_CHARACTERS + '"')


def test_a_reference_out_of_the_schema_is_not_fetched() -> None:
    schema = {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/secret.json"}}}

    with pytest.raises(ArgumentsError, match="outside of it"):
        validate(schema, {"x": 1})


def test_references_inside_the_schema_work() -> None:
    schema = {
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/n"}},
        "$defs": {"n": {"type": "integer"}},
    }

    validate(schema, {"x": 1})
    with pytest.raises(ArgumentsError, match="x: 'a' is not of type"):
        validate(schema, {"x": "a"})


@pytest.mark.parametrize(
    "schema", [{"type": "array"}, {"type": "object", "properties": 3}, {"required": "x"}]
)
def test_what_is_no_schema_of_an_object_is_refused(schema) -> None:
    with pytest.raises(ValueError, match="schema"):
        check_schema(schema)


def test_arguments_are_the_same_whatever_their_order_and_blanks() -> None:
    assert canonical('{"b": 1, "a": [1,2]}') == canonical('{ "a": [1, 2], "b": 1 }')
    assert canonical("not json") == "not json"
