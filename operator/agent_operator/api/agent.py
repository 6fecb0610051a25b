"""spec.agent: how the agent behaves. Layer: api, pure; imports api.base, api.types."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from agent_operator.api.base import ApiModel, Rule
from agent_operator.api.types import Decimal, Fraction, FreeObject, HttpUrl, PositiveDecimal, SecretKeyRef

ANSWER = "answer"
"""What the runtime calls the action of answering, so no tool may."""

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


class HttpMethod(StrEnum):
    """How an HTTP tool is called; the names are those of RFC 9110."""

    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"


class McpServer(ApiModel):
    """A Model Context Protocol server reached over HTTP; each of its tools is one of the agent's."""

    url: HttpUrl = Field(
        description="URL of the server's streamable HTTP endpoint.", examples=["http://search.tools.svc/mcp"]
    )
    tool_names: tuple[ToolName, ...] = Field(
        default=(),
        max_length=64,
        description="Tools of the server the agent may call; all of them when empty.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class HttpTool(ApiModel):
    """One HTTP endpoint as a tool. The arguments are its query (GET) or its JSON body (otherwise)."""

    url: HttpUrl = Field(description="URL of the endpoint.", examples=["http://weather.tools.svc/today"])
    method: HttpMethod = Field(
        default=HttpMethod.POST,
        description="Method of the call. GET, PUT and DELETE may be sent again after a broken connection.",
    )
    description: str = Field(
        min_length=1,
        max_length=4096,
        description="What it does, in words for the model.",
        examples=["The weather of a city, today."],
    )
    parameters: FreeObject | None = Field(
        default=None,
        description="JSON schema of the arguments, of type object; no arguments when absent.",
        examples=[{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}],
    )


class Tool(ApiModel):
    """Something the agent can call: a server with tools, or one endpoint."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.mcpServer) != has(self.http)",
            "set exactly one of mcpServer and http in each tool",
            ".mcpServer",
            "FieldValueRequired",
        ),
        Rule(
            f"!has(self.http) || self.name != '{ANSWER}'",
            f"the name {ANSWER} stands for answering; choose another name for the tool",
            ".name",
        ),
    )

    name: ToolName = Field(description="Name of the tool or server, unique in the list.", examples=["search"])
    mcp_server: McpServer | None = Field(default=None, description="Server whose tools the agent may call.")
    http: HttpTool | None = Field(default=None, description="HTTP endpoint that is the tool.")
    token_secret_ref: SecretKeyRef | None = Field(
        default=None,
        description="Secret key holding a bearer token that is sent with each call; mounted as a file.",
    )
    require_approval: bool = Field(
        default=False, description="Whether a person must approve each call before it is made."
    )
    timeout_seconds: int = Field(
        default=10, ge=1, le=3600, description="Longest wait for one call, in seconds."
    )
    retries: int = Field(
        default=1,
        ge=0,
        le=10,
        description="Further attempts after a failure of the connection, where sending again does no harm.",
    )
    max_result_bytes: int = Field(
        default=16_384, ge=64, le=8_388_608, description="Longer results are cut, and the model is told."
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
    temperature: PositiveDecimal | None = Field(
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
        default=4096,
        ge=1,
        le=10_000_000,
        description="Tokens read and generated in one run, over all steps.",
    )
    timeout_seconds: int = Field(default=120, ge=1, le=86_400, description="Length of one run in seconds.")
    max_cost: Decimal | None = Field(
        default=None,
        description="Largest cost of one run, in the currency of agent.prices; unbounded when absent.",
        examples=["0.05"],
    )


class Prices(ApiModel):
    """What a run costs, in one currency of your choice. Costs are reported with each run."""

    per_million_input_tokens: Decimal = Field(default="0", description="Price of a million tokens read.")
    per_million_output_tokens: Decimal = Field(
        default="0", description="Price of a million tokens generated."
    )
    per_tool_call: Decimal = Field(default="0", description="Price of one call of a tool.")


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
        description="Memory keeps conversations in the pod that had them: with several replicas a client has "
        "to reach that pod again, and they end with it. Redis shares and keeps them.",
    )
    redis_url_secret_ref: SecretKeyRef | None = Field(
        default=None,
        description="Secret key holding the redis:// or rediss:// URL; only with store Redis. Mounted as a "
        "file.",
    )
    ttl_seconds: int = Field(
        default=3600,
        ge=1,
        le=31_536_000,
        description="Seconds after which an idle conversation is forgotten.",
    )
    max_sessions: int = Field(
        default=10_000,
        ge=1,
        le=10_000_000,
        description="Conversations that store Memory keeps; beyond it the oldest is dropped.",
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
        Rule(
            "!has(self.limits) || !has(self.limits.maxCost) || has(self.prices)",
            "maxCost bounds nothing while a run costs nothing; set agent.prices",
            ".limits.maxCost",
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
    decision: Decision | None = Field(
        default=None,
        description="How the agent chooses among actions, from their exact probabilities. When absent, the "
        "model's own tool calls are taken where it has them.",
    )
    limits: AgentLimits | None = Field(default=None, description="Bounds of one agent run.")
    prices: Prices | None = Field(
        default=None, description="What a run costs, for maxCost and for reports; nothing when absent."
    )
    sessions: Sessions | None = Field(default=None, description="Conversations kept between requests.")
