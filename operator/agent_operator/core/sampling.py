"""What is kept of a runtime's record. Layer: core, pure; imports core.signals and agent_runtime.stats."""

from __future__ import annotations

from collections.abc import Sequence

from agent_operator.core.signals import PodSample
from agent_runtime.stats import Stats


def sampled(stats: Stats, now: float) -> PodSample:
    """What decisions and metrics need of one answer: a twentieth of its size."""
    gpus = stats.process.gpus
    used = [gpu.utilization for gpu in gpus if gpu.utilization is not None]
    return PodSample(
        at=now,
        running=stats.load.running,
        waiting=stats.load.waiting,
        queued_tokens=stats.load.queued_tokens,
        runs=stats.agent.runs_live,
        tool_waits=stats.agent.tool_waits,
        p95_seconds=stats.latency.end_to_end.p95,
        tokens_per_second=stats.rates.generated_tokens,
        requests_per_second=stats.rates.requests,
        cpu_seconds=stats.process.cpu_seconds,
        rss_bytes=stats.process.rss_bytes,
        gpu_percent=100 * sum(used) / len(used) if used else None,
        gpu_memory_bytes=sum(gpu.memory_used_bytes for gpu in gpus),
        stalled=stats.progress == "Stalled",
    )


def totals(samples: Sequence[PodSample]) -> dict[str, float]:
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
