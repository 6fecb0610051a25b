"""spec.access: who may call the agent. Layer: api, pure; imports api.base, api.types."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from agent_operator.api.base import ApiModel
from agent_operator.api.types import Label, ObjectName


class SecretRef(ApiModel):
    """A whole Secret in the AgentDeployment's namespace."""

    name: ObjectName = Field(description="Name of the Secret.", examples=["geography-keys"])


class GatewayMode(StrEnum):
    """When requests go through the operator's gateway."""

    ON_DEMAND = "OnDemand"
    ALWAYS = "Always"


class Hold(ApiModel):
    """Bounds of what the gateway holds while no replica is ready."""

    max_requests: int = Field(
        default=1000,
        ge=1,
        le=100_000,
        description="Requests that each gateway holds; more get 503 with Retry-After.",
    )
    max_mebibytes: int = Field(
        default=64, ge=1, le=65_536, description="Size of all requests that each gateway holds, in MiB."
    )
    seconds: int = Field(
        default=600, ge=1, le=86_400, description="Longest time a request is held, in seconds."
    )


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
    gateway: GatewayMode = Field(
        default=GatewayMode.ON_DEMAND,
        description="OnDemand: the gateway holds requests while no replica is ready, and is out of the way "
        "otherwise. Always: every request goes through it, to the least loaded replica or the one that knows "
        "the conversation.",
    )
    hold: Hold = Field(default=Hold(), description="Bounds of what the gateway holds.")
