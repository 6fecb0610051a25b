"""What the process uses. Layer: observability; standard library only.

The one idea: each figure is read when asked for, from where the kernel keeps it, and is None where it is not
known. prometheus-client's ProcessCollector exposes the usual `process_*`;
psutil would add a compiled dependency for two reads of /proc, and knows no cgroup limits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent_runtime.observability.gpu import Gpu
from agent_runtime.stats import GpuFacts, ProcessFacts

LIMIT_SECONDS = 10.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """Resident memory and CPU time (user and system) of this process, and its container's memory limit."""

    rss_bytes: int
    cpu_seconds: float
    memory_limit_bytes: int | None


def resident_bytes(statm: str) -> int:
    """Resident memory from the text of /proc/self/statm (proc(5): the second field, in pages)."""
    return int(statm.split()[1]) * _PAGE


def memory_limit(read: Callable[[str], str | None]) -> int | None:
    """The smallest memory limit of this process's cgroup and those above it, in bytes; None is unlimited.

    `read` gives a file's text or None. Version 2 and version 1, whose "unlimited" is a number near 2**63.
    """
    own = read("/proc/self/cgroup") or ""
    limits: list[int] = []
    for line in own.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0":
            root, file = "/sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            root, file = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        for folder in [path.rstrip("/"), *(str(above).rstrip("/") for above in Path(path or "/").parents)]:
            text = (read(f"{root}{folder}/{file}") or "").strip()
            if text.isdigit() and int(text) < 2**60:
                limits.append(int(text))
    return min(limits, default=None)


def process_started() -> float:
    """When this process began, in seconds of `time.monotonic`; now, where the kernel does not say.

    Python's own start and the imports before the first line of ours count: a replica waits for them too.
    """
    now, stat = time.monotonic(), _text("/proc/self/stat")
    if stat is None:
        return now
    return now - process_age(stat, time.clock_gettime(time.CLOCK_BOOTTIME))


def process_age(stat: str, since_boot: float) -> float:
    """Seconds since a process began, from the text of /proc/self/stat (proc(5): the 22nd field, in ticks
    since the machine's start; the second, a name in brackets, may hold spaces)."""
    ticks = int(stat.rpartition(")")[2].split()[19])
    return max(0.0, since_boot - ticks / _TICKS)


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return None


@dataclass(slots=True)
class ProcessReader:
    """Reads the process; its limit at most once in LIMIT_SECONDS, as a pod may be resized in place."""

    clock: Callable[[], float] = time.monotonic
    _limit: int | None = None
    _limit_at: float = -float("inf")

    def read(self) -> ProcessUse:
        """What this process uses now."""
        now = self.clock()
        if now - self._limit_at >= LIMIT_SECONDS:
            self._limit, self._limit_at = memory_limit(_text), now
        statm = _text("/proc/self/statm")
        return ProcessUse(
            rss_bytes=0 if statm is None else resident_bytes(statm),
            cpu_seconds=time.process_time(),
            memory_limit_bytes=self._limit,
        )


def process_facts(use: ProcessUse, gpus: Sequence[Gpu]) -> ProcessFacts:
    """The same as /stats tells it."""
    return ProcessFacts(
        rss_bytes=use.rss_bytes,
        memory_limit_bytes=use.memory_limit_bytes,
        cpu_seconds=round(use.cpu_seconds, 3),
        gpus=tuple(
            GpuFacts(
                index=gpu.index, name=gpu.name, memory_used_bytes=gpu.memory_used,
                memory_bytes=gpu.memory_total, utilization=gpu.utilization,
            )
            for gpu in gpus
        ),
    )  # fmt: skip
