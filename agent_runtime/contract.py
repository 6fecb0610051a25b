"""The contract between the operator and the agent runtime. Layer: shared, pure.

May import pydantic and the standard library only: the operator imports this module and must never
load torch. The one idea: everything a runtime pod is told (one JSON file, mounted from the
ConfigMap of its revision) and everything it reports when it dies (one JSON termination message) has
its shape here, so that neither side can drift from the other unnoticed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

CONFIG_PATH = "/etc/agent-runtime/config.json"
MODEL_MOUNT_PATH = "/models/model"
CACHE_PATH = "/var/cache/agent-runtime"
TERMINATION_LOG_PATH = "/dev/termination-log"
SECRETS_PATH = "/var/run/agent-runtime/secrets"
HTTP_PORT = 8000
ADMIN_PORT = 8001
TERMINATION_MESSAGE_LIMIT = 4096
"""Bytes the kubelet keeps of a termination message."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RemoteConfig(_Strict):
    """A model behind an OpenAI-compatible API, called instead of loading weights."""

    base_url: str = Field(description="Base URL with its version path, for example https://host/v1.")
    model: str = Field(description="Model name sent in requests.")
    api_key_file: str | None = Field(default=None, description="File holding the bearer token.")
    timeout_seconds: float = Field(default=120.0, gt=0, description="Longest wait for the first byte.")
    context_tokens: int | None = Field(
        default=None, ge=1, description="The model's context length in tokens, when known."
    )


class ModelConfig(_Strict):
    """Which model to serve and under which name: a folder, a hub repository, a bucket or a remote API."""

    uri: str = Field(description="The model URI as the user wrote it, for messages.")
    served_name: str = Field(description="Name in /v1/models and in the `model` field of requests.")
    path: str | None = Field(
        default=None, description="Local folder holding the model (oci://, pvc://, plain path)."
    )
    repo_id: str | None = Field(default=None, description="Hub repository (hf://).")
    revision: str | None = Field(default=None, description="Hub revision: branch, tag or commit.")
    s3_uri: str | None = Field(default=None, description="s3://bucket/prefix of a save_pretrained folder.")
    remote: RemoteConfig | None = Field(default=None, description="A remote API instead of weights.")
    token_file: str | None = Field(
        default=None, description="File holding the hub's access token; HF_TOKEN is the alternative."
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto takes a GPU when there is one and says so when there is none."
    )
    quantization: Literal["none", "int8", "int4"] = Field(
        default="none", description="Weight format in memory, by bitsandbytes (extra `quantization`)."
    )

    batching: Literal["auto", "dense", "paged"] = Field(
        default="auto",
        description="How decoder-only models are batched: paged is transformers' continuous batching, auto "
        "takes it on a GPU.",
    )


class Parameters(_Strict):
    """Serving limits; counts of requests and tokens. Changeable while serving, on the admin port."""

    max_concurrency: int = Field(default=16, ge=1, le=4096, description="Requests generating at once.")
    max_queued_requests: int = Field(
        default=64, ge=0, le=65_536, description="Requests waiting; more get 429."
    )
    max_queued_tokens: int = Field(
        default=65_536, ge=1, le=100_000_000,
        description="Input and requested output tokens of all waiting requests; more get 429.",
    )  # fmt: skip
    max_input_tokens: int = Field(default=2048, ge=1, le=10_000_000)
    max_output_tokens: int = Field(default=512, ge=1, le=10_000_000, description="Upper bound of max_tokens.")
    max_batch_size: int | None = Field(
        default=None, ge=1, le=4096,
        description="Rows computed in one step; max_concurrency when absent.",
    )  # fmt: skip
    batch_wait_milliseconds: int | None = Field(
        default=None, ge=0, le=10_000,
        description="Longest wait for more rows before a batch starts; by the engine when absent.",
    )  # fmt: skip
    request_timeout_seconds: float = Field(
        default=600.0, gt=0, le=86_400, description="Deadline of a request that names none."
    )


class LoggingConfig(_Strict):
    level: Literal["debug", "info", "warning", "error"] = "info"
    path: str | None = Field(default=None, description="File to write to as well, rotated.")
    max_bytes: int = Field(default=64 * 2**20, ge=2**16, description="Size at which the file is rotated.")
    backups: int = Field(default=3, ge=0, le=100, description="Rotated files that are kept.")


class McpServerConfig(_Strict):
    """A Model Context Protocol server reached by streamable HTTP."""

    url: str
    tool_names: tuple[str, ...] = Field(default=(), description="Tools the agent may call; all when empty.")


class HttpToolConfig(_Strict):
    """One HTTP endpoint as a tool; the arguments are its query (GET) or JSON body (otherwise)."""

    url: str
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    description: str = Field(description="What it does, in words for the model.")
    parameters: dict[str, Any] = Field(
        default_factory=lambda: {"type": "object", "properties": {}},
        description="JSON schema of the arguments, an object.",
    )


class ToolConfig(_Strict):
    """Something the agent can call: exactly one of mcp_server and http."""

    name: str
    mcp_server: McpServerConfig | None = None
    http: HttpToolConfig | None = None
    require_approval: bool = False
    timeout_seconds: float = Field(default=10.0, gt=0)
    retries: int = Field(default=1, ge=0, le=10, description="Further attempts after a transport failure.")
    max_result_bytes: int = Field(default=16_384, ge=64, description="Longer results are cut, visibly.")
    token_file: str | None = Field(default=None, description="File holding a bearer token for the tool.")


