"""The native autoscaler on simulated traces, beside models of the HPA and of Knative's KPA. Layer: tooling.

Eight traces, nine seeds each; every side sees the same requests on the same data path. What the models do
and where their figures come from is said in bench/scaling/autoscalers.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from bench.claim import Claim, Runs
from bench.scaling.agent import Outcome
from bench.scaling.autoscalers import SIDES
from bench.scaling.experiment import LINES, lines, over_traces, play, standard, table
from bench.scaling.traces import noisy_steady

HPA, KPA = "HPA v2 (model)", "Knative KPA (model)"
STEADY_SEEDS = range(1, 12)


def beside(
    pick: Callable[[Outcome], float], ours: str, peer: str, without: tuple[str, ...] = ()
) -> Callable[[], Runs]:
    """A figure summed up over all traces but some, one a seed, beside the peer's."""

    def measure() -> Runs:
        found = standard()
        LINES.write_text(json.dumps(lines(found), separators=(",", ":")) + "\n")
        return Runs(
            ours=over_traces(ours, pick, without),
            peer=over_traces(peer, pick, without),
            details={**table(found)},
        )

    return measure


def flapping() -> Runs:
    """Changes of direction in half an hour in which all that varies is chance."""
    flaps: dict[str, list[float]] = {side.name: [] for side in SIDES}
    for seed in STEADY_SEEDS:
        trace = noisy_steady(seed)
        for side in SIDES:
            flaps[side.name].append(play(trace, side).flaps())
    return Runs(ours=flaps["ours"], peer=flaps["hpa"], details={"flaps": flaps})


def _lost(outcome: Outcome) -> float:
    return outcome.lost


def _hours(outcome: Outcome) -> float:
    return outcome.replica_seconds / 3600


CLAIMS = (
    Claim(
        "scaling-simulated", "scaling", "Requests lost on eight simulated traces, "
        "beside Knative's autoscaler", "requests", "lower", 1.0, beside(_lost, "ours", "kpa"), KPA,
    ),
    Claim(
        "scaling-simulated-hours", "scaling", "Replica-hours on the same traces, beside Knative's autoscaler",
        "hours", "lower", 1.1, beside(_hours, "ours", "kpa"), KPA,
    ),
    Claim(
        "scaling-simulated-hours-hpa", "scaling", "Replica-hours on the same traces, beside the HPA",
        "hours", "lower", 0.8, beside(_hours, "ours", "hpa"), HPA,
    ),
    Claim(
        "scaling-simulated-lost-hpa", "scaling", "Requests lost on the same traces, beside the HPA; replicas "
        "are kept for our default of 60 s, and the HPA's of 300 s", "requests", "lower", 1.0,
        beside(_lost, "ours", "hpa"), HPA,
    ),
    Claim(
        "scaling-simulated-same-delay", "scaling", "Requests lost on the seven traces that do not scale "
        "to zero, beside the HPA; replicas are kept for 300 s by both", "requests", "lower", 1.0,
        beside(_lost, "ours-300", "hpa", ("office hours",)), HPA,
    ),
    Claim(
        "scaling-flapping", "scaling", "Changes of direction within five minutes, in 30 simulated minutes of "
        "noisy steady load", "flaps", "lower", 0.0, flapping, HPA, absolute=True,
    ),
)  # fmt: skip
