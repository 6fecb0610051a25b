"""The runtime is told what the specification says, in the contract's words and no others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent_operator.core import request
from agent_operator.core.children.config_map import rendered
from agent_operator.core.children.metadata import Owner
from agent_operator.core.children.pod import PRE_STOP_SECONDS, pod_template
from agent_operator.core.children.runtime_config import runtime_config
from agent_operator.core.request import Request
from agent_runtime.contract import (
    AgentConfig,
    DecisionConfig,
    Parameters,
    Prices,
    RunLimits,
    RuntimeConfig,
    SessionsConfig,
)

MODEL = {"uri": "hf://organisation/model"}
SECRETS = "/var/run/agent-runtime/secrets"


def written(**spec: Any) -> str:
    asked = request.read({"spec": {"model": MODEL, **spec}})
    assert isinstance(asked, Request), asked
    return rendered(runtime_config(Owner("geography", "default", "u"), asked.spec, asked.model, "bcdfghjk"))


def told(**spec: Any) -> RuntimeConfig:
    """What the runtime reads."""
    return RuntimeConfig.model_validate_json(written(**spec))


def test_an_agent_that_asks_for_nothing_gets_the_contracts_defaults() -> None:
    config = told()
    assert (config.name, config.namespace, config.revision) == ("geography", "default", "bcdfghjk")
    assert (config.agent, config.parameters) == (AgentConfig(), Parameters())
    assert config.access.api_keys_path is None


def test_what_the_operator_has_no_opinion_of_is_left_to_the_runtime() -> None:
    config = json.loads(written())
    assert config["agent"] == {}
    assert "device" not in config["model"]
    assert "backups" not in config["logging"]


def test_the_pods_ports_and_grace_are_those_the_runtime_is_told() -> None:
    config = json.loads(written())
    asked = request.read({"spec": {"model": MODEL}})
    assert isinstance(asked, Request)
    pod = pod_template(Owner("geography", "default", "u"), asked.spec, asked.model, "bcdfghjk", "image:1")
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": config["port"], "admin": config["admin"]["port"]}
    assert PRE_STOP_SECONDS + config["drain_seconds"] < pod["spec"]["terminationGracePeriodSeconds"]
    assert config["drain_seconds"] >= config["parameters"]["request_timeout_seconds"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == "admin"


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (
            {"uri": "hf://a/b", "revision": "v1", "tokenSecretRef": {"name": "hub"}},
            {"repo_id": "a/b", "revision": "v1", "token_file": f"{SECRETS}/model-token"},
        ),
        ({"uri": "oci://localhost/a:b"}, {"path": "/models/model"}),
        ({"uri": "pvc://claim/some/where"}, {"path": "/models/model/some/where"}),
        ({"uri": "s3://bucket/some/where"}, {"s3_uri": "s3://bucket/some/where"}),
        ({"uri": "hf://a/b", "quantization": "Int8"}, {"repo_id": "a/b", "quantization": "int8"}),
        ({"uri": "hf://a/b", "quantization": "Int4"}, {"repo_id": "a/b", "quantization": "int4"}),
    ],
)
def test_a_model_is_found_in_one_way_only(model: dict[str, Any], fields: dict[str, Any]) -> None:
    config = json.loads(written(model=model))["model"]
    said = {"uri": model["uri"], "served_name": "geography", "dtype": "auto", "quantization": "none"}
    assert config == {**said, **fields}


def test_a_remote_model_is_asked_by_its_own_name_and_served_by_the_agents() -> None:
    remote = {
        "baseUrl": "https://llm.example.com/v1",
        "model": "large-chat",
        "apiKeySecretRef": {"name": "llm", "key": "api-key"},
        "contextTokens": 8192,
        "timeoutSeconds": 30,
    }
    model = told(model={"remote": remote}).model
    assert (model.served_name, model.uri, model.path, model.repo_id) == (
        "geography",
        "https://llm.example.com/v1",
        None,
        None,
    )
    assert model.remote is not None
    assert model.remote.model_dump() == {
        "base_url": "https://llm.example.com/v1",
        "model": "large-chat",
        "api_key_file": f"{SECRETS}/remote-api-key",
        "timeout_seconds": 30.0,
        "context_tokens": 8192,
    }


def test_decimals_become_numbers() -> None:
    agent = {
        "decision": {"policy": "Softmax", "temperature": "0.7", "abstainBelow": "0.25"},
        "limits": {"maxCost": "0.05", "timeoutSeconds": 60},
        "prices": {"perMillionInputTokens": "0.15", "perToolCall": "0.001"},
    }
    config = told(agent=agent).agent
    assert config.decision == DecisionConfig(policy="Softmax", temperature=0.7, abstain_below=0.25)
    assert config.limits == RunLimits(max_cost=0.05, timeout_seconds=60)
    assert config.prices == Prices(per_million_input_tokens=0.15, per_tool_call=0.001)


def test_a_decision_is_made_only_when_it_is_asked_for() -> None:
    assert told(agent={"systemPrompt": "x"}).agent.decision is None
    assert told(agent={"decision": {}}).agent.decision == DecisionConfig()


def test_sessions_are_kept_where_it_is_said() -> None:
    assert told(agent={"sessions": {}}).agent.sessions == SessionsConfig()
    redis = {"store": "Redis", "redisUrlSecretRef": {"name": "redis", "key": "url"}, "ttlSeconds": 60}
    sessions = told(agent={"sessions": redis}).agent.sessions
    wanted = SessionsConfig(store="Redis", redis_url_file=f"{SECRETS}/redis-url", ttl_seconds=60)
    assert sessions == wanted


def test_a_tools_schema_is_passed_on_to_the_letter() -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": ["string", "null"], "default": None, "enum": ["Paris", None]}},
        "required": [],
    }
    http = {"url": "http://weather", "method": "GET", "description": "The weather.", "parameters": schema}
    tool = {"name": "weather", "http": http, "tokenSecretRef": {"name": "w"}, "requireApproval": True}
    (config,) = told(agent={"tools": [tool]}).agent.tools
    assert config.http is not None
    assert config.http.parameters == schema
    assert (config.http.method, config.mcp_server, config.require_approval) == ("GET", None, True)
    assert config.token_file == f"{SECRETS}/tool-weather-token"


def test_a_tool_without_a_schema_takes_no_arguments() -> None:
    tool = {"name": "ping", "http": {"url": "http://ping", "description": "Pings."}}
    (config,) = told(agent={"tools": [tool]}).agent.tools
    assert config.http is not None
    assert config.http.parameters == {"type": "object", "properties": {}}


def test_a_server_of_tools_is_named_with_the_tools_it_may_offer() -> None:
    server = {"url": "http://search/mcp", "toolNames": ["web_search"]}
    tool = {"name": "search", "mcpServer": server, "retries": 3, "maxResultBytes": 100, "timeoutSeconds": 7}
    (config,) = told(agent={"tools": [tool]}).agent.tools
    assert config.mcp_server is not None
    assert (config.mcp_server.url, config.mcp_server.tool_names) == ("http://search/mcp", ("web_search",))
    assert (config.retries, config.max_result_bytes, config.timeout_seconds) == (3, 100, 7.0)


def test_every_serving_parameter_and_the_log_file_are_passed_on() -> None:
    parameters = {
        "maxConcurrency": 4,
        "maxQueuedRequests": 8,
        "maxQueuedTokens": 1024,
        "maxInputTokens": 256,
        "maxOutputTokens": 64,
        "maxBatchSize": 2,
        "batchWaitMilliseconds": 5,
        "requestTimeoutSeconds": 120,
    }
    config = told(runtime={"parameters": parameters, "logging": {"path": "/var/log/agent/agent.log"}})
    assert config.parameters == Parameters(
        max_concurrency=4,
        max_queued_requests=8,
        max_queued_tokens=1024,
        max_input_tokens=256,
        max_output_tokens=64,
        max_batch_size=2,
        batch_wait_milliseconds=5,
        request_timeout_seconds=120,
    )
    assert config.logging.path == "/var/log/agent/agent.log"


def test_keys_are_asked_for_once_there_is_a_secret_of_them() -> None:
    config = told(access={"apiKeysSecretRef": {"name": "keys"}})
    assert config.access.api_keys_path == "/var/run/agent-runtime/api-keys"
