"""spec.agent: how the agent behaves. Layer: api, pure; imports api.base, api.types."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from agent_operator.api.base import ApiModel, Rule
from agent_operator.api.types import Decimal, Fraction, HttpUrl, SecretKeyRef

ToolName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$", min_length=1, max_length=64)]


class DecisionPolicy(StrEnum):
    """How one action is taken from P(action | input)."""

    GREEDY = "Greedy"
    SOFTMAX = "Softmax"
    EXPECTED_UTILITY = "ExpectedUtility"
    CVAR = "CVaR"


class SessionStore(StrEnum):
    """Where conversations are kept between requests."""

    MEMORY = "Memory"
    REDIS = "Redis"


class McpServer(ApiModel):
    """A Model Context Protocol server reached over HTTP."""

    url: HttpUrl = Field(
        description="URL of the server's streamable HTTP endpoint.", examples=["http://search.tools.svc/mcp"]
    )
    tool_names: tuple[ToolName, ...] = Field(
        default=(),
        max_length=64,
        description="Tools of the server the agent may call; all of them when empty.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class Tool(ApiModel):
    """Something the agent can call."""

    name: ToolName = Field(description="Name of the tool, unique in the list.", examples=["search"])
    mcp_server: McpServer = Field(description="Server that offers the tool.")
    require_approval: bool = Field(
        default=False, description="Whether a person must approve each call before it is made."
    )
    timeout_seconds: int = Field(
        default=10, ge=1, le=3600, description="Longest wait for one call, in seconds."
    )


class Decision(ApiModel):
    """How the agent chooses among actions."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.temperature) || self.policy == 'Softmax'",
            "temperature is only for policy Softmax; remove it or change policy",
            ".temperature",
            "FieldValueForbidden",
        ),
        Rule(
            "!has(self.temperature) || double(self.temperature) > 0.0",
            "temperature must be greater than 0; use policy Greedy for the most probable action",
            ".temperature",
        ),
        Rule(
            "!has(self.riskAversion) || self.policy in ['ExpectedUtility', 'CVaR']",
            "riskAversion is only for policies ExpectedUtility and CVaR; remove it or change policy",
            ".riskAversion",
            "FieldValueForbidden",
        ),
    )

    policy: DecisionPolicy = Field(
        default=DecisionPolicy.GREEDY,
        description="Greedy takes the most probable action, Softmax samples, ExpectedUtility weighs "
        "utilities, CVaR weighs the worst outcomes.",
    )
    temperature: Decimal | None = Field(
        default=None,
        description="Spread of the Softmax policy, a positive decimal; 1 when absent.",
        examples=["0.7"],
    )
    risk_aversion: Fraction | None = Field(
        default=None,
        description="From 0 (only the mean counts) to 1 (only the worst outcome counts); 0 when absent.",
        examples=["0.5"],
    )
    abstain_below: Fraction | None = Field(
        default=None,
        description="The agent abstains when its confidence is below this probability; never when absent.",
        examples=["0.2"],
    )


class AgentLimits(ApiModel):
    """Bounds of one agent run."""

    max_steps: int = Field(default=8, ge=1, le=1000, description="Model calls in one run.")
    max_tool_calls: int = Field(default=16, ge=0, le=10_000, description="Tool calls in one run.")
    max_tokens: int = Field(
        default=4096, ge=1, le=10_000_000, description="Tokens generated in one run, over all steps."
    )
    timeout_seconds: int = Field(default=120, ge=1, le=86_400, description="Length of one run in seconds.")


class Sessions(ApiModel):
    """Conversations kept between requests."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.store == oldSelf.store",
            "store cannot be changed, because conversations would be lost without notice; to accept that, "
            "remove agent.sessions first and then add it again",
            ".store",
            "FieldValueForbidden",
        ),
        Rule(
            "(self.store == 'Redis') == has(self.redisUrlSecretRef)",
            "store Redis needs redisUrlSecretRef, and only store Redis does",
            ".redisUrlSecretRef",
            "FieldValueRequired",
        ),
    )

    store: SessionStore = Field(
        default=SessionStore.MEMORY,
        description="Memory keeps conversations in the pod that had them; Redis shares them among replicas.",
    )
    redis_url_secret_ref: SecretKeyRef | None = Field(
        default=None, description="Secret key holding the redis:// URL; only with store Redis."
    )
    ttl_seconds: int = Field(
        default=3600,
        ge=1,
        le=31_536_000,
        description="Seconds after which an idle conversation is forgotten.",
    )


class Agent(ApiModel):
    """Instructions, tools and bounds of the agent."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.tools) || size(self.tools) == 0 || !has(self.limits) || self.limits.maxToolCalls > 0",
            "maxToolCalls 0 forbids every tool; raise it or remove agent.tools",
            ".limits.maxToolCalls",
        ),
        Rule(
            "!has(self.tools) || !has(self.limits) || "
            "self.tools.all(t, t.timeoutSeconds <= self.limits.timeoutSeconds)",
            "a tool's timeoutSeconds is longer than the whole run may take; lower it or raise "
            "agent.limits.timeoutSeconds",
            ".tools",
        ),
    )

    system_prompt: str | None = Field(
        default=None,
        max_length=32_768,
        description="Instructions put before every conversation. Encoder-decoder models such as T5 see them "
        "as a prefix of the input.",
        examples=["Answer in one word."],
    )
    tools: tuple[Tool, ...] = Field(
        default=(),
        max_length=32,
        description="Tools the agent may call.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    decision: Decision | None = Field(default=None, description="How the agent chooses among actions.")
    limits: AgentLimits | None = Field(default=None, description="Bounds of one agent run.")
    sessions: Sessions | None = Field(default=None, description="Conversations kept between requests.")
