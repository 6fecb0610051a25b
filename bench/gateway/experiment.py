"""The measurements, once for all claims. Layer: tooling."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from typing import Any

from bench.gateway.load import body
from bench.gateway.sides import LOAD_CORE, ROOT, Side, Sides, running

ROUNDS = 5
RATE = 200.0
LATENCY_SECONDS = 10.0
THROUGHPUT_SECONDS = 5
CONNECTIONS = 32


@cache
def always() -> dict[str, Any]:
    """Added latency at RATE, and requests per second of CPU time; in rounds, ours and nginx by turns."""
    rounds: dict[str, Any] = {"latency": [], "throughput": {"gateway": [], "nginx": []}}
    with running() as sides:
        for number in range(ROUNDS):
            print(f"    round {number + 1}/{ROUNDS}", flush=True)
            rounds["latency"].append(latency(sides))
            for side in (sides.ours, sides.nginx) if number % 2 else (sides.nginx, sides.ours):
                rounds["throughput"][side.name].append(throughput(side))
    return rounds


def latency(sides: Sides) -> dict[str, dict[str, float]]:
    """Milliseconds: p50 and p99 of each side, and what was added to the direct way.

    All sides and the load go before whatever else the machine does: at this rate they need a tenth of it.
    """
    parts = (sides.direct, sides.ours, sides.nginx)
    for side in parts:
        side.prefer(first=True)
    try:
        return _latency(parts)
    finally:
        for side in parts:
            side.prefer(first=False)


def _latency(parts: Sequence[Side]) -> dict[str, dict[str, float]]:
    first = ("chrt", "-f", "1") if os.geteuid() == 0 else ()
    command = [
        *first, "taskset", "-c", LOAD_CORE, sys.executable, "-m", "bench.gateway.load",
        str(LATENCY_SECONDS), str(RATE), *(f"{side.host}:{side.port}" for side in parts),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"the load failed:\n{done.stderr[-2000:]}")
    taken = json.loads(done.stdout)
    found = {}
    for side in parts:
        seconds = taken[f"{side.host}:{side.port}"]
        found[side.name] = {
            "p50": 1000 * seconds[len(seconds) // 2],
            "p99": 1000 * seconds[int(len(seconds) * 0.99)],
        }
    for side in parts[1:]:
        for quantile in ("p50", "p99"):
            found[side.name][f"added_{quantile}"] = found[side.name][quantile] - found["direct"][quantile]
    return found


def throughput(side: Side) -> dict[str, float]:
    """Requests per second, and per second of the proxy's CPU time, of CONNECTIONS closed-loop clients."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT % json.dumps(body(0).decode()))
        script.flush()
        command = [
            "taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{THROUGHPUT_SECONDS}s",
            "-s", script.name, side.url,
        ]  # fmt: skip
        before = side.cpu_seconds()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        used = side.cpu_seconds() - before
    counted = re.search(r"(\d+) requests in ([\d.]+)s", done.stdout)
    if counted is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(f"wrk on {side.name}:\n{done.stdout[-2000:]}")
    requests, seconds = int(counted[1]), float(counted[2])
    return {
        "requests": requests, "per_second": requests / seconds, "cpu_seconds": used,
        "per_cpu_second": requests / used,
    }  # fmt: skip


_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "application/json"
wrk.headers["User-Agent"] = "OpenAI/Python"
wrk.headers["Authorization"] = "Bearer ao-0123456789012345678901234567890123456789"
wrk.body = %s
"""
