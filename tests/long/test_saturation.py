"""A saturated runtime for ten minutes: liveness never errs, every answer is right, and nothing grows.

What would be a false alarm is what the kubelet would take for one, by the probes of the pod template: a
refusal, or an answer that comes later than the kubelet waits. One of either fails the test, though a pod is
restarted after several only.

SOAK_SECONDS makes it shorter. It is bounded and ends cleanly when it is interrupted; its findings are printed
as JSON, also when an assertion fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

from agent_operator.core.children.pod import PROBE_TIMEOUT_SECONDS
from tests.model.training import trained
from tests.unit.runtime.crowd import CONTROLLED, idle, witnesses
from tests.unit.runtime.harness import Server, write_config

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
CLIENTS, SLOTS = 64, 16
PROBE_EVERY = 1.0
PROBES = ("/health/live", "/health/ready")
MEMORY_SLOPE = 2.0
"""Most that resident memory may grow by, in MiB a minute, over the second half."""

pytestmark = pytest.mark.long


@dataclass
class Findings:
    """What was seen, once a second."""

    clients: int = CLIENTS
    slots: int = SLOTS
    seconds: float = 0.0
    answers: int = 0
    wrong: list[str] = field(default_factory=list)
    probes: dict[str, int] = field(default_factory=dict)
    """Answers of liveness and readiness by path and status; `late` where the kubelet would have left."""
    slowest_probe: float = 0.0
    progress: dict[str, int] = field(default_factory=dict)
    rss_mib: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    tasks_before: int = 0
    tasks_after: int = 0
    memory_slope: float = 0.0


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A runtime with sixteen rows and a queue for the others."""
    folder = tmp_path_factory.mktemp("soak")
    parameters = {"max_concurrency": SLOTS, "max_queued_requests": CLIENTS}
    config = write_config(folder, trained(), parameters=parameters, stall_seconds=30)
    with Server(folder, "--config", str(config), module=CONTROLLED) as server:
        yield server.wait_ready()


async def probe(server: Server, path: str, found: Findings) -> None:
    """Asks as the kubelet does, on the port it asks."""
    begun = time.monotonic()
    answer = await asyncio.to_thread(server.admin.get, path)
    seconds = time.monotonic() - begun
    found.slowest_probe = max(found.slowest_probe, seconds)
    outcome = f"{path} {answer.status_code if seconds < PROBE_TIMEOUT_SECONDS else 'late'}"
    found.probes[outcome] = found.probes.get(outcome, 0) + 1


async def soak(server: Server, found: Findings) -> None:
    """CLIENTS in closed loops, and a probe every second, for SECONDS."""
    begun = time.monotonic()
    async with witnesses(server, CLIENTS) as seen:
        while (elapsed := time.monotonic() - begun) < SECONDS:
            for path in PROBES:
                await probe(server, path, found)
            word = (await asyncio.to_thread(server.stats))["progress"]
            found.progress[word] = found.progress.get(word, 0) + 1
            found.rss_mib.append(server.rss() / 2**20)
            found.descriptors.append(server.descriptors())
            found.threads.append(server.threads())
            found.seconds, found.answers, found.wrong = elapsed, seen.answered, seen.wrong
            if len(found.rss_mib) % 30 == 0:
                print(
                    f"soak: {elapsed:.0f} of {SECONDS:.0f} s, {seen.answered} answers, "
                    f"{len(seen.wrong)} wrong, probes {found.probes}, RSS {found.rss_mib[-1]:.0f} MiB",
                    flush=True,
                )
            await asyncio.sleep(PROBE_EVERY)
    found.answers = seen.answered


def slope(values: list[float], seconds: float) -> float:
    """Growth a minute over the second half, by the least-squares line (robust against single samples)."""
    half = values[len(values) // 2 :]
    if len(half) < 3:
        return 0.0
    times = [position * seconds / len(values) / 60 for position in range(len(half))]
    return statistics.linear_regression(times, half).slope


def test_ten_minutes_of_saturation_are_without_a_false_alarm_or_a_wrong_answer(server: Server) -> None:
    found = Findings(tasks_before=len(server.tasks()))
    try:
        asyncio.run(soak(server, found))
        idle(server)
        found.tasks_after = len(server.tasks())
        found.memory_slope = slope(found.rss_mib, found.seconds)
    finally:
        print(json.dumps(report(found)), flush=True)

    assert found.wrong == []
    assert set(found.probes) == {f"{path} 200" for path in PROBES}
    assert set(found.progress) == {"Busy"}
    assert found.answers > CLIENTS
    assert server.stats()["engine"]["restarts"] == 0
    assert found.memory_slope < MEMORY_SLOPE
    assert max(found.descriptors) - min(found.descriptors) <= CLIENTS + 8
    assert max(found.threads) - min(found.threads) <= 8
    assert found.tasks_after <= found.tasks_before + 8
    assert [line for line in server.log() if line.get("status", 200) >= 500] == []


def report(found: Findings) -> dict[str, Any]:
    """The findings without the samples in between."""
    shown = asdict(found)
    for name in ("rss_mib", "descriptors", "threads"):
        values = shown[name]
        shown[name] = {"first": values[0], "last": values[-1], "most": max(values)} if values else None
    return shown
