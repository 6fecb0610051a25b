"""Events are few, complete, and never in the way."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from agent_operator.core.plan import Event
from agent_operator.observability.metrics import Metrics
from agent_operator.shell.kube import UnavailableError
from agent_operator.shell.recorder import BURST, REFILL_SECONDS, REPEAT_SECONDS, Recorder
from tests.fakes.kube import FakeApiServer

AGENT_OBJECT = {
    "apiVersion": "agentoperator.dev/v1alpha1",
    "kind": "AgentDeployment",
    "metadata": {"name": "geo", "namespace": "ns", "uid": "u1"},
}


class Bench:
    def __init__(self) -> None:
        self.server = FakeApiServer()
        self.metrics = Metrics()
        self.time = 0.0
        self.recorder = Recorder(
            self.server.client(), self.metrics, instance="pod-1",
            clock=lambda: self.time, now=lambda: datetime(2026, 1, 2, 3, 4, 5, 678, UTC),
        )  # fmt: skip

    def record(self, *events: Event) -> list[dict[str, Any]]:
        before = set(self.server.objects)
        asyncio.run(self.recorder.record(AGENT_OBJECT, events))
        return [obj for position, obj in self.server.objects.items() if position not in before]

    def count(self, result: str) -> float | None:
        return self.metrics.registry.get_sample_value("agentoperator_events_total", {"result": result})


def test_an_event_says_who_saw_what_about_which_object() -> None:
    (posted,) = Bench().record(Event("Warning", "ModelNotFound", "no model at /models/model"))
    assert posted["metadata"]["namespace"] == "ns"
    assert posted["regarding"]["uid"] == "u1"
    assert posted["type"] == "Warning"
    assert posted["reason"] == "ModelNotFound"
    assert posted["note"] == "no model at /models/model"
    assert posted["eventTime"] == "2026-01-02T03:04:05.000678Z"
    assert posted["reportingController"] == "agentoperator.dev/agent-operator"
    assert posted["reportingInstance"] == "pod-1"
    assert posted["action"] == "Reconcile"


def test_the_same_event_is_told_again_only_after_an_hour() -> None:
    bench = Bench()
    event = Event("Normal", "Created", "x")
    assert len(bench.record(event)) == 1
    assert bench.record(event) == []
    bench.time = REPEAT_SECONDS
    assert len(bench.record(event)) == 1
    assert bench.count("repeated") == 1


def test_one_object_may_tell_a_burst_and_then_a_trickle() -> None:
    bench = Bench()
    flood = [Event("Normal", "Created", f"number {n}") for n in range(3 * BURST)]
    assert len(bench.record(*flood)) == BURST
    bench.time = 2.5 * REFILL_SECONDS
    later = [Event("Normal", "Created", f"later {n}") for n in range(10)]
    assert len(bench.record(*later)) == 2


def test_a_long_note_is_cut_to_what_the_api_accepts() -> None:
    (posted,) = Bench().record(Event("Normal", "Created", "x" * 5000))
    assert len(posted["note"]) == 1024


def test_a_server_that_does_not_answer_is_counted_and_forgotten() -> None:
    bench = Bench()
    bench.server.fail("create", "Event", UnavailableError("down"))
    assert bench.record(Event("Normal", "Created", "x")) == []
    assert bench.count("failed") == 1
