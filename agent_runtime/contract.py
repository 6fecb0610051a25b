"""The contract between the operator and the agent runtime. Layer: shared, pure.

May import pydantic and the standard library only: the operator imports this module and must never
load torch. The one idea: everything a runtime pod is told (one JSON file, mounted from the
ConfigMap of its revision) and everything it reports when it dies (one JSON termination message) has
its shape here, so that neither side can drift from the other unnoticed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

CONFIG_PATH = "/etc/agent-runtime/config.json"
MODEL_MOUNT_PATH = "/models/model"
CACHE_PATH = "/var/cache/agent-runtime"
TERMINATION_LOG_PATH = "/dev/termination-log"
HTTP_PORT = 8000
TERMINATION_MESSAGE_LIMIT = 4096
"""Bytes the kubelet keeps of a termination message."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(_Strict):
    """Which weights to load and under which name to serve them."""

    uri: str = Field(description="The model URI as the user wrote it, for messages.")
    served_name: str = Field(description="Name in /v1/models and in the `model` field of requests.")
    path: str | None = Field(
        default=None, description="Local folder holding the model (oci://, pvc://, plain path)."
    )
    repo_id: str | None = Field(default=None, description="Hub repository (hf://).")
    revision: str | None = Field(default=None, description="Hub revision: branch, tag or commit.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"


class Parameters(_Strict):
    """Serving limits; counts of requests and tokens."""

    max_concurrency: int = Field(default=16, ge=1, description="Requests generating at once.")
    max_queued_requests: int = Field(default=64, ge=0, description="Requests waiting; more get 429.")
    max_input_tokens: int = Field(default=2048, ge=1)
    max_output_tokens: int = Field(default=512, ge=1, description="Upper bound of max_tokens.")


class LoggingConfig(_Strict):
    level: Literal["debug", "info", "warning", "error"] = "info"


class RuntimeConfig(_Strict):
    """The whole mounted configuration; unknown keys are an error."""

    agent: str = Field(description="Name of the AgentDeployment.")
    namespace: str
    revision: str = Field(description="Revision hash this pod belongs to.")
    model: ModelConfig
    system_prompt: str | None = None
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
    HUB_UNREACHABLE = "HubUnreachable"
    DISK_FULL = "DiskFull"
    OUT_OF_MEMORY = "OutOfMemory"
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
