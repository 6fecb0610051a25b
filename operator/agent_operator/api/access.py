"""spec.access: who may call the agent. Layer: api, pure; imports api.base, api.types."""

from __future__ import annotations

from pydantic import Field

from agent_operator.api.base import ApiModel
from agent_operator.api.types import Label, ObjectName


class SecretRef(ApiModel):
    """A whole Secret in the AgentDeployment's namespace."""

    name: ObjectName = Field(description="Name of the Secret.", examples=["geography-keys"])


class Access(ApiModel):
    """Who may call the agent."""

    api_keys_secret_ref: SecretRef | None = Field(
        default=None,
        description="Secret of API keys, one entry per key: its name is shown in logs and limits, its value "
        "is sha256:HASH, a JSON object with limits, or the key itself (`agent-runtime keys new` makes one). "
        "Changes take effect without a restart. No key is asked for when absent.",
    )
    allowed_namespaces: tuple[Label, ...] = Field(
        default=(),
        max_length=64,
        description="Namespaces whose pods may call the agent; every namespace when empty.",
        examples=[["web"]],
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
