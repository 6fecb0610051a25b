"""A revision stands for what the user asked for: neither scaling nor a new operator changes it."""

from __future__ import annotations

from typing import Any

import pytest

from agent_operator.api import AgentDeploymentSpec
from agent_operator.core.revision import Running, choose, revision_fields, revision_name

MINIMAL: dict[str, Any] = {"model": {"uri": "hf://organisation/model"}}


def name(image: str = "runtime:1", **fields: Any) -> str:
    return revision_name(AgentDeploymentSpec.model_validate({**MINIMAL, **fields}), image)


def test_the_name_is_what_it_always_was() -> None:
    # A change of this value restarts every pod of every user at the next upgrade of the operator.
    assert name() == "gb564p7b"


@pytest.mark.parametrize(
    "fields",
    [
        {"replicas": 7},
        {"suspend": True},
        {"strategy": {"progressDeadlineSeconds": 60}},
        {"remediation": {"mode": "Auto"}},
        {"tuning": {"mode": "Auto"}},
        {"runtime": {"parameters": {"maxConcurrency": 16}, "logging": {"level": "info"}}},
        {"model": {**MINIMAL["model"], "dtype": "auto"}},
        {"health": {"stallSeconds": 60}},
        {"template": {}},
        {"resources": {}},
        {"access": {}},
        {"agent": {"limits": {"maxSteps": 8}, "prices": {"perToolCall": "0"}, "tools": []}},
        {"runtime": {"parameters": {"maxQueuedTokens": 65536, "requestTimeoutSeconds": 600}}},
        {"model": {**MINIMAL["model"], "quantization": "Disabled"}},
    ],
)
def test_what_changes_no_pod_changes_no_revision(fields: dict[str, Any]) -> None:
    assert name(**fields) == name()


@pytest.mark.parametrize(
    "fields",
    [
        {"model": {"uri": "hf://organisation/other"}},
        {"model": {**MINIMAL["model"], "revision": "v2"}},
        {"model": {**MINIMAL["model"], "dtype": "float16"}},
        {"model": {**MINIMAL["model"], "tokenSecretRef": {"name": "hub"}}},
        {"model": {**MINIMAL["model"], "quantization": "Int8"}},
        {"model": {"remote": {"baseUrl": "https://llm.example.com/v1", "model": "large"}}},
        {"agent": {"systemPrompt": "Be brief."}},
        {"agent": {"tools": [{"name": "search", "mcpServer": {"url": "http://search"}}]}},
        {"agent": {"decision": {}}},
        {"agent": {"limits": {"maxSteps": 4}}},
        {"agent": {"prices": {"perToolCall": "0.1"}}},
        {"agent": {"sessions": {}}},
        {"runtime": {"parameters": {"maxBatchSize": 4}}},
        {"runtime": {"parameters": {"batchWaitMilliseconds": 0}}},
        {"runtime": {"parameters": {"maxQueuedTokens": 1024}}},
        {"runtime": {"parameters": {"requestTimeoutSeconds": 60}}},
        {"runtime": {"logging": {"path": "/var/log/agent/agent.log"}}},
        {"access": {"apiKeysSecretRef": {"name": "keys"}}},
        {"runtime": {"parameters": {"maxConcurrency": 17}}},
        {"runtime": {"logging": {"level": "debug"}}},
        {"resources": {"gpu": {}}},
        {"resources": {"limits": {"memory": "2Gi"}}},
        {"health": {"startupDeadlineSeconds": 60}},
        {"template": {"metadata": {"annotations": {"restarted": "today"}}}},
        {"template": {"spec": {"nodeSelector": {"zone": "a"}}}},
    ],
)
def test_what_changes_the_pod_or_its_configuration_changes_the_revision(fields: dict[str, Any]) -> None:
    assert name(**fields) != name()


def test_the_image_is_part_of_the_name() -> None:
    assert name(image="runtime:2") != name()


def test_fields_at_their_default_are_left_out() -> None:
    full = AgentDeploymentSpec.model_validate(
        {**MINIMAL, "runtime": {"image": "x", "parameters": {"maxConcurrency": 16}}, "health": {}}
    )
    assert revision_fields(full) == MINIMAL


def test_a_new_default_image_does_not_reach_a_running_agent() -> None:
    spec = AgentDeploymentSpec.model_validate(MINIMAL)
    running = [Running(revision_name(spec, "runtime:1"), "runtime:1", image_from_spec=False)]
    chosen = choose(spec, "runtime:2", running)
    assert (chosen.name, chosen.image) == (name(), "runtime:1")


def test_the_next_change_of_the_spec_takes_the_new_default_image() -> None:
    old = AgentDeploymentSpec.model_validate(MINIMAL)
    running = [Running(revision_name(old, "runtime:1"), "runtime:1", image_from_spec=False)]
    changed = AgentDeploymentSpec.model_validate({**MINIMAL, "agent": {"systemPrompt": "Be brief."}})
    assert choose(changed, "runtime:2", running).image == "runtime:2"


def test_an_image_named_in_the_spec_wins_and_is_not_kept_once_removed() -> None:
    named = AgentDeploymentSpec.model_validate({**MINIMAL, "runtime": {"image": "own:1"}})
    chosen = choose(named, "runtime:1", [])
    assert (chosen.image, chosen.image_from_spec) == ("own:1", True)
    running = [Running(chosen.name, "own:1", image_from_spec=True)]
    assert choose(AgentDeploymentSpec.model_validate(MINIMAL), "runtime:1", running).image == "runtime:1"


def test_naming_the_image_that_runs_already_rolls_nothing() -> None:
    named = AgentDeploymentSpec.model_validate({**MINIMAL, "runtime": {"image": "runtime:1"}})
    assert choose(named, "runtime:2", []).name == name()


def test_an_image_edited_into_a_deployment_by_hand_is_not_taken_for_ours() -> None:
    spec = AgentDeploymentSpec.model_validate(MINIMAL)
    running = [Running(name(), "hijacked:1", image_from_spec=False)]
    assert choose(spec, "runtime:1", running).image == "runtime:1"
