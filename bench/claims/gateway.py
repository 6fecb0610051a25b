"""What the gateway costs when every request passes it (mode Always), beside nginx. Layer: tooling.

Beside nginx as a plain reverse proxy with one worker, which neither reads a body nor chooses by prefix: the
ratio is the price of both and of Python. Throughput is per second of the proxy's own CPU time, so it is a
figure per core whatever else the machine does.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.claim import Claim, Runs
from bench.gateway.experiment import always

PEER = "nginx as a plain reverse proxy, one worker"


def added(quantile: str) -> Callable[[], Runs]:
    """Milliseconds added to the direct way."""

    def measure() -> Runs:
        rounds = always()["latency"]
        return Runs(
            ours=[one["gateway"][f"added_{quantile}"] for one in rounds],
            peer=[one["nginx"][f"added_{quantile}"] for one in rounds],
            details={"milliseconds": rounds},
        )

    return measure


def throughput() -> Runs:
    """Requests per second of CPU time."""
    found = always()["throughput"]
    return Runs(
        ours=[one["per_cpu_second"] for one in found["gateway"]],
        peer=[one["per_cpu_second"] for one in found["nginx"]],
        details=found,
    )


CLAIMS = (
    Claim(
        "gateway-added-p50", "scaling",
        "Latency added by the gateway in mode Always at 200 requests/s, median",
        "milliseconds", "lower", 1.0, added("p50"), PEER, absolute=True,
    ),
    Claim(
        "gateway-added-p99", "scaling",
        "Latency added by the gateway in mode Always at 200 requests/s, 99th percentile",
        "milliseconds", "lower", 5.0, added("p99"), PEER, absolute=True,
    ),
    Claim(
        "gateway-throughput", "scaling",
        "Requests per second of CPU time through the gateway in mode Always",
        "requests/s", "higher", 0.3, throughput, PEER,
    ),
)  # fmt: skip
