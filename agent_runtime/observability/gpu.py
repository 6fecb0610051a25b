"""What the devices are doing. Layer: observability; NVML or torch when they are there.

The one idea: a driver is somebody else's code. It may be absent, take milliseconds, fail for one device of
eight, or never answer again; none of that may raise, or hold up the event loop that answers probes. So it
is asked in a thread, at most once in CACHE_SECONDS, waited for WAIT_SECONDS, and not asked again before it
has answered; meanwhile its last answer stands for STALE_SECONDS.

NVML (package `nvidia-ml-py`) sees everybody's use and the utilisation; torch knows the memory only, and only
once it has initialised CUDA: asking it earlier would create a context of some hundred MiB. In a container
NVML lists the devices the container was given.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger("agent_runtime.gpu")

CACHE_SECONDS = 1.0
WAIT_SECONDS = 0.05
"""Longest wait for the driver; an NVML that is running answers in a tenth of it."""
STALE_SECONDS = 30.0
"""After so long without an answer nothing is known of the devices any more."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A device or a MIG instance: memory in bytes, utilisation 0 to 1 or None where unknown."""

    index: int
    name: str
    memory_used: int
    memory_total: int
    utilization: float | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    at: float = -float("inf")
    gpus: tuple[Gpu, ...] = ()


@dataclass(slots=True)
class GpuReader:
    """Reads the devices of this process. From any thread; never raises."""

    clock: Callable[[], float] = time.monotonic
    wait_seconds: float = WAIT_SECONDS
    _answer: _Answer = field(default_factory=_Answer)
    _asked: float = -float("inf")
    _asking: threading.Thread | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _nvml: Any = None
    _nvml_tried: bool = False

    def read(self) -> tuple[Gpu, ...]:
        """The devices; empty without any, and when the driver has not answered for STALE_SECONDS."""
        with self._lock:
            if self.clock() - self._asked >= CACHE_SECONDS and not self._waiting():
                self._begin()
            answer = self._answer
        return answer.gpus if self.clock() - answer.at < STALE_SECONDS else ()

    def _begin(self) -> None:
        self._asked = self.clock()
        asking = threading.Thread(target=self._ask, name="gpu-reader", daemon=True)
        with suppress(RuntimeError):  # the pod may have no thread left
            asking.start()
            self._asking = asking
            asking.join(self.wait_seconds)

    def _waiting(self) -> bool:
        return self._asking is not None and self._asking.is_alive()

    def _ask(self) -> None:
        try:
            gpus = self._read()
        except Exception as error:  # of whatever class: of NVML, of ctypes, of a torch whose device is lost
            log.debug("the devices cannot be read: %s", error)
            gpus = ()
        self._answer = _Answer(self.clock(), gpus)

    def _read(self) -> tuple[Gpu, ...]:
        if not self._nvml_tried:
            self._nvml_tried, self._nvml = True, _start_nvml()
        if self._nvml is not None:
            return tuple(_from_nvml(self._nvml))
        return tuple(_from_torch(sys.modules.get("torch")))


def _start_nvml() -> Any:
    """The NVML module, initialised; None without package, driver or device."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception as error:
        log.debug("no NVML: %s", error)
        return None
    return nvml


def _from_nvml(nvml: Any) -> Iterator[Gpu]:
    """Each device that answers, or the MIG instances of one that is divided: such a device itself tells of
    no utilisation, and of memory that is others'."""
    number = 0
    for index in range(nvml.nvmlDeviceGetCount()):
        with suppress(nvml.NVMLError):
            device = nvml.nvmlDeviceGetHandleByIndex(index)
            for handle in _instances(nvml, device) or [device]:
                with suppress(nvml.NVMLError):
                    yield _device(nvml, handle, number)
                    number += 1


def _instances(nvml: Any, device: Any) -> list[Any]:
    """The MIG instances of a device; none where it is not divided, or cannot be."""
    try:
        if nvml.nvmlDeviceGetMigMode(device)[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return []
        count = nvml.nvmlDeviceGetMaxMigDeviceCount(device)
    except nvml.NVMLError:
        return []
    found = []
    for index in range(count):
        with suppress(nvml.NVMLError):  # most numbers are of no instance
            found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, index))
    return found


def _device(nvml: Any, handle: Any, number: int) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        busy: float | None = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    except nvml.NVMLError:  # a MIG instance has no utilisation of its own
        busy = None
    name = nvml.nvmlDeviceGetName(handle)
    # `used` counts what the driver keeps for itself, so what is left to take is total - used.
    return Gpu(number, name if isinstance(name, str) else name.decode(), memory.used, memory.total, busy)


def _from_torch(torch: Any) -> Iterator[Gpu]:
    if torch is None or not torch.cuda.is_initialized():
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        yield Gpu(index, torch.cuda.get_device_name(index), total - free, total)
