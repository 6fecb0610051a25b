"""The models read what the API server stores, give it back unchanged, and cannot be altered."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from agent_operator.api import AgentDeployment, AgentDeploymentSpec, AgentDeploymentStatus, Reason
from agent_operator.api import agent as api_agent
from agent_operator.api.features import unsupported
from agent_operator.api.model import RemoteModel
from agent_operator.api.names import NAME_MAX_LENGTH
from agent_operator.api.runtime import LogLevel
from agent_operator.api.runtime import Parameters as ApiParameters
from agent_runtime import contract
from tests.support.kubectl import ROOT

GOOD = yaml.safe_load((ROOT / "tests" / "contract" / "good_manifests.yaml").read_text())
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
MINIMAL = {"model": {"uri": "hf://example/geography"}}


@pytest.mark.parametrize("case", GOOD, ids=[case["id"] for case in GOOD])
def test_a_spec_survives_being_written_and_read_again(case: dict[str, Any]) -> None:
    document = {**MINIMAL, **case["spec"]}
    spec = AgentDeploymentSpec.model_validate(document)

    assert AgentDeploymentSpec.model_validate(spec.to_manifest()) == spec


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_a_valid_agent_deployment(path: Any) -> None:
    agent = AgentDeployment.model_validate(yaml.safe_load(path.read_text()))

    assert unsupported(agent.spec) == []


def test_a_spec_is_written_with_snake_case_and_read_with_camel_case() -> None:
    spec = AgentDeploymentSpec.model_validate({**MINIMAL, "health": {"stallSeconds": 7}})

    assert spec.health.stall_seconds == 7
    assert spec.to_manifest()["health"] == {"stallSeconds": 7}


def test_a_template_keeps_fields_nobody_named_and_adds_none() -> None:
    template = {
        "metadata": {"labels": {"team": "maps"}},
        "spec": {
            "nodeSelector": {"accelerator": "a100"},
            "containers": [{"name": "runtime", "env": [{"name": "A", "value": "1"}]}],
        },
    }

    spec = AgentDeploymentSpec.model_validate({**MINIMAL, "template": template})

    assert spec.template is not None
    assert spec.template.to_manifest() == template


def test_a_spec_cannot_be_changed_after_it_was_read() -> None:
    spec = AgentDeploymentSpec.model_validate(MINIMAL)

    with pytest.raises(ValidationError, match="frozen"):
        spec.replicas = 3


def test_an_unknown_field_of_a_newer_schema_is_refused_not_ignored() -> None:
    with pytest.raises(ValidationError, match=r"health\.patience"):
        AgentDeploymentSpec.model_validate({**MINIMAL, "health": {"patience": 3}})


def test_an_unknown_field_in_status_is_ignored_because_another_version_wrote_it() -> None:
    status = AgentDeploymentStatus.model_validate({"ready": "1/1", "mood": "good"})

    assert status.ready == "1/1"


def test_every_reason_a_runtime_can_give_is_a_condition_reason() -> None:
    assert {code.value for code in contract.FailureCode} <= {reason.value for reason in Reason}


def test_reasons_are_single_camel_case_words() -> None:
    assert all(reason.value.isalpha() and reason.value[0].isupper() for reason in Reason)


SAME_FIELDS: list[tuple[type[BaseModel], type[BaseModel]]] = [
    (ApiParameters, contract.Parameters),
    (api_agent.AgentLimits, contract.RunLimits),
    (api_agent.Prices, contract.Prices),
]
ALIKE = [
    *SAME_FIELDS,
    (api_agent.Tool, contract.ToolConfig),
    (api_agent.HttpTool, contract.HttpToolConfig),
    (api_agent.Sessions, contract.SessionsConfig),
    (api_agent.Decision, contract.DecisionConfig),
    (RemoteModel, contract.RemoteConfig),
]
"""Models of the API and of the contract that say the same, as far as fields have the same name."""


@pytest.mark.parametrize(("api", "runtime"), SAME_FIELDS, ids=lambda model: model.__name__)
def test_what_is_passed_on_as_it_is_has_the_same_fields(
    api: type[BaseModel], runtime: type[BaseModel]
) -> None:
    assert api.model_fields.keys() == runtime.model_fields.keys()


@pytest.mark.parametrize(("api", "runtime"), ALIKE, ids=lambda model: model.__name__)
def test_a_field_has_the_default_of_the_runtime_or_leaves_it_to_the_runtime(
    api: type[BaseModel], runtime: type[BaseModel]
) -> None:
    for name in api.model_fields.keys() & runtime.model_fields.keys():
        default = api.model_fields[name].default
        if default is not None and not api.model_fields[name].is_required():
            wanted = runtime.model_fields[name].default
            same = float(default) == wanted if isinstance(wanted, float) else default == wanted
            assert same, f"{api.__name__}.{name}: {default!r} is not {wanted!r}"


@pytest.mark.parametrize(("api", "runtime"), ALIKE, ids=lambda model: model.__name__)
def test_the_api_accepts_no_number_that_the_runtime_would_refuse(
    api: type[BaseModel], runtime: type[BaseModel]
) -> None:
    ours, theirs = api.model_json_schema(by_alias=False), runtime.model_json_schema()
    for name in api.model_fields.keys() & runtime.model_fields.keys():
        narrow, wide = bounds(ours["properties"][name]), bounds(theirs["properties"][name])
        assert narrow[0] is None or narrow[0] >= wide[0], name
        assert narrow[1] is None or narrow[1] <= wide[1], name


def bounds(schema: dict[str, Any]) -> tuple[Any, Any]:
    """Smallest and largest number of a JSON schema; None for one of the API that is not a number."""
    numbers = [s for s in schema.get("anyOf", [schema]) if s.get("type") in ("integer", "number")]
    if not numbers:
        return None, None
    (number,) = numbers
    lowest = number.get("minimum", number.get("exclusiveMinimum", -math.inf))
    return lowest, number.get("maximum", math.inf)


def test_the_serving_parameters_have_the_bounds_of_the_runtime() -> None:
    ours, theirs = ApiParameters.model_json_schema(by_alias=False), contract.Parameters.model_json_schema()
    for name in ApiParameters.model_fields:
        api, runtime = bounds(ours["properties"][name]), bounds(theirs["properties"][name])
        # The API counts whole seconds: above 0 is at least 1.
        assert api == (max(runtime[0], 1) if name == "request_timeout_seconds" else runtime[0], runtime[1])


@pytest.mark.parametrize(
    ("words", "model", "field"),
    [
        (api_agent.DecisionPolicy, contract.DecisionConfig, "policy"),
        (api_agent.SessionStore, contract.SessionsConfig, "store"),
        (api_agent.HttpMethod, contract.HttpToolConfig, "method"),
        (LogLevel, contract.LoggingConfig, "level"),
    ],
)
def test_every_word_of_an_enumeration_is_one_the_runtime_knows(
    words: type[StrEnum], model: type[BaseModel], field: str
) -> None:
    assert {word.value for word in words} == set(model.model_json_schema()["properties"][field]["enum"])


def test_a_decision_cannot_be_as_cold_as_zero() -> None:
    decision = {"policy": "Softmax", "temperature": "0.000"}

    with pytest.raises(ValidationError, match="greater than 0"):
        AgentDeploymentSpec.model_validate({**MINIMAL, "agent": {"decision": decision}})


def test_the_serving_parameters_have_the_defaults_of_the_runtime() -> None:
    assert ApiParameters().model_dump() == contract.Parameters().model_dump()
    assert contract.LoggingConfig(level=LogLevel.INFO.value).level == contract.LoggingConfig().level


@pytest.mark.parametrize("dtype", ["auto", "float32", "float16", "bfloat16"])
def test_every_number_format_is_one_the_runtime_knows(dtype: str) -> None:
    model = AgentDeploymentSpec.model_validate({"model": {**MINIMAL["model"], "dtype": dtype}}).model

    assert contract.ModelConfig(uri="x", served_name="x", dtype=model.dtype.value).dtype == dtype


def test_a_name_leaves_room_for_the_revision() -> None:
    assert NAME_MAX_LENGTH + len("-") + 8 <= 63
