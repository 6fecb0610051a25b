"""All traces under all autoscalers, several seeds each. Layer: tooling.

The one idea: every side sees the same requests; what is reported is summed up over the seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean

from bench.scaling.agent import Machine, Outcome, Simulation, Trace
from bench.scaling.autoscalers import SIDES, Side
from bench.scaling.traces import TRACES

SEEDS = tuple(range(1, 10))
MACHINE = Machine()
POINTS = 240
PICTURED = ("ours", "hpa", "kpa")
LINES = Path(__file__).parent / "lines.json"
"""Beside the results, not among them: it is no claim."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A trace under one side: means over the seeds, quantiles over all their requests."""

    requests: float
    lost: float
    lost_percent: float
    wait_p50: float
    """Seconds until a request began; a lost one counts with its client's patience."""
    wait_p99: float
    replica_hours: float
    changes: float
    flaps: float
    peak: int


def play(trace: Trace, side: Side) -> Outcome:
    """One trace under one side."""
    return Simulation(trace, side.make(trace, MACHINE), MACHINE).run()


def summary(outcomes: list[Outcome]) -> Summary:
    """The figures of several runs."""
    waits = sorted(wait for outcome in outcomes for wait in outcome.waits)
    requests, lost = len(waits), sum(outcome.lost for outcome in outcomes)
    return Summary(
        requests=round(requests / len(outcomes)),
        lost=round(lost / len(outcomes), 1),
        lost_percent=round(100 * lost / max(1, requests), 3),
        wait_p50=round(waits[len(waits) // 2], 2),
        wait_p99=round(waits[int(0.99 * len(waits))], 2),
        replica_hours=round(fmean(outcome.replica_seconds for outcome in outcomes) / 3600, 3),
        changes=round(fmean(len(outcome.changes) for outcome in outcomes), 1),
        flaps=round(fmean(outcome.flaps() for outcome in outcomes), 1),
        peak=max(replicas for outcome in outcomes for _, replicas, _ in outcome.line),
    )


def compare(
    traces: Iterable[Callable[[int], Trace]] = TRACES, seeds: tuple[int, ...] = SEEDS
) -> dict[str, dict[str, list[Outcome]]]:
    """What became of each trace under each side, one outcome a seed."""
    found: dict[str, dict[str, list[Outcome]]] = {}
    for make in traces:
        made = [make(seed) for seed in seeds]
        found[made[0].name] = {side.name: [play(trace, side) for trace in made] for side in SIDES}
    return found


@lru_cache(maxsize=1)
def standard() -> dict[str, dict[str, list[Outcome]]]:
    """The whole comparison, once a process."""
    return compare()


def table(found: dict[str, dict[str, list[Outcome]]]) -> dict[str, dict[str, dict[str, float]]]:
    """The figures by trace and side, as they are written to the results."""
    return {
        trace: {side: asdict(summary(outcomes)) for side, outcomes in sides.items()}
        for trace, sides in found.items()
    }


def over_traces(side: str, pick: Callable[[Outcome], float], without: tuple[str, ...] = ()) -> list[float]:
    """A figure summed up over the traces but some, one a seed."""
    sides = [outcomes[side] for trace, outcomes in standard().items() if trace not in without]
    return [sum(pick(outcomes[index]) for outcomes in sides) for index in range(len(SEEDS))]


def lines(found: dict[str, dict[str, list[Outcome]]]) -> dict[str, dict[str, list[list[float]]]]:
    """Minutes, replicas and demand of the first seed, POINTS a trace: what the pictures show."""
    return {trace: {side: _line(sides[side][0]) for side in PICTURED} for trace, sides in found.items()}


def _line(outcome: Outcome) -> list[list[float]]:
    """At each point the mean demand since the one before, and the replicas then."""
    begin, end = outcome.line[0][0], outcome.line[-1][0]
    step, found, demands = (end - begin) / POINTS, [], []
    for at, replicas, demand in outcome.line:
        demands.append(demand)
        if at - begin >= step * len(found):
            found.append([round((at - begin) / 60, 2), replicas, round(fmean(demands), 1)])
            demands = []
    return found
