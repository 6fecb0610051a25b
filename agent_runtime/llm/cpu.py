"""How many CPU threads to use. Layer: llm, standard library only.

The one idea: torch counts the machine's cores; a pod is given a share of them. More threads than the share
makes every step slower, because the kernel stops the whole pod when the share is used up.
"""

from __future__ import annotations

import os
from pathlib import Path

_V2 = "cpu.max"
_V1 = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")


def quota_cpus(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """CPUs this cgroup may use, or None when unlimited or unknown (cgroup v2, then v1)."""
    try:
        quota, period = (root / _V2).read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota, period = ((root / name).read_text().strip() for name in _V1)
        except OSError:
            return None
    try:
        limit, every = int(quota), int(period)
    except ValueError:
        return None
    return limit / every if limit > 0 and every > 0 else None


def threads(quota: float | None, cores: int) -> int:
    """Threads to compute with: whole CPUs of the quota, at least one, at most the cores."""
    if quota is None:
        return max(1, cores)
    return max(1, min(cores, int(quota)))


def available_threads() -> int:
    """Threads for this process, here and now."""
    return threads(quota_cpus(), len(os.sched_getaffinity(0)))
