"""What the process and its devices use. Layer: observability; standard library, NVML or torch when there.

The one idea: each figure is read when asked for, from where the kernel keeps it, and is None where it is not
known; nothing runs in the background. prometheus-client's ProcessCollector exposes the usual `process_*`;
psutil would add a compiled dependency for two reads of /proc, and knows no cgroup limits.

Devices are read through NVML (package `nvidia-ml-py`), which sees everybody's use and utilisation, or else
from torch once it has initialised CUDA; asking torch earlier would create a context of some hundred MiB.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent_runtime.stats import GpuFacts, ProcessFacts

CACHE_SECONDS = 1.0
LIMIT_SECONDS = 10.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A device: memory in bytes, utilisation 0 to 1 or None where unknown."""

    index: int
    name: str
    memory_used: int
    memory_total: int
    utilization: float | None = None


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


@dataclass(slots=True)
class _Cached:
    at: float = -float("inf")
    gpus: tuple[Gpu, ...] = ()


@dataclass(slots=True)
class GpuReader:
    """Reads the devices, at most once in CACHE_SECONDS: drivers take milliseconds to answer."""

    clock: Callable[[], float] = time.monotonic
    _cached: _Cached = field(default_factory=_Cached)
    _nvml: Any = None
    _nvml_tried: bool = False

    def read(self) -> tuple[Gpu, ...]:
        """The devices of this process; empty without any."""
        now = self.clock()
        if now - self._cached.at >= CACHE_SECONDS:
            self._cached = _Cached(now, self._read())
        return self._cached.gpus

    def _read(self) -> tuple[Gpu, ...]:
        if not self._nvml_tried:
            self._nvml_tried, self._nvml = True, _start_nvml()
        if self._nvml is not None:
            try:
                return _from_nvml(self._nvml)
            except self._nvml.NVMLError:
                return ()
        return _from_torch(sys.modules.get("torch"))


def _start_nvml() -> Any:
    """The NVML module, initialised; None without package, driver or device."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml


def _from_nvml(nvml: Any) -> tuple[Gpu, ...]:
    gpus = []
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        try:
            busy: float | None = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        except nvml.NVMLError:  # a MIG instance has no utilisation of its own
            busy = None
        name = nvml.nvmlDeviceGetName(handle)
        gpus.append(
            Gpu(index, name if isinstance(name, str) else name.decode(), memory.used, memory.total, busy)
        )
    return tuple(gpus)


def _from_torch(torch: Any) -> tuple[Gpu, ...]:
    if torch is None or not torch.cuda.is_initialized():
        return ()
    gpus = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        gpus.append(Gpu(index, torch.cuda.get_device_name(index), total - free, total))
    return tuple(gpus)
