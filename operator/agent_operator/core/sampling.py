"""What is kept of a runtime's record. Layer: core, pure; imports core.signals and agent_runtime.stats."""

from __future__ import annotations

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
