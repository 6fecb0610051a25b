"""The AgentDeployment itself. Layer: api, pure; imports the other modules of api."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from agent_operator.api.access import Access
from agent_operator.api.agent import Agent
from agent_operator.api.autoscaling import MAX_REPLICAS, Autoscaling
from agent_operator.api.base import ApiModel, Rule
from agent_operator.api.health import Health
from agent_operator.api.model import ModelSource
from agent_operator.api.names import NAME_MAX_LENGTH, NAME_PATTERN
from agent_operator.api.resources import Resources
from agent_operator.api.runtime import Runtime
from agent_operator.api.status import AgentDeploymentStatus
from agent_operator.api.strategy import Strategy
from agent_operator.api.template import PodTemplate
from agent_operator.api.tuning import Remediation, Tuning


class AgentDeploymentSpec(ApiModel):
    """What the user asks for."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.model.remote) || !has(self.resources) || !has(self.resources.gpu) || "
            "self.resources.gpu.count == 0",
            "a remote model runs elsewhere and needs no device; remove resources.gpu",
            ".resources.gpu",
            "FieldValueForbidden",
        ),
    )

    replicas: int = Field(
        default=1,
        ge=0,
        le=MAX_REPLICAS,
        description="Pods that serve the agent. With autoscaling, the autoscaler writes it.",
    )
    suspend: bool = Field(default=False, description="True removes all replicas and keeps everything else.")
    model: ModelSource = Field(description="The model that serves the agent.")
    agent: Agent | None = Field(default=None, description="Instructions, tools and bounds of the agent.")
    runtime: Runtime = Field(default=Runtime(), description="The server in the pod.")
    resources: Resources | None = Field(default=None, description="What each replica gets.")
    autoscaling: Autoscaling | None = Field(
        default=None, description="Bounds and target of automatic scaling; none when absent."
    )
    strategy: Strategy = Field(default=Strategy(), description="How a new revision replaces the old one.")
    health: Health = Field(default=Health(), description="When a replica counts as failed and is restarted.")
    tuning: Tuning | None = Field(default=None, description="Search for better serving parameters.")
    remediation: Remediation | None = Field(default=None, description="Repair of diagnosed faults.")
    access: Access | None = Field(default=None, description="Who may call the agent.")
    template: PodTemplate | None = Field(
        default=None,
        description="Overrides of the runtime's pod template, for everything that has no field of its own.",
    )


class AgentDeployment(ApiModel):
    """An LLM agent: its model, its behaviour, and how it is run."""

    model_config = ConfigDict(extra="ignore")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"size(self.metadata.name) <= {NAME_MAX_LENGTH} && self.metadata.name.matches('{NAME_PATTERN}')",
            f"metadata.name must be at most {NAME_MAX_LENGTH} characters: small letters, digits and -, "
            "starting with a letter and not ending with -, because the agent's Service takes this name",
            ".metadata.name",
        ),
    )

    api_version: Literal["agentoperator.dev/v1alpha1"] = "agentoperator.dev/v1alpha1"
    kind: Literal["AgentDeployment"] = "AgentDeployment"
    metadata: dict[str, Any] = Field(default={}, description="Standard object metadata.")
    spec: AgentDeploymentSpec = Field(description="What the user asks for.")
    status: AgentDeploymentStatus | None = Field(default=None, description="What the operator observed.")
