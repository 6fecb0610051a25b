"""What a benchmark is and what it leaves behind. Layer: tooling; the standard library, NVML where it is.

The one idea: a claim is a sentence with a goal; running it writes one JSON file with every raw run,
the medians, the ratio to the peer and the facts of the machine, met or not.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

RESULTS = Path(__file__).parent / "results"


@dataclass
class Runs:
    """Raw figures of one benchmark, in the claim's unit; ours and the peer's interleaved in one run."""

    ours: list[float]
    peer: list[float] = field(default_factory=list)
    details: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """One performance claim. `goal` is the ratio to the peer; our own figure where there is no peer, or
    where `absolute` says so.
    """

    name: str
    area: Literal["runtime", "gpu", "operator", "scaling", "rollout", "diagnosis", "install"]
    sentence: str
    unit: str
    better: Literal["higher", "lower"]
    goal: float
    measure: Callable[[], Runs]
    peer_name: str | None = None
    absolute: bool = False
    needs_gpu: bool = False

    def result(self, runs: Runs) -> dict[str, object]:
        """The JSON document for these runs: medians, ratio, whether the goal was met."""
        ours = statistics.median(runs.ours)
        peer = statistics.median(runs.peer) if runs.peer else None
        ratio = ours / peer if peer else None
        judged = ours if ratio is None or self.absolute else ratio
        return {
            "area": self.area,
            "claim": self.sentence,
            "command": f"make bench CLAIM={self.name}",
            "unit": self.unit,
            "better": self.better,
            "ours": ours,
            "peer": peer,
            "peer_name": self.peer_name,
            "ratio": ratio,
            "goal": self.goal,
            "goal_of": "ours" if ratio is None or self.absolute else "ratio",
            "met": judged >= self.goal if self.better == "higher" else judged <= self.goal,
            "runs": {key: value for key, value in asdict(runs).items() if key != "details"},
            "details": runs.details,
            "machine": machine(),
            "versions": versions(),
            "date": datetime.now(UTC).date().isoformat(),
        }

    def save(self, runs: Runs) -> dict[str, object]:
        RESULTS.mkdir(exist_ok=True)
        document = self.result(runs)
        (RESULTS / f"{self.name}.json").write_text(json.dumps(document, indent=1) + "\n")
        return document


def machine() -> dict[str, object]:
    """Cores, memory in GiB, kernel release and GPU of the machine the benchmark ran on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "kernel": platform.release().split("-")[0],
        "gpu": gpu_name(),
    }


def gpu_name() -> str | None:
    """The first CUDA device's name by its driver, None where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0)))
    except Exception:  # of NVML's classes, or of ctypes: no package, no driver, no device
        return None


def versions() -> dict[str, str]:
    """Versions of the libraries the figures depend on."""
    found = {"python": platform.python_version()}
    for package in ("kopf", "kubernetes", "transformers", "torch"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
