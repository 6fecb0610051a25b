"""Secrets that a runtime is given. Layer: core, pure; imports api, core.reading and the contract.

The one idea: a secret reaches the runtime as a file and never as an environment variable, which every child
process inherits and `kubectl exec env` shows. The operator only names Secrets: the kubelet reads them, keeps
the files up to date, and holds back a pod whose Secret or key is missing. The file's name says which field
of the specification asked for it, so a missing one can be told by its field.

API keys are a folder of their own, mounted whole: which keys there are is the Secret's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from agent_operator.api import AgentDeploymentSpec
from agent_operator.api.names import VOLUME_API_KEYS, VOLUME_SECRETS
from agent_operator.api.types import SecretKeyRef
from agent_operator.core.reading import mappings, text
from agent_runtime.contract import SECRETS_PATH

API_KEYS_PATH = str(PurePosixPath(SECRETS_PATH).with_name("api-keys"))
"""Beside the other secrets, not below them: a volume cannot be mounted inside a read-only one."""
MODE = 0o440
"""Readable by the pod's user through its fsGroup, writable by nobody."""

MODEL_TOKEN = "model-token"  # noqa: S105 - a file's name
REMOTE_API_KEY = "remote-api-key"
REDIS_URL = "redis-url"
_FIELDS = {
    MODEL_TOKEN: "spec.model.tokenSecretRef",
    REMOTE_API_KEY: "spec.model.remote.apiKeySecretRef",
    REDIS_URL: "spec.agent.sessions.redisUrlSecretRef",
}


@dataclass(frozen=True, slots=True)
class SecretUse:
    """A Secret that a pod needs; `key` is None where it needs all of them."""

    secret: str
    key: str | None
    field: str
    """Field of the specification that names it."""


def tool_token(tool: str) -> str:
    """Name of the file with a tool's bearer token."""
    return f"tool-{tool}-token"


def path_of(file: str, reference: SecretKeyRef | None) -> str | None:
    """Where the runtime finds the secret, None when none is asked for."""
    return None if reference is None else str(PurePosixPath(SECRETS_PATH, file))


def secret_files(spec: AgentDeploymentSpec) -> dict[str, SecretKeyRef]:
    """The Secret keys that become files, by file name."""
    agent, remote = spec.agent, spec.model.remote
    sessions = agent.sessions if agent else None
    wanted = {
        MODEL_TOKEN: spec.model.token_secret_ref,
        REMOTE_API_KEY: remote.api_key_secret_ref if remote else None,
        REDIS_URL: sessions.redis_url_secret_ref if sessions else None,
        **{tool_token(tool.name): tool.token_secret_ref for tool in (agent.tools if agent else ())},
    }
    return {file: reference for file, reference in wanted.items() if reference is not None}


def projected(files: Mapping[str, SecretKeyRef]) -> dict[str, Any]:
    """The source of the volume with these files."""
    sources = [
        {"secret": {"name": reference.name, "items": [{"key": reference.key, "path": file}]}}
        for file, reference in files.items()
    ]
    return {"projected": {"defaultMode": MODE, "sources": sources}}


def whole(secret: str) -> dict[str, Any]:
    """The source of the volume with every key of a Secret."""
    return {"secret": {"secretName": secret, "defaultMode": MODE}}


def uses(template: Mapping[str, Any]) -> tuple[SecretUse, ...]:
    """The Secrets that a pod template mounts for the runtime."""
    found = []
    for volume in mappings(template, "spec", "volumes"):
        if volume.get("name") == VOLUME_SECRETS:
            for source in mappings(volume, "projected", "sources"):
                for item in mappings(source, "secret", "items"):
                    field = _field(text(item, "path"))
                    found.append(SecretUse(text(source, "secret", "name"), text(item, "key"), field))
        if volume.get("name") == VOLUME_API_KEYS:
            name = text(volume, "secret", "secretName")
            found.append(SecretUse(name, None, "spec.access.apiKeysSecretRef"))
    return tuple(found)


def _field(file: str) -> str:
    tool = file.removeprefix("tool-").removesuffix("-token")
    return _FIELDS.get(file, f"tokenSecretRef of tool {tool} in spec.agent.tools")
