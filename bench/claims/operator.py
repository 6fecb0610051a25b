"""What the operator costs and how fast it is, at 1,000 and 5,000 agents. Layer: tooling.

Beside a naive kopf operator and a controller-runtime operator in Go that make the same children, and a bare
client that does the same writes. All are processes on this machine with users of their own, so that the API
server's audit log tells their writes apart; the control plane has simulated nodes. At 1,000 agents nothing
runs (no replicas are asked for), so the operators are what differs; the 5,000 run, one pod each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.claim import Claim, Runs
from bench.fleet.experiment import large, standard

Found = dict[str, Any]
GO, NAIVE, BARE = (
    "controller-runtime operator, same children",
    "naive kopf operator, same children",
    "bare client",
)


def bursts(pick: Callable[[Found], float], peer: str = "controller-runtime") -> Callable[[], Runs]:
    """A figure of the burst of 1,000, one per round, beside the same figure of a peer."""

    def measure() -> Runs:
        found = standard()
        sides = ("ours", "controller-runtime", "naive-kopf")
        return Runs(
            ours=[pick(one) for one in found["ours"]],
            peer=[pick(one) for one in found[peer]],
            details={side: [one["burst"] for one in found[side]] for side in sides} | {"bare": found["bare"]},
        )

    return measure


def beside_bare() -> Runs:
    """Seconds until a burst has converged, ours and the bare client's."""
    found = standard()
    return Runs(
        ours=[one["burst"]["converged_seconds"] for one in found["ours"]],
        peer=[one["seconds"] for one in found["bare"]],
        details={"bare": found["bare"]},
    )


def daily(part: str, pick: Callable[[Found], float | None]) -> Callable[[], Runs]:
    """A figure of the work on 1,000 agents that exist; the other sides' are kept as details."""

    def measure() -> Runs:
        found = standard()["daily"]
        return Runs(
            ours=[_some(pick(found["ours"][part]))],
            peer=_if_any(pick(found["controller-runtime"][part])),
            details={side: found[side][part] for side in found},
        )

    return measure


def fleet(pick: Callable[[Found], float | None]) -> Callable[[], Runs]:
    """A figure of the 5,000."""

    def measure() -> Runs:
        found = large()
        return Runs(
            ours=[_some(pick(found["ours"]))],
            peer=_if_any(pick(found["controller-runtime"])),
            details={side: found[side] for side in ("ours", "controller-runtime", "bare")},
        )

    return measure


def throughput_beside_bare() -> Runs:
    """Agents per second until everything was written, ours and the bare client's."""
    found = large()
    creation, bare = found["ours"]["creation"], found["bare"]
    return Runs(
        ours=[_per_second(found["ours"])],
        peer=[bare["objects"] / bare["seconds"]],
        details={"ours": creation, "bare": bare},
    )


def _if_any(value: float | None) -> list[float]:
    """What the peer showed, if it was measured."""
    return [] if value is None else [value]


def _some(value: float | None) -> float:
    if value is None:
        raise AssertionError("a figure of ours is missing")
    return value


def _per_second(side: Found) -> float:
    return float(side["creation"]["objects"] / side["creation"]["converged_seconds"])


def _claim(name: str, sentence: str, unit: str, goal: float, measure: Callable[[], Runs]) -> Claim:
    """A claim whose goal is a figure of our own, with a peer beside it."""
    return Claim(f"operator-{name}", "operator", sentence, unit, "lower", goal, measure, GO, absolute=True)


def _latency(part: str, quantile: str) -> Callable[[Found], float]:
    return lambda one: float(one[part]["parent_to_last_child_seconds"][quantile])


