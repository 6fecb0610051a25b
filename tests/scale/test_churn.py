"""Ten minutes of churn on the real API server with simulated nodes: nothing grows, nothing is stuck.

CHURN_SECONDS makes it longer or shorter; `make test-long` runs it for an hour. At the end the figures are
printed as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from agent_operator.core import load
from bench.fleet import scenarios
from bench.fleet.client import Client
from bench.fleet.experiment import namespace
from bench.fleet.nodes import simulated, simulated_replicas
from bench.fleet.sides import OURS, prepare, running
from tests.scale.churn import Churn, Findings
from tests.support.processes import free_port

SECONDS = float(os.environ.get("CHURN_SECONDS", "600"))
NODES = 10
QUIET_SECONDS = 20.0
GROWTH_MIB = 8.0 if SECONDS >= 1800 else 24.0
"""Most that resident memory may grow by from the second third to the last; in the first it warms up. In ten
minutes on a busy machine the pool of connections to the API server may still be filling then: an hour showed
25 MiB for 31 of them, and nothing after that."""

GROWTH_FILES = 5
"""The same of open files other than the sampler's connections."""
SPARE_CONNECTIONS = 10
"""The sampler keeps one connection a replica; so many more may be on their way out in the end."""


def churned(seconds: float) -> tuple[Findings, list[str]]:
    """A churn of so many seconds, and what was written in the quiet after it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare((OURS,), folder)
        with (
            simulated(NODES, folder, heartbeats=True),
            simulated_replicas(),
            namespace("churn") as space,
            running(OURS, space, free_port(), folder) as operator,
        ):
            churn = Churn(operator, space, seed=1)

            async def session() -> None:
                async with Client() as client:
                    await churn.run(client, seconds)

            time.sleep(3)
            asyncio.run(session())
            # A load that moved is shown up to a period later, and a busy machine may first hear of it late.
            time.sleep(2 * load.PERIOD.total_seconds())
            quiet = scenarios.idle(OURS, space, QUIET_SECONDS)
            scenarios.remove(OURS, space)
    return churn.findings, quiet["what"]


def third(values: list[float], number: int) -> float:
    """Median of one third of a series."""
    size = len(values) // 3
    return statistics.median(values[number * size : (number + 1) * size])


def test_churn_leaves_nothing_stuck_and_nothing_growing() -> None:
    findings, quiet_writes = churned(SECONDS)
    rss = [s.rss_mib for s in findings.samples]
    tasks = [s.tasks for s in findings.samples]
    files = [float(s.files) for s in findings.samples]
    connections = [float(s.connections) for s in findings.samples]
    report = {
        "seconds": findings.seconds,
        "operations": dict(findings.done),
        "rss_mib": [third(rss, n) for n in range(3)] + [max(rss)],
        "tasks": [third(tasks, n) for n in range(3)] + [max(tasks)],
        "files": [third(files, n) for n in range(3)] + [max(files)],
        "connections_to_replicas": [third(connections, n) for n in range(3)] + [connections[-1]],
        "replicas_in_the_end": findings.replicas,
        "largest_queue_depth": max(s.depth for s in findings.samples),
        "reconcile_errors": findings.errors,
        "stuck": findings.stuck,
        "writes_in_the_quiet_after": quiet_writes,
    }
    print(json.dumps(report, indent=1), flush=True)
    assert findings.stuck == []
    assert quiet_writes == []
    assert findings.samples[-1].depth == 0
    assert third(rss, 2) - third(rss, 1) < GROWTH_MIB
    assert third(files, 2) - third(files, 1) < GROWTH_FILES
    assert 0 < connections[-1] < findings.replicas + SPARE_CONNECTIONS
    assert findings.samples[-1].tasks < third(tasks, 1) + 20
