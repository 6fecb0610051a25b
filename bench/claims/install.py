"""How long a user waits for a cluster and for the demo once everything is built. Layer: tooling.

No peer: nothing else starts a real Kubernetes without Docker on such a machine. These take the embedded
cluster down and up; what ran on it is gone afterwards.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from bench.claim import Claim, Runs
from tests.support.kubectl import ROOT

ROUNDS = 3


def seconds(*command: str) -> float:
    """Wall time of a command that must succeed."""
    begin = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def after_down(*command: str) -> Callable[[], Runs]:
    """The command on a stopped cluster with warm caches, ROUNDS times."""

    def measure() -> Runs:
        runs = Runs(ours=[])
        for number in range(ROUNDS):
            seconds(sys.executable, "-m", "local_cluster", "down")
            runs.ours.append(seconds(*command))
            print(f"    round {number + 1}/{ROUNDS}: {runs.ours[-1]:.1f} s", flush=True)
        return runs

    return measure


CLAIMS = (
    Claim(
        "cluster-up-warm",
        "install",
        "The embedded cluster starts in under 30 seconds once its binaries are built",
        "seconds",
        "lower",
        30.0,
        after_down(sys.executable, "-m", "local_cluster", "up"),
    ),
    Claim(
        "demo-warm",
        "install",
        "A second `make demo`, from no cluster to the answer, takes under 60 seconds",
        "seconds",
        "lower",
        60.0,
        after_down("make", "demo"),
    ),
)
