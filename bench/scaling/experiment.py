"""All traces under all autoscalers, several seeds each. Layer: tooling.

The one idea: every side sees the same requests; what is reported is summed up over the seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from statistics import fmean

from bench.scaling.agent import Machine, Outcome, Simulation, Trace
from bench.scaling.autoscalers import SIDES, Side
from bench.scaling.traces import TRACES

SEEDS = (1, 2, 3)
MACHINE = Machine()


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
) -> dict[str, dict[str, Summary]]:
    """Summaries by trace and side."""
    found: dict[str, dict[str, Summary]] = {}
    for make in traces:
        made = [make(seed) for seed in seeds]
        found[made[0].name] = {side.name: summary([play(trace, side) for trace in made]) for side in SIDES}
    return found


@lru_cache(maxsize=1)
def standard() -> dict[str, dict[str, dict[str, float]]]:
    """The whole comparison, once a process, as it is written to the results."""
    return {
        trace: {side: asdict(figures) for side, figures in sides.items()}
        for trace, sides in compare().items()
    }
