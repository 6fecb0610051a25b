"""The mutations cover the whole schema, and the comparison they are judged by can say no."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from agent_operator.api import AgentDeploymentSpec
from agent_operator.api.features import UNSUPPORTED
from tests.aot import bases, schema, tables
from tests.aot.campaign import amiss, difference
from tests.aot.effects import CONFIG, DEADLINE, REPLICAS, TEMPLATE, Effect, not_there, predict
from tests.aot.mutations import SEED, generate
from tests.aot.schema import UNSET
from tests.aot.state import State
from tests.aot.values import PATTERNS

MUTATIONS = generate()
NAME_RULE = "metadata.name must be"


def test_there_are_at_least_five_hundred_mutations_with_names_of_their_own() -> None:
    assert len(MUTATIONS) >= 500
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


def test_a_seed_gives_the_same_mutations_each_time_and_another_seed_others() -> None:
    assert generate(SEED) == MUTATIONS
    assert generate(SEED + 1) != MUTATIONS


@pytest.mark.parametrize("path", schema.leaves())
def test_a_field_is_given_right_and_wrong_values(path: str) -> None:
    about = [mutation for mutation in MUTATIONS if mutation.field == path]
    assert any(mutation.refused is None for mutation in about) == (path not in tables.REFUSED_ALWAYS)
    assert any(mutation.refused is not None for mutation in about)


@pytest.mark.parametrize("path", [p for p, node in schema.fields().items() if schema.sections_below(node)])
def test_a_section_is_taken_away_or_wrong(path: str) -> None:
    assert any(mutation.field == path for mutation in MUTATIONS)


@pytest.mark.parametrize("message", sorted(schema.rules()))
def test_a_rule_of_the_crd_is_broken_by_some_mutation(message: str) -> None:
    said = [mutation.refused for mutation in MUTATIONS if mutation.refused]
    assert message.startswith((NAME_RULE, *said))


@pytest.mark.parametrize("line", UNSUPPORTED, ids=lambda line: line.path)
def test_a_feature_that_is_not_there_is_asked_for(line: Any) -> None:
    accepted = [mutation.spec for mutation in MUTATIONS if mutation.refused is None]
    assert any(line.path in not_there(spec) for spec in accepted)


_complete = schema.stored


@pytest.mark.parametrize("name", bases.BASES)
def test_a_base_is_a_specification_that_this_version_carries_out(name: str) -> None:
    spec = bases.BASES[name]
    AgentDeploymentSpec.model_validate(spec)
    effect = predict(_complete(spec), _complete(spec))
    assert effect.parts == frozenset() and not effect.reason


def test_the_bases_say_something_in_every_field_that_works() -> None:
    asked = (*(line.path for line in UNSUPPORTED), "tuning", "remediation")
    missing = {
        path
        for path in schema.leaves()
        if not path.startswith(asked) and path not in tables.REFUSED_ALWAYS
        and all(schema.get(spec, schema.place(path, spec)) is UNSET for spec in bases.BASES.values())
    }  # fmt: skip
    assert not missing


def test_no_accepted_mutation_starts_a_container() -> None:
    for mutation in MUTATIONS:
        spec = mutation.spec
        suspended = spec.get("suspend") is True or spec.get("replicas") == 0
        pod = schema.get(spec, ("template", "spec"))
        nowhere = schema.get(pod, ("nodeSelector",)) == bases.NOWHERE
        nobody = schema.get(pod, ("schedulerName",)) == bases.NOBODY
        assert mutation.refused is not None or suspended or nowhere or nobody, mutation.name


def test_the_tables_speak_of_fields_that_exist() -> None:
    known = set(schema.fields())
    named = [*tables.GOOD, *tables.ALONE, *tables.ONLY_ON, *tables.REFUSED_ALWAYS, *tables.UNSET_REFUSED]
    named += [*tables.NOT_EMPTY, *tables.ROLLS_FOR_NOTHING, *tables.CHILD_REFUSED, *tables.NO_EFFECT]
    named += [path for _, path in tables.GOOD_ON]
    named += [path for paths in tables.ONLY_ABOUT.values() for path in paths]
    assert {*tables.ONLY_ABOUT, *(base for base, _ in tables.GOOD_ON)} <= set(bases.BASES)
    assert not set(named) - known
    scaffolds = {path.removesuffix("[]") for path in bases.SCAFFOLDS}
    assert not scaffolds - known


def test_every_pattern_of_the_schema_has_examples_that_fit_and_some_that_do_not() -> None:
    nodes = [node.get("items", node) for node in schema.leaves().values()]
    patterns = {node["pattern"] for node in nodes if "pattern" in node}
    assert patterns == set(PATTERNS)
    for pattern, texts in PATTERNS.items():
        long = [texts.long(60)] if texts.long else []
        assert all(re.search(pattern, text) for text in [*texts.good, *long]), pattern
        assert not any(re.search(pattern, text) for text in texts.bad), pattern


def test_a_field_whose_effect_nobody_described_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.aot.effects._CONFIG_FIELDS", ("model",))
    old = _complete(bases.LOCAL)
    with pytest.raises(AssertionError, match=r"nothing is known about the effect of agent\.systemPrompt"):
        predict(old, schema.put(old, ("agent", "systemPrompt"), "other"))


@pytest.mark.parametrize(
    ("place", "value", "parts"),
    [
        (("agent", "systemPrompt"), "other", {CONFIG}),
        (("agent", "tools", 0, "tokenSecretRef", "key"), "other", {TEMPLATE}),
        (("agent", "tools", 0, "tokenSecretRef"), UNSET, {CONFIG, TEMPLATE}),
        (("agent", "limits", "maxSteps"), 8, {CONFIG}),
        (("runtime", "logging", "path"), "/var/log/agent/b.log", {CONFIG}),
        (("resources", "gpu", "count"), 0, {CONFIG, TEMPLATE}),
        (("suspend",), False, {REPLICAS}),
        (("strategy", "progressDeadlineSeconds"), 99, {DEADLINE}),
        (("tuning",), {"mode": "Disabled"}, set()),
    ],
)
def test_the_predicted_parts_of_a_change(place: tuple[str | int, ...], value: Any, parts: set[str]) -> None:
    old = _complete(bases.LOCAL)
    assert predict(old, schema.put(old, place, value)).parts == parts


def _state(revision: str = "aaaabbbb", replicas: int = 0, config: str = "{}", more: Any = None) -> State:
    meta: dict[str, Any] = {"name": f"x-{revision}", "labels": {}, "annotations": {}}
    config = f'{{"revision": "{revision}", "agent": {config}}}'
    deployment = {"replicas": replicas, "progressDeadlineSeconds": 1, "template": {"image": "i"}}
    children: dict[str, Any] = {
        f"ConfigMap/x-{revision}": {"metadata": meta, "data": {"config.json": config}},
        f"Deployment/x-{revision}": {"metadata": meta, "spec": deployment},
        **(more or {}),
    }
    status = {"updateRevision": revision, "conditions": {"Ready": ("False", "Suspended", "")}}
    return State(1, 1, children, status)


REST = _state()
CONFIGURED = Effect(frozenset({CONFIG}), shown=(7,))


def test_a_change_that_arrived_is_not_amiss() -> None:
    assert amiss(CONFIGURED, REST, _state("ccccdddd", config='{"steps": 7}')) == ""
    assert amiss(Effect(frozenset({REPLICAS})), REST, _state(replicas=2)) == ""
    assert amiss(Effect(), REST, _state()) == ""


@pytest.mark.parametrize(
    ("effect", "state", "told"),
    [
        (CONFIGURED, _state(), "parts that differ: []"),
        (CONFIGURED, _state(config='{"steps": 7}'), "predicted a new one"),
        (CONFIGURED, _state("ccccdddd", config='{"steps": 8}'), "[7] is not in the changed configuration"),
        (CONFIGURED, _state("ccccdddd", 1, '{"steps": 7}'), "parts that differ: ['config', 'replicas']"),
        (
            CONFIGURED,
            _state("ccccdddd", config='{"steps": 7}', more={"Deployment/x-aaaabbbb": {"metadata": {}}}),
            "Deployment/x-aaaabbbb",
        ),
        (Effect(), _state("ccccdddd"), "predicted the same one"),
        (Effect(), _state(more={"Service/x": {"metadata": {}}}), "Service/x"),
        (Effect(reason="ChildInvalid", named="image"), _state(), "instead of ChildInvalid"),
    ],
)
def test_what_is_not_as_predicted_is_told(effect: Effect, state: State, told: str) -> None:
    assert told in amiss(effect, REST, state)


def test_a_refusal_must_name_its_field_and_touch_no_child() -> None:
    effect = Effect(reason="InvalidSpec", named="spec.x")
    told = ("False", "InvalidSpec", "spec.x: is wrong")
    conditions = {"Ready": told, "Stalled": ("True", *told[1:])}
    refused = replace(REST, status={"updateRevision": "aaaabbbb", "conditions": conditions})

    assert amiss(effect, REST, refused) == ""
    assert amiss(replace(effect, named="spec.y"), REST, refused)
    assert amiss(effect, REST, replace(refused, children={}))


def test_the_first_difference_of_two_values_is_named() -> None:
    assert difference({"a": [1]}, {"a": [1]}) == ""
    assert difference({"a": {"b": 1}}, {"a": {"b": 2}}) == "/a/b was 1 and is 2"
    assert difference({"a": 1}, {}) == "/a is gone"
    assert "was not" in difference({}, {"a": 1})
