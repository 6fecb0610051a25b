"""The operator's own sampler and monitor over thousands of replicas. Layer: tooling.

    python -m bench.signals.experiment [--agents 5000] [--seconds 60] [--scaled]

Prints JSON: cores used, seconds between two answers of a replica, answers, silences, resident memory. The
process is the operator's sampling part alone: no watches and no reconciles.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from typing import Any

from agent_operator.observability.metrics import Metrics
from agent_operator.shell.connection import direct_session
from agent_operator.shell.monitor import Monitor
from agent_operator.shell.sampler import Sampler
from agent_operator.shell.snapshots import Key
from bench.signals.runtimes import ROOT, answering

WARM_SECONDS = 15.0


def agent(name: str, *, scaled: bool) -> dict[str, Any]:
    """An AgentDeployment as far as the monitor reads it."""
    spec: dict[str, Any] = {"model": {"uri": "oci://registry.example.com/m:1"}}
    if scaled:
        spec["autoscaling"] = {"maxReplicas": 4, "targetConcurrency": 8}
    status = {
        "scaling": {"desired": 1, "requested": 1},
        "load": {
            "time": "2100-01-01T00:00:00Z",
            "requests": 4,
            "p95Milliseconds": 500,
            "tokensPerSecond": 640,
        },
    }
    meta = {"name": name, "namespace": "fleet", "generation": 1}
    return {"metadata": meta, "spec": spec, "status": status}


def pod(name: str, number: int) -> dict[str, Any]:
    """Its one ready pod, with an address of its own."""
    address = f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"
    return {
        "metadata": {"name": f"{name}-pod", "namespace": "fleet", "uid": f"uid-{number}"},
        "status": {"podIP": address, "conditions": [{"type": "Ready", "status": "True"}]},
    }


async def sample(agents: int, seconds: float, *, scaled: bool) -> dict[str, float]:
    """Sample so many agents for so long, after a warm-up."""
    metrics = Metrics()
    decisions = 0

    def wake(key: Key, urgent: bool) -> None:
        nonlocal decisions
        decisions += 1

    monitor = Monitor(metrics, clock=time.time, wake=wake, pod=lambda namespace, name: None)
    sampler = Sampler(monitor, metrics, new_session=direct_session)
    for number in range(agents):
        name = f"agent-{number}"
        monitor.of(Key("fleet", name), agent(name, scaled=scaled), [pod(name, number)])
    task = asyncio.create_task(sampler.run())
    try:
        await asyncio.sleep(max(WARM_SECONDS, 1.5 * sampler.period))
        before, used, began = _counts(metrics), time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        spent, took = time.process_time() - used, time.monotonic() - began
        after = _counts(metrics)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    answered = after["answered"] - before["answered"]
    return {
        "agents": agents,
        "cores": spent / took,
        "milliseconds_per_answer": 1000 * spent / answered,
        "period_seconds": agents * took / answered,
        "period_aimed_at": sampler.period,
        "answers": answered,
        "silences": after["silent"] - before["silent"],
        "decisions_asked_for": decisions,
        "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _counts(metrics: Metrics) -> dict[str, float]:
    return {result: metrics.samples.labels(result)._value.get() for result in ("answered", "silent")}


def run(agents: int, seconds: float, *, scaled: bool) -> dict[str, float]:
    """One run in a process of its own, beside the process of the replicas."""
    more = ["--scaled"] if scaled else []
    with answering():
        done = subprocess.run(
            [sys.executable, "-m", "bench.signals.experiment", "--inside", "--agents", str(agents),
             "--seconds", str(seconds), *more],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--scaled", action="store_true", help="agents that the operator scales: long polls")
    parser.add_argument("--inside", action="store_true", help="the replicas are served already")
    options = parser.parse_args()
    if options.inside:
        found = asyncio.run(sample(options.agents, options.seconds, scaled=options.scaled))
    else:
        found = run(options.agents, options.seconds, scaled=options.scaled)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
