"""The models read what the API server stores, give it back unchanged, and cannot be altered."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from agent_operator.api import AgentDeployment, AgentDeploymentSpec, AgentDeploymentStatus, Reason
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

    assert agent.spec.model.uri is not None


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


def test_the_serving_parameters_have_the_defaults_of_the_runtime() -> None:
    api = ApiParameters().model_dump(exclude_none=True)

    assert api == contract.Parameters().model_dump()
    assert contract.LoggingConfig(level=LogLevel.INFO.value).level == contract.LoggingConfig().level


@pytest.mark.parametrize("level", list(LogLevel))
def test_every_log_level_is_one_the_runtime_knows(level: LogLevel) -> None:
    contract.LoggingConfig.model_validate({"level": level.value})


@pytest.mark.parametrize("dtype", ["auto", "float32", "float16", "bfloat16"])
def test_every_number_format_is_one_the_runtime_knows(dtype: str) -> None:
    model = AgentDeploymentSpec.model_validate({"model": {**MINIMAL["model"], "dtype": dtype}}).model

    assert contract.ModelConfig(uri="x", served_name="x", dtype=model.dtype.value).dtype == dtype


def test_a_name_leaves_room_for_the_revision() -> None:
    assert NAME_MAX_LENGTH + len("-") + 8 <= 63
