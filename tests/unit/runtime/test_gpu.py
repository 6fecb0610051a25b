"""The devices are told as their driver tells them, and a driver that is ill harms nobody."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from agent_runtime.observability.gpu import CACHE_SECONDS, STALE_SECONDS, Gpu, GpuReader


class FakeNvml:
    """A driver of one device, and of one divided into two instances of seven possible ones."""

    NVML_DEVICE_MIG_ENABLE = 1

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.reads = 0
        self.broken: set[int] = set()
        self.defect: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self.reads += 1
        self.go_on.wait(60)
        if self.defect is not None:
            raise self.defect
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index in self.broken:
            raise self.NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetMigMode(self, handle: int) -> Any:  # noqa: N802
        if handle == 0:
            raise self.NVMLError("Not Supported")
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: int) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: int, index: int) -> int:  # noqa: N802
        if index not in (1, 3):
            raise self.NVMLError("Not Found")
        return 10 + index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        if handle in self.broken:
            raise self.NVMLError("GPU is lost")
        return SimpleNamespace(used=10 + handle, total=80)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        if handle != 0:
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(gpu=50)

    def nvmlDeviceGetName(self, handle: int) -> Any:  # noqa: N802
        return b"H100" if handle == 0 else "H100 MIG 1g.10gb"


WHOLE = Gpu(0, "H100", 10, 80, 0.5)
PARTS = (Gpu(1, "H100 MIG 1g.10gb", 21, 80, None), Gpu(2, "H100 MIG 1g.10gb", 23, 80, None))


class World:
    """A reader, its driver, and the time it sees."""

    def __init__(self) -> None:
        self.nvml = FakeNvml()
        self.now = 0.0
        self.reader = GpuReader(clock=lambda: self.now, wait_seconds=60)

    def later(self, seconds: float = CACHE_SECONDS) -> tuple[Gpu, ...]:
        self.now += seconds
        return self.reader.read()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World()
    monkeypatch.setitem(sys.modules, "pynvml", made.nvml)  # type: ignore[arg-type]
    yield made
    made.nvml.go_on.set()


def test_devices_and_instances_are_read_and_not_more_often_than_they_change(world: World) -> None:
    for _ in range(10):
        gpus = world.reader.read()

    assert gpus == (WHOLE, *PARTS)
    assert world.nvml.reads == 1
    world.later()
    assert world.nvml.reads == 2


def test_a_device_that_is_lost_leaves_the_others(world: World) -> None:
    world.nvml.broken = {1}
    assert world.later() == (WHOLE,)

    world.nvml.broken = {0, 11}
    assert world.later() == (Gpu(0, "H100 MIG 1g.10gb", 23, 80, None),)


@pytest.mark.parametrize("defect", [FakeNvml.NVMLError("driver not loaded"), OSError(5), AttributeError("x")])
def test_a_driver_that_fails_is_no_devices_until_it_works_again(world: World, defect: Exception) -> None:
    world.nvml.defect = defect
    assert world.later() == ()

    world.nvml.defect = None
    assert world.later() == (WHOLE, *PARTS)


def test_a_driver_that_hangs_is_asked_once_and_its_last_answer_stands_for_a_while(world: World) -> None:
    before = world.reader.read()
    world.nvml.go_on.clear()
    world.reader.wait_seconds = 0.0

    during = [world.later() for _ in range(5)]
    long_after = world.later(STALE_SECONDS)

    assert during == [before] * 5
    assert long_after == ()
    assert world.nvml.reads == 2
    asked = world.reader._asking
    assert asked is not None
    world.nvml.go_on.set()
    asked.join(60)
    world.reader.wait_seconds = 60
    assert world.later() == before


@pytest.mark.parametrize("defect", [ImportError(), FakeNvml.NVMLError("no driver"), OSError("no library")])
def test_without_nvml_torch_is_asked_only_once_it_has_a_device(
    monkeypatch: pytest.MonkeyPatch, defect: Exception
) -> None:
    def no_driver() -> None:
        raise defect

    broken = SimpleNamespace(nvmlInit=no_driver, NVMLError=FakeNvml.NVMLError)
    missing = isinstance(defect, ImportError)
    monkeypatch.setitem(sys.modules, "pynvml", None if missing else broken)  # type: ignore[arg-type]
    cuda = SimpleNamespace(
        is_initialized=lambda: False, device_count=lambda: 1, mem_get_info=lambda index: (30, 80),
        get_device_name=lambda index: "H100",
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))  # type: ignore[arg-type]
    assert GpuReader(wait_seconds=60).read() == ()

    cuda.is_initialized = lambda: True

    assert GpuReader(wait_seconds=60).read() == (Gpu(0, "H100", 50, 80, None),)


def test_a_torch_whose_device_is_lost_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(index: int) -> tuple[int, int]:
        raise RuntimeError("CUDA error: unspecified launch failure")

    cuda = SimpleNamespace(is_initialized=lambda: True, device_count=lambda: 1, mem_get_info=lost)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))  # type: ignore[arg-type]

    assert GpuReader(wait_seconds=60).read() == ()


def test_without_a_device_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.delitem(sys.modules, "torch", raising=False)

    assert GpuReader(wait_seconds=60).read() == ()
