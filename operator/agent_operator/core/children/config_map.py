"""ConfigMap of a revision: the file its runtime reads. Layer: core, pure; imports agent_runtime.contract.

The one idea: named by the revision and immutable, so a running pod's configuration cannot change under
it. One that exists is kept as it is: an older operator may have spelt the same thing differently.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from agent_operator.api import AgentDeploymentSpec
from agent_operator.api.model_uri import ModelUri
from agent_operator.core import naming
from agent_operator.core.children.metadata import Owner, metadata
from agent_operator.core.children.runtime_config import runtime_config
from agent_operator.core.reading import text
from agent_runtime.contract import CONFIG_PATH, RuntimeConfig

CONFIG_KEY = PurePosixPath(CONFIG_PATH).name


def config_map(
    owner: Owner,
    spec: AgentDeploymentSpec,
    model: ModelUri | None,
    revision: str,
    live: Mapping[str, Any] | None,
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


def rendered(config: RuntimeConfig) -> str:
    """The configuration as the file that is mounted: JSON, keys sorted, absent values left out.

    So is what the operator has no opinion of: there a runtime's own default holds, and one that is older
    (spec.runtime.image) meets no key it does not know.
    """
    said = config.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    return json.dumps(said, indent=2, sort_keys=True) + "\n"
