"""What a pod says about itself: compact, versioned, and true."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from agent_runtime.contract import Parameters
from agent_runtime.llm.base import Result, Sampling
from agent_runtime.observability.metrics import Metrics
from agent_runtime.observability.recorder import Recorder
from agent_runtime.stats import (
    DownloadFacts,
    GpuFacts,
    LoadFacts,
    ModelFacts,
    ProcessFacts,
    Stats,
)
from tests.model.training import REPOSITORY


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recorder(clock: Clock) -> Recorder:
    return Recorder(Metrics("geo"), "geo", clock=clock)


def full(recorder: Recorder) -> Stats:
    return Stats(
        name="geography",
        revision="abcd1234",
        state="READY",
        since=1_700_000_000.5,
        reason="serving",
        uptime_seconds=12.5,
        model=ModelFacts(served_name="geo", architecture="T5", device="cuda:0", dtype="bfloat16"),
        load=LoadFacts(running=3, waiting=2, queued_tokens=77, rows=3, rows_possible=16),
        rates=recorder.rates(),
        latency=recorder.latency(),
        process=ProcessFacts(
            rss_bytes=1,
            gpus=(GpuFacts(index=0, name="H100", memory_used_bytes=1, memory_bytes=2, utilization=0.5),),
        ),
        load_phases={"weights": 1.5},
        download=DownloadFacts(source="hf://google/flan-t5-xl", bytes_done=5),
        parameters=Parameters(max_concurrency=3),
    )


def test_the_record_survives_its_way_to_the_operator(recorder: Recorder) -> None:
    stats = full(recorder)

    encoded = stats.encode()

    assert Stats.decode(encoded) == stats
    assert json.loads(encoded)["v"] == 1
    assert b": " not in encoded and len(encoded) < 2000, "compact"


def test_a_reader_ignores_fields_of_a_later_runtime(recorder: Recorder) -> None:
    later = json.loads(full(recorder).encode())
    later["surprise"] = 1
    later["engine"]["surprise"] = {"a": 1}

    assert Stats.decode(json.dumps(later)) == full(recorder)


@pytest.mark.parametrize("text", ["", "no", "{}", '{"v": 2, "state": "READY"}'])
def test_what_is_no_record_of_this_version_is_told_from_one(text: str) -> None:
    assert Stats.decode(text) is None


def test_rates_are_of_the_last_ten_seconds_and_latencies_of_the_last_minute(
    recorder: Recorder, clock: Clock
) -> None:
    for _ in range(20):
        record = recorder.request("chat", Sampling(4), 10)
        clock.now += 0.5
        record.piece()
        recorder.stepped(1, 0.01)
        clock.now += 0.5
        record.piece()
        recorder.stepped(1, 0.01)
        record.finished(Result("x", "stop", 10, 2))
        recorder.error_answered(429, "queue_full")
    recorder.error_answered(500, "generation_failed")
    recorder.error_answered(400, "invalid_value")

    rates, latency = recorder.rates(), recorder.latency()

    assert rates.requests == pytest.approx(1, rel=0.11)
    assert rates.prompt_tokens == pytest.approx(10, rel=0.11)
    assert rates.generated_tokens == pytest.approx(2, rel=0.11)
    assert rates.refused == pytest.approx(1, rel=0.11)
    assert rates.failures > 0
    assert latency.first_token.count == latency.end_to_end.count == 20
    assert latency.first_token.p99 == pytest.approx(0.5, rel=0.021)
    assert latency.inter_token.p50 == pytest.approx(0.5, rel=0.021)
    assert latency.end_to_end.p95 == pytest.approx(1.0, rel=0.021)

    clock.now += 11
    assert recorder.rates().requests == 0.0 and recorder.latency().first_token.count == 20
    clock.now += 60
    assert recorder.latency().first_token.count == 0 and recorder.latency().first_token.p50 is None


def test_the_record_is_light_for_the_operator() -> None:
    """It may import pydantic and nothing of the runtime but the contract."""
    program = (
        "import sys, agent_runtime.stats\n"
        "heavy = {'torch', 'transformers', 'starlette', 'prometheus_client', 'uvicorn', 'numpy'}\n"
        "ours = {name for name in sys.modules if name.startswith('agent_runtime')}\n"
        "print(sorted(heavy & set(sys.modules)), sorted(ours))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[] ['agent_runtime', 'agent_runtime.contract', 'agent_runtime.stats']"