CLAIMS = (
    _claim(
        "writes", "Writes per created agent: three children and one status",
        "writes", 4.0, bursts(lambda one: one["burst"]["writes_per_object"]),
    ),
    Claim(
        "operator-writes-naive",
        "operator",
        "Writes per created agent, beside handlers as kopf's tutorials write them",
        "writes",
        "lower",
        1.0,
        bursts(lambda one: one["burst"]["writes_per_object"], "naive-kopf"),
        NAIVE,
    ),
    _claim(
        "burst-p50", "1,000 agents at once: from an agent's creation to its last child, median",
        "seconds", 3.0, bursts(_latency("burst", "p50")),
    ),
    _claim(
        "burst-p99", "1,000 agents at once: from an agent's creation to its last child, p99",
        "seconds", 8.0, bursts(_latency("burst", "p99")),
    ),
    _claim(
        "convergence", "1,000 agents at once: until the last write",
        "seconds", 15.0, bursts(lambda one: one["burst"]["converged_seconds"]),
    ),
    Claim(
        "operator-beside-bare", "operator", "1,000 agents at once: until the last write, beside a client "
        "that only does the same writes", "seconds", "lower", 1.3, beside_bare, BARE,
    ),
    _claim(
        "cpu", "CPU of the operator per created agent",
        "ms", 8.0, bursts(lambda one: one["burst"]["cpu_ms_per_object"]),
    ),
    _claim(
        "memory-0", "Resident memory without agents",
        "MiB", 65.0, bursts(lambda one: one["rss_mib_at_0"]),
    ),
    _claim(
        "memory-1000", "Resident memory after a burst of 1,000 agents",
        "MiB", 100.0, bursts(lambda one: one["burst"]["rss_mib"]),
    ),
    _claim(
        "paced-p50", "20 agents a second: from an agent's creation to its last child, median",
        "seconds", 0.05, daily("paced", lambda one: one["parent_to_last_child_seconds"]["p50"]),
    ),
    _claim(
        "paced-p99", "20 agents a second: from an agent's creation to its last child, p99",
        "seconds", 0.5, daily("paced", lambda one: one["parent_to_last_child_seconds"]["p99"]),
    ),
    _claim(
        "update-writes", "One field of 1,000 agents is edited, which changes one child: writes per agent",
        "writes", 2.0, daily("update", lambda one: one["writes_per_object"]),
    ),
    _claim(
        "update", "One field of 1,000 agents is edited: until the last child is written",
        "seconds", 15.0, daily("update", lambda one: one["last_child_write_seconds"]),
    ),
    _claim(
        "edits", "20 quick edits of one agent: reconciles",
        "reconciles", 3.0, daily("edits", lambda one: one["reconciles"]),
    ),
    _claim(
        "edits-status", "20 quick edits of one agent: writes of its status",
        "writes", 2.0, daily("edits", lambda one: one["writes"].get("status", 0)),
    ),
    _claim(
        "repair", "All children of 500 agents are deleted: until one is there again, p99",
        "seconds", 5.0, daily("lost", lambda one: one["repair_seconds"].get("p99")),
    ),
    _claim(
        "memory-5000", "Resident memory with 5,000 agents and their pods",
        "MiB", 220.0, fleet(lambda side: side["creation"]["rss_mib"]),
    ),
    _claim(
        "idle", "5,000 agents at rest for ten minutes: writes",
        "writes", 0.0, fleet(lambda side: side["restart"].get("idle", {}).get("writes")),
    ),
    _claim(
        "restart-writes", "The operator is restarted beside 5,000 agents: writes to them",
        "writes", 0.0, fleet(lambda side: side["restart"]["writes_to_the_others"]),
    ),
    _claim(
        "restart", "The operator is started beside 5,000 agents: until the first child of a new one",
        "seconds", 15.0, fleet(lambda side: side["restart"]["first_useful_reconcile_seconds"]),
    ),
    Claim(
        "operator-throughput", "operator", "5,000 agents on 1,000 simulated GPU nodes: agents per second",
        "agents/s", "higher", 1.0, fleet(_per_second), GO,
    ),
    Claim(
        "operator-throughput-bare", "operator", "5,000 agents on 1,000 simulated GPU nodes: agents per "
        "second, beside a client that only does the same writes", "agents/s", "higher", 0.8,
        throughput_beside_bare,
        BARE,
    ),
)  # fmt: skip
