"""What the process uses is read where the kernel keeps it."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from agent_runtime.observability.process import CACHE_SECONDS, Gpu, GpuReader, ProcessReader, memory_limit

UNLIMITED_V1 = "9223372036854771712\n"


def test_memory_and_cpu_are_what_another_reader_sees() -> None:
    use, other = ProcessReader().read(), psutil.Process()

    assert use.rss_bytes == pytest.approx(other.memory_info().rss, rel=0.2)
    assert use.cpu_seconds == pytest.approx(sum(other.cpu_times()[:2]), rel=0.2, abs=1)


@pytest.mark.parametrize(
    ("files", "bytes_"),
    [
        ({}, None),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "1073741824\n"}, 2**30),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "max\n"}, None),
        (
            {
                "/proc/self/cgroup": "0::/kubepods/pod1/c1\n",
                "/sys/fs/cgroup/kubepods/pod1/c1/memory.max": "max\n",
                "/sys/fs/cgroup/kubepods/pod1/memory.max": "2048\n",
                "/sys/fs/cgroup/kubepods/memory.max": "4096\n",
            },
            2048,
        ),
        (
            {
                "/proc/self/cgroup": "5:cpu:/a\n4:memory:/a\n",
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "4096\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED_V1,
            },
            4096,
        ),
        (
            {
                "/proc/self/cgroup": "4:memory:/\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED_V1,
            },
            None,
        ),
        ({"/proc/self/cgroup": "nonsense\n"}, None),
    ],
)  # fmt: skip
def test_the_smallest_limit_on_the_way_up_counts(files: dict[str, str], bytes_: int | None) -> None:
    assert memory_limit(files.get) == bytes_


class FakeNvml:
    """A driver with one whole device and one MIG instance, which has no utilisation."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.reads = 0

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self.reads += 1
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(used=10 + handle, total=80)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        if handle == 1:
            raise self.NVMLError
        return SimpleNamespace(gpu=50)

    def nvmlDeviceGetName(self, handle: int) -> Any:  # noqa: N802
        return b"H100" if handle == 0 else "MIG 1g.10gb"


def test_devices_are_read_through_nvml_and_not_more_often_than_they_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)  # type: ignore[arg-type]
    now = 0.0
    reader = GpuReader(clock=lambda: now)

    for _ in range(10):
        gpus = reader.read()

    assert gpus == (Gpu(0, "H100", 10, 80, 0.5), Gpu(1, "MIG 1g.10gb", 11, 80, None))
    assert nvml.reads == 1
    now += CACHE_SECONDS
    reader.read()
    assert nvml.reads == 2


def test_without_nvml_torch_is_asked_only_once_it_has_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    cuda = SimpleNamespace(
        is_initialized=lambda: False, device_count=lambda: 1, mem_get_info=lambda index: (30, 80),
        get_device_name=lambda index: "H100",
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))  # type: ignore[arg-type]
    assert GpuReader().read() == ()

    cuda.is_initialized = lambda: True

    assert GpuReader().read() == (Gpu(0, "H100", 50, 80, None),)


def test_without_a_device_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.delitem(sys.modules, "torch", raising=False)

    assert GpuReader().read() == ()
