"""What is known of the replicas beside what Kubernetes says. Layer: core, pure; imports core.*.

The one idea: the answers of the runtimes and of the gateways are part of the snapshot like any object, so a
decision that went by them can be replayed. A replica that does not answer is a fact with a time, no error.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from agent_operator.core.autoscale import EMPTY, Capacity, Memory, Observation
from agent_operator.core.ledger import Start

SILENT_AFTER_SECONDS = 5.0
"""A replica asked about every two seconds that has not answered for so long counts as lost."""

UNKNOWN_CAPACITY = Capacity()


@dataclass(frozen=True, slots=True)
class PodSample:
    """What one replica said of itself last. Counts are of requests and runs, rates per second."""

    at: float
    """Unix seconds."""
    running: int = 0
    waiting: int = 0
    queued_tokens: int = 0
    runs: int = 0
    """Agent runs that have not ended, those that wait for a tool or an approval included."""
    tool_waits: int = 0
    p95_seconds: float | None = None
    tokens_per_second: float = 0.0
    requests_per_second: float = 0.0
    cpu_seconds: float = 0.0
    rss_bytes: int = 0
    gpu_percent: float | None = None
    gpu_memory_bytes: int = 0
    stalled: bool = False
    """It has work and makes no progress."""

    @property
    def load(self) -> int:
        """Requests in flight and waiting."""
        return self.running + self.waiting

    @property
    def live(self) -> int:
        """What would be cut off if this replica ended at once."""
        return max(self.load, self.runs)


@dataclass(frozen=True, slots=True)
class Signals:
    """Everything about one agent that no Kubernetes object says."""

    samples: Mapping[str, PodSample] = field(default_factory=dict)
    """By pod name, of ready pods that answered."""
    silent: Mapping[str, float] = field(default_factory=dict)
    """Ready pods that do not answer, by name: since when, Unix seconds."""
    held: int = 0
    """Requests that gateways hold."""
    gateways: tuple[str, ...] | None = ()
    """Addresses of the gateways that are ready, sorted; None: not known yet."""
    free_port: int | None = None
    """A port of the gateways that no agent has, None where there is no gateway."""
    memory: Memory = EMPTY
    """What the autoscaler remembers."""
    capacity: Capacity = UNKNOWN_CAPACITY
    last_start: Start | None = None
    lead_seconds: float | None = None
    """What a new replica is expected to need until it serves."""
    startup_deadline: int | None = None
    """Seconds a replica may take to start, by the slowest start seen; None where none was."""


NOTHING = Signals()


def totals(samples: Collection[PodSample]) -> dict[str, float]:
    """All replicas of an agent together, by the names of their metrics; what nobody tells is left out."""
    latencies = [s.p95_seconds for s in samples if s.p95_seconds is not None]
    gpus = [s.gpu_percent for s in samples if s.gpu_percent is not None]
    found: dict[str, float] = {
        "replicas_answering": len(samples),
        "requests_running": sum(s.running for s in samples),
        "requests_waiting": sum(s.waiting for s in samples),
        "queued_tokens": sum(s.queued_tokens for s in samples),
        "runs": sum(s.runs for s in samples),
        "tool_waits": sum(s.tool_waits for s in samples),
        "tokens_per_second": sum(s.tokens_per_second for s in samples),
        "requests_per_second": sum(s.requests_per_second for s in samples),
        "cpu_seconds": sum(s.cpu_seconds for s in samples),
        "memory_bytes": sum(s.rss_bytes for s in samples),
    }
    if latencies:
        found["latency_p95_seconds"] = max(latencies)
    if gpus:
        found["gpu_utilization_ratio"] = sum(gpus) / len(gpus) / 100
        found["gpu_memory_bytes"] = sum(s.gpu_memory_bytes for s in samples)
    return found


def lost(signals: Signals, now: float) -> frozenset[str]:
    """The pods that Kubernetes takes for ready and that cannot answer a request now, by name."""
    dead = {name for name, since in signals.silent.items() if now - since >= SILENT_AFTER_SECONDS}
    return frozenset(dead | {name for name, sample in signals.samples.items() if sample.stalled})


def observation(signals: Signals, ready: int, desired: int, at: float) -> Observation | None:
    """What the autoscaler sees of all replicas at once; None while there is nothing to be seen: replicas that
    still start are no sign of little load."""
    if ready == 0 and signals.held == 0 and desired > 0:
        return None
    all_told = totals(signals.samples.values())
    return Observation(
        at=at,
        concurrency=float(all_told["requests_running"] + all_told["requests_waiting"]),
        held=signals.held,
        queued_tokens=float(all_told["queued_tokens"]),
        p95_seconds=all_told.get("latency_p95_seconds"),
        ready=ready,
        answered=len(signals.samples),
    )
