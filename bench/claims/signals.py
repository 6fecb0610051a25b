"""What the operator pays for knowing how its agents are. Layer: tooling.

The sampler and the monitor of the operator, in a process of their own, over 5,000 replicas that answer on
loopback with a real record. Figures are of that process: CPU time by wall time.
"""

from __future__ import annotations

from functools import cache

from bench.claim import Claim, Runs
from bench.signals.experiment import run

AGENTS = 5000
SECONDS = 40.0
ROUNDS = 3


@cache
def plain() -> tuple[dict[str, float], ...]:
    """Agents with a fixed number of replicas."""
    return tuple(run(AGENTS, SECONDS, scaled=False) for _ in range(ROUNDS))


def cores() -> Runs:
    runs = plain()
    scaled = run(1000, 20.0, scaled=True)
    return Runs(
        [r["cores"] for r in runs], details={"runs": list(runs), "1,000 agents in long polls": scaled}
    )


def period() -> Runs:
    runs = plain()
    return Runs([r["period_seconds"] / r["period_aimed_at"] for r in runs], details={"runs": list(runs)})


CLAIMS = (
    Claim(
        name="signals-cores",
        area="operator",
        sentence="Sampling the replicas of 5,000 agents costs the operator at most 0.3 of a core.",
        unit="cores",
        better="lower",
        goal=0.3,
        measure=cores,
    ),
    Claim(
        name="signals-period",
        area="operator",
        sentence="With 5,000 replicas each is asked as often as aimed at, every ten seconds, within a tenth.",
        unit="period / aimed at",
        better="lower",
        goal=1.1,
        measure=period,
    ),
)
