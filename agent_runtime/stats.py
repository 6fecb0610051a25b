"""What a runtime pod says about itself: GET /stats. Layer: shared, pure; pydantic and the contract only.

The one idea: the operator scales, diagnoses and tunes by this record alone, so its shape is a contract: `v`
changes when a field changes its meaning, and a reader ignores fields it does not know. Times are in seconds,
rates per second, sizes in bytes; None is unknown, never zero.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from agent_runtime.contract import Parameters


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")


class ModelFacts(_Record):
    """The served model. `parameters` is 0 when unknown."""

    served_name: str
    architecture: str | None = None
    device: str | None = None
    dtype: str | None = None
    parameters: int = 0
    context: int | None = Field(default=None, description="Longest context in tokens.")


class LoadFacts(_Record):
    """What is going on at this moment. Rows are those the engine computes in one step; `rows_possible` 0 is
    unknown (remote models)."""

    running: int = 0
    waiting: int = 0
    queued_tokens: int = 0
    rows: int = 0
    rows_possible: int = 0


class Rates(_Record):
    """Means over the last `window_seconds`. `requests` are generations that ended, however; `failures` are
    errors at fault of the server (5xx, within a stream too); `refused` is what it declined (401, 403, 429,
    503)."""

    window_seconds: float
    prompt_tokens: float = 0.0
    generated_tokens: float = 0.0
    requests: float = 0.0
    failures: float = 0.0
    refused: float = 0.0


class Percentiles(_Record):
    """Of `count` values in the window, each within 2 %; None without any."""

    count: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Latency(_Record):
    """Over the last `window_seconds`, of successful answers."""

    window_seconds: float
    first_token: Percentiles = Percentiles()
    inter_token: Percentiles = Percentiles()
    end_to_end: Percentiles = Percentiles()


class EngineFacts(_Record):
    """Forward progress. `idle_seconds` is the time since the last step, or since work came to an idle
    engine."""

    steps: int = 0
    busy: int = Field(default=0, description="Generations the engine has not finished.")
    idle_seconds: float = 0.0
    restarts: int = 0
    rows_recomputed: int = 0
    out_of_memory_splits: int = 0


class GpuFacts(_Record):
    """One device."""

    index: int
    name: str
    memory_used_bytes: int
    memory_bytes: int
    utilization: float | None = None


class ProcessFacts(_Record):
    """The process in its container."""

    rss_bytes: int = 0
    memory_limit_bytes: int | None = None
    cpu_seconds: float = 0.0
    gpus: tuple[GpuFacts, ...] = ()


class DownloadFacts(_Record):
    """The model on its way here. `bytes_done` includes what an earlier run left on the disk."""

    source: str
    files: int = 0
    bytes_done: int = 0
    bytes_total: int | None = None
    bytes_per_second: float = 0.0
    seconds: float = 0.0


class AgentFacts(_Record):
    """Agent runs that have not ended."""

    runs_live: int = 0
    awaiting_approval: int = 0
    tool_waits: int = Field(default=0, description="Tool calls that have not come back.")


class Stats(_Record):
    """The whole record."""

    v: Literal[1] = 1
    name: str = ""
    revision: str = ""
    state: str
    since: float = Field(description="When the state was entered, Unix seconds.")
    reason: str = ""
    uptime_seconds: float
    model: ModelFacts
    load: LoadFacts = LoadFacts()
    rates: Rates = Rates(window_seconds=10.0)
    latency: Latency = Latency(window_seconds=60.0)
    engine: EngineFacts = EngineFacts()
    process: ProcessFacts = ProcessFacts()
    load_phases: dict[str, float] = Field(
        default_factory=dict,
        description="Seconds of start-up by phase: `start`, `fetch`, `load`, `warmup` and `agent` follow "
        "each other, `ready` is their sum; other names are parts. A phase is there once it has ended.",
    )
    weights_read: float | None = Field(
        default=None, description="Share of the model's tensors that are in place, 0 to 1."
    )
    download: DownloadFacts | None = None
    agent: AgentFacts = AgentFacts()
    progress: Literal["Idle", "Busy", "Stalled"] = Field(
        default="Idle",
        description="Stalled: generations run and none made a token for stall_seconds; liveness fails.",
    )
    parameters: Parameters = Parameters()

    def encode(self) -> bytes:
        """Compact JSON."""
        return self.model_dump_json(exclude_none=True).encode()

    @classmethod
    def decode(cls, text: str | bytes) -> Stats | None:
        """The record in an answer, or None when it is not one this version understands."""
        try:
            return cls.model_validate_json(text)
        except ValueError:
            return None
