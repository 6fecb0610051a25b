"""What a runtime is told. Layer: core, pure; imports api, core.* and agent_runtime.contract.

The one idea: from the specification's words to the contract's, field by field; defaults are those of the
contract, and a test holds both to the same ones. Decimals are text in the API, which has no floats, and
numbers here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Literal

from agent_operator.api import AgentDeploymentSpec
from agent_operator.api.agent import Agent, Decision, HttpTool, Prices, Sessions, Tool
from agent_operator.api.model import Quantization, RemoteModel
from agent_operator.api.model_uri import ModelUri, Scheme
from agent_operator.core.children import secrets
from agent_operator.core.children.metadata import Owner
from agent_runtime import contract
from agent_runtime.contract import MODEL_MOUNT_PATH, ModelConfig, RuntimeConfig

_LEAST_DRAIN_SECONDS: float = RuntimeConfig.model_fields["drain_seconds"].default
_QUANTIZATION: Mapping[Quantization, Literal["none", "int8", "int4"]] = {
    Quantization.DISABLED: "none",
    Quantization.INT8: "int8",
    Quantization.INT4: "int4",
}


def runtime_config(
    owner: Owner, spec: AgentDeploymentSpec, model: ModelUri | None, revision: str
) -> RuntimeConfig:
    """Everything the runtime of a revision is told. `model` None is a remote one."""
    keys = spec.access.api_keys_secret_ref if spec.access else None
    return RuntimeConfig(
        name=owner.name,
        namespace=owner.namespace,
        revision=revision,
        model=_model(owner, spec, model),
        agent=_agent(spec.agent) if spec.agent else contract.AgentConfig(),
        access=contract.AccessConfig(api_keys_path=secrets.API_KEYS_PATH if keys else None),
        admin=contract.AdminConfig(port=contract.ADMIN_PORT),
        parameters=contract.Parameters.model_validate(spec.runtime.parameters.model_dump()),
        logging=contract.LoggingConfig(
            level=spec.runtime.logging.level.value, path=spec.runtime.logging.path
        ),
        gpu_requested=spec.resources.gpu.count if spec.resources and spec.resources.gpu else 0,
        drain_seconds=drain_seconds(spec),
        stall_seconds=float(spec.health.stall_seconds),
        port=contract.HTTP_PORT,
    )


def drain_seconds(spec: AgentDeploymentSpec) -> float:
    """Longest wait for requests when a replica ends: none may take longer than its own deadline, so nothing
    that may still be answered is cut off. A replica without requests does not wait."""
    return max(_LEAST_DRAIN_SECONDS, float(spec.runtime.parameters.request_timeout_seconds))


def _model(owner: Owner, spec: AgentDeploymentSpec, model: ModelUri | None) -> ModelConfig:
    """Which model to serve. It is served under the agent's name, which outlives any one model."""
    asked, remote = spec.model, spec.model.remote
    hub = model is not None and model.scheme is Scheme.HF
    return ModelConfig(
        uri=asked.uri or (remote.base_url if remote else ""),
        served_name=owner.name,
        path=_path(model),
        repo_id=model.repo_id if model is not None and hub else None,
        revision=asked.revision,
        s3_uri=asked.uri if model is not None and model.scheme is Scheme.S3 else None,
        remote=_remote(remote) if remote else None,
        token_file=secrets.path_of(secrets.MODEL_TOKEN, asked.token_secret_ref),
        dtype=asked.dtype.value,
        quantization=_QUANTIZATION[asked.quantization],
    )


def _path(model: ModelUri | None) -> str | None:
    """The mounted folder that holds the model, None where the runtime fetches it."""
    if model is None or model.scheme not in (Scheme.OCI, Scheme.PVC):
        return None
    return str(PurePosixPath(MODEL_MOUNT_PATH, model.sub_path if model.scheme is Scheme.PVC else ""))


def _remote(remote: RemoteModel) -> contract.RemoteConfig:
    return contract.RemoteConfig(
        base_url=remote.base_url,
        model=remote.model,
        api_key_file=secrets.path_of(secrets.REMOTE_API_KEY, remote.api_key_secret_ref),
        timeout_seconds=remote.timeout_seconds,
        context_tokens=remote.context_tokens,
    )


def _agent(agent: Agent) -> contract.AgentConfig:
    limits = agent.limits.model_dump(exclude_none=True) if agent.limits else {}
    return contract.AgentConfig(
        system_prompt=agent.system_prompt,
        tools=tuple(_tool(tool) for tool in agent.tools),
        decision=_decision(agent.decision) if agent.decision else None,
        limits=contract.RunLimits.model_validate(limits),
        prices=_prices(agent.prices) if agent.prices else contract.Prices(),
        sessions=_sessions(agent.sessions) if agent.sessions else None,
    )


def _tool(tool: Tool) -> contract.ToolConfig:
    return contract.ToolConfig(
        name=tool.name,
        mcp_server=contract.McpServerConfig(**tool.mcp_server.model_dump()) if tool.mcp_server else None,
        http=_http(tool.http) if tool.http else None,
        require_approval=tool.require_approval,
        timeout_seconds=tool.timeout_seconds,
        retries=tool.retries,
        max_result_bytes=tool.max_result_bytes,
        token_file=secrets.path_of(secrets.tool_token(tool.name), tool.token_secret_ref),
    )


def _http(tool: HttpTool) -> contract.HttpToolConfig:
    return contract.HttpToolConfig.model_validate(tool.model_dump(mode="json", exclude_none=True))


def _decision(decision: Decision) -> contract.DecisionConfig:
    return contract.DecisionConfig.model_validate(decision.model_dump(mode="json", exclude_none=True))


def _prices(prices: Prices) -> contract.Prices:
    return contract.Prices.model_validate(prices.model_dump())


def _sessions(sessions: Sessions) -> contract.SessionsConfig:
    return contract.SessionsConfig(
        store=sessions.store.value,
        redis_url_file=secrets.path_of(secrets.REDIS_URL, sessions.redis_url_secret_ref),
        ttl_seconds=sessions.ttl_seconds,
        max_sessions=sessions.max_sessions,
    )
