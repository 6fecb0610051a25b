"""ConfigMap of a revision: what its runtime is told. Layer: core, pure; imports agent_runtime.contract.

The one idea: named by the revision and immutable, so a running pod's configuration cannot change under
it. One that exists is kept as it is: an older operator may have spelt the same thing differently.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from agent_operator.api import AgentDeploymentSpec
from agent_operator.api.model_uri import ModelUri, Scheme
from agent_operator.core import naming
from agent_operator.core.children.metadata import Owner, metadata
from agent_operator.core.reading import text
from agent_runtime.contract import (
    CONFIG_PATH,
    MODEL_MOUNT_PATH,
    LoggingConfig,
    ModelConfig,
    Parameters,
    RuntimeConfig,
)

CONFIG_KEY = PurePosixPath(CONFIG_PATH).name


def config_map(
    owner: Owner, spec: AgentDeploymentSpec, model: ModelUri, revision: str, live: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The ConfigMap `<agent>-<revision>`. `live` is the one that exists, whose data is kept."""
    written = text(live, "data", CONFIG_KEY)
    config = written if belongs(written, revision) else rendered(runtime_config(owner, spec, model, revision))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(owner, naming.revisioned(owner.name, revision), revision),
        "immutable": True,
        "data": {CONFIG_KEY: config},
    }


def belongs(config: str, revision: str) -> bool:
    """Whether a configuration says that it is of this revision."""
    try:
        parsed = json.loads(config)
    except (ValueError, RecursionError):
        return False
    return isinstance(parsed, dict) and parsed.get("revision") == revision


def runtime_config(owner: Owner, spec: AgentDeploymentSpec, model: ModelUri, revision: str) -> RuntimeConfig:
    """Everything the runtime of this revision is told."""
    parameters = spec.runtime.parameters
    return RuntimeConfig(
        agent=owner.name,
        namespace=owner.namespace,
        revision=revision,
        model=_model_config(owner, spec, model),
        system_prompt=spec.agent.system_prompt if spec.agent else None,
        parameters=Parameters(
            max_concurrency=parameters.max_concurrency,
            max_queued_requests=parameters.max_queued_requests,
            max_input_tokens=parameters.max_input_tokens,
            max_output_tokens=parameters.max_output_tokens,
        ),
        logging=LoggingConfig(level=spec.runtime.logging.level.value),
        gpu_requested=spec.resources.gpu.count if spec.resources and spec.resources.gpu else 0,
        stall_seconds=float(spec.health.stall_seconds),
    )


def rendered(config: RuntimeConfig) -> str:
    """The configuration as the file that is mounted: JSON, keys sorted, absent values left out."""
    return json.dumps(config.model_dump(mode="json", exclude_none=True), indent=2, sort_keys=True) + "\n"


def _model_config(owner: Owner, spec: AgentDeploymentSpec, model: ModelUri) -> ModelConfig:
    """Which weights to load. They are served under the agent's name, which outlives any one model."""
    hub = model.scheme is Scheme.HF
    path = None
    if not hub:
        path = str(PurePosixPath(MODEL_MOUNT_PATH, model.sub_path if model.scheme is Scheme.PVC else ""))
    return ModelConfig(
        uri=spec.model.uri or "",
        served_name=owner.name,
        path=path,
        repo_id=model.repo_id if hub else None,
        revision=spec.model.revision,
        dtype=spec.model.dtype.value,
    )
