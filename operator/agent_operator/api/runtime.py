"""spec.runtime: the server in the pod. Layer: api, pure; imports api.base.

Defaults and bounds of `parameters` are those of agent_runtime.contract.Parameters; a test compares them.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from agent_operator.api.base import ApiModel

LOG_PATH = r"^(/[A-Za-z0-9_][A-Za-z0-9._-]*){2,}$"
"""A file in a folder; no segment starts with a dot, so `..` leads nowhere."""


class LogLevel(StrEnum):
    """Least severe message that is logged; the names are those of Python's logging."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Parameters(ApiModel):
    """Serving limits of each replica."""

    max_concurrency: int = Field(
        default=16, ge=1, le=4096, description="Requests one replica generates at once."
    )
    max_queued_requests: int = Field(
        default=64, ge=0, le=65_536, description="Requests one replica lets wait; further ones get HTTP 429."
    )
    max_queued_tokens: int = Field(
        default=65_536,
        ge=1,
        le=100_000_000,
        description="Input and requested output tokens of all requests one replica lets wait; further ones "
        "get HTTP 429.",
    )
    max_input_tokens: int = Field(
        default=2048, ge=1, le=10_000_000, description="Longest accepted input of a request, in tokens."
    )
    max_output_tokens: int = Field(
        default=512, ge=1, le=10_000_000, description="Upper bound of a request's max_tokens."
    )
    max_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Requests computed together in one step; maxConcurrency when absent.",
        examples=[8],
    )
    batch_wait_milliseconds: int | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="Longest wait, in milliseconds, for a batch to fill; chosen by the runtime when absent.",
        examples=[5],
    )
    request_timeout_seconds: int = Field(
        default=600, ge=1, le=86_400, description="Deadline of a request that names none, in seconds."
    )


class Logging(ApiModel):
    """Logs of the runtime, one JSON object per line on standard output."""

    level: LogLevel = Field(default=LogLevel.INFO, description="Least severe message that is logged.")
    path: str | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        pattern=LOG_PATH,
        description="Absolute path of a file to write the logs to as well, rotated. Its folder becomes an "
        "empty volume of the pod, unless spec.template mounts a volume there, so it must be one of its own, "
        "for example below /var/log.",
        examples=["/var/log/agent/agent.log"],
    )


class Runtime(ApiModel):
    """The server in the pod."""

    image: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        pattern=r"^[A-Za-z0-9][^\s]*$",
        description="Image of the runtime; the operator's configured one when absent.",
        examples=["registry.example.com/agent-operator/runtime:v0.1.0"],
    )
    parameters: Parameters = Field(default=Parameters(), description="Serving limits of each replica.")
    logging: Logging = Field(default=Logging(), description="Logs of the runtime.")