class DecisionConfig(_Strict):
    """How one action is taken from P(action | input); see agent_runtime.decision."""

    policy: Literal["Greedy", "Softmax", "ExpectedUtility", "CVaR"] = "Greedy"
    temperature: float = Field(default=1.0, gt=0, description="Spread of the Softmax policy.")
    risk_aversion: float = Field(
        default=0.0, ge=0, le=1,
        description="CVaR: 1 minus the tail's probability. ExpectedUtility: the weight of the variance.",
    )  # fmt: skip
    abstain_below: float = Field(default=0.0, ge=0, le=1)


class RunLimits(_Strict):
    """Hard bounds of one agent run."""

    max_steps: int = Field(default=8, ge=1, le=1000)
    max_tool_calls: int = Field(default=16, ge=0, le=10_000)
    max_tokens: int = Field(default=4096, ge=1, description="Tokens read and generated, over all steps.")
    timeout_seconds: float = Field(default=120.0, gt=0, le=86_400)
    max_cost: float | None = Field(
        default=None, ge=0, description="Largest cost in the unit of `prices`; unbounded when absent."
    )


class Prices(_Strict):
    """What a run costs, in one currency of the user's choice."""

    per_million_input_tokens: float = Field(default=0.0, ge=0)
    per_million_output_tokens: float = Field(default=0.0, ge=0)
    per_tool_call: float = Field(default=0.0, ge=0)


class SessionsConfig(_Strict):
    """Where conversations, runs and stored responses are kept."""

    store: Literal["Memory", "Redis"] = "Memory"
    redis_url_file: str | None = Field(default=None, description="File holding a redis:// or rediss:// URL.")
    ttl_seconds: int = Field(default=3600, ge=1)
    max_sessions: int = Field(default=10_000, ge=1, description="Memory: the oldest is dropped beyond it.")


class AgentConfig(_Strict):
    """Instructions, tools and bounds of the agent."""

    system_prompt: str | None = None
    tools: tuple[ToolConfig, ...] = ()
    decision: DecisionConfig | None = Field(
        default=None,
        description="When set, every step's action is chosen from the exact P(action | context) by this "
        "policy; otherwise the model's own tool calls are taken where it has them.",
    )
    limits: RunLimits = RunLimits()
    prices: Prices = Prices()
    sessions: SessionsConfig | None = None


class AccessConfig(_Strict):
    """Who may call. With a keys folder every request under /v1 needs a key."""

    api_keys_path: str | None = Field(
        default=None, description="Folder (a mounted Secret) or file of API keys, re-read when it changes."
    )


class AdminConfig(_Strict):
    """The second port: metrics, stats and changes of parameters."""

    port: int = Field(default=ADMIN_PORT, ge=0, le=65535)
    token_sha256: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the bearer token that may change parameters; only loopback may when absent.",
    )  # fmt: skip


class RuntimeConfig(_Strict):
    """The whole mounted configuration; unknown keys are an error."""

    name: str = Field(description="Name of the AgentDeployment.")
    namespace: str
    revision: str = Field(description="Revision hash this pod belongs to.")
    model: ModelConfig
    agent: AgentConfig = AgentConfig()
    access: AccessConfig = AccessConfig()
    admin: AdminConfig = AdminConfig()
    parameters: Parameters = Parameters()
    logging: LoggingConfig = LoggingConfig()
    gpu_requested: int = Field(default=0, ge=0, description="Devices the pod was given, in devices.")
    drain_seconds: float = Field(default=30.0, ge=0, description="Longest wait for requests at SIGTERM.")
    stall_seconds: float = Field(
        default=60.0, gt=0, description="A busy engine without progress this long fails liveness."
    )
    port: int = Field(default=HTTP_PORT, ge=1, le=65535)


class FailureCode(StrEnum):
    """Why a runtime could not serve. One-word CamelCase: the operator uses it as a condition reason."""

    CONFIG_INVALID = "RuntimeConfigInvalid"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_CORRUPT = "ModelCorrupt"
    MODEL_UNSUPPORTED = "ModelUnsupported"
    MODEL_ACCESS_DENIED = "ModelAccessDenied"
    MODEL_REVISION_NOT_FOUND = "ModelRevisionNotFound"
    MODEL_TOKEN_INVALID = "ModelTokenInvalid"  # noqa: S105 - a reason, not a secret
    HUB_UNREACHABLE = "HubUnreachable"
    BUCKET_UNREACHABLE = "BucketUnreachable"
    MODEL_HOST_UNRESOLVED = "ModelHostUnresolved"
    MODEL_HOST_TLS_FAILED = "ModelHostTLSFailed"
    MODEL_HOST_OVERLOADED = "ModelHostOverloaded"
    DOWNLOAD_INTERRUPTED = "DownloadInterrupted"
    DISK_FULL = "DiskFull"
    OUT_OF_MEMORY = "OutOfMemory"
    REMOTE_UNREACHABLE = "RemoteModelUnreachable"
    INTERNAL = "RuntimeCrashed"


class TerminationReport(_Strict):
    """What a runtime writes to its termination message, as one JSON object, before it exits."""

    code: FailureCode
    message: str = Field(description="What failed and where, with the path or repository named.")
    remedy: str = Field(description="What the user can change so that it works.")

    def encode(self) -> str:
        """JSON of at most TERMINATION_MESSAGE_LIMIT bytes; a long message is cut, never the code."""
        text = self.model_dump_json()
        if len(text.encode()) <= TERMINATION_MESSAGE_LIMIT:
            return text
        cut = self.model_copy(update={"message": self.message[:1000], "remedy": self.remedy[:500]})
        return cut.model_dump_json()

    @classmethod
    def decode(cls, text: str) -> TerminationReport | None:
        """The report in a termination message, or None when it is not one (for example a traceback)."""
        try:
            return cls.model_validate_json(text)
        except ValueError:
            return None
