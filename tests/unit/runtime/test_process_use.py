"""What the process uses is read where the kernel keeps it."""

from __future__ import annotations

import os
import time

import psutil
import pytest

from agent_runtime.observability.process import ProcessReader, memory_limit, process_age, process_started

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


def test_the_process_began_when_another_reader_says_so() -> None:
    age = time.monotonic() - process_started()

    assert age == pytest.approx(time.time() - psutil.Process().create_time(), abs=2)


@pytest.mark.parametrize("name", ["python", "a b", ") 1 (2"])
def test_the_age_of_a_process_is_read_whatever_its_name(name: str) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    stat = f"7 ({name}) S " + " ".join(str(number) for number in range(4, 22)) + f" {100 * ticks} 1 2"

    assert process_age(stat, 107.5) == 7.5
    assert process_age(stat, 99.0) == 0.0
