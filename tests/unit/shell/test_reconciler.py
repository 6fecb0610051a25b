"""Look, decide, act; with a scripted core, so only the order and the bookkeeping are judged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from agent_operator.controller.cache import Cache
from agent_operator.core.plan import Apply, Event, Plan, PodReference
from agent_operator.core.snapshot import Defaults, Snapshot
from agent_operator.observability.metrics import Metrics
from agent_operator.shell.execute import Executor
from agent_operator.shell.kinds import AGENT, POD, SERVICE
from agent_operator.shell.kube import ForbiddenError, InvalidError, UnavailableError
from agent_operator.shell.pod_warnings import PodWarnings
from agent_operator.shell.reconciler import NARRATION_SECONDS, Outcome, Reconciler
from agent_operator.shell.recorder import Recorder
from agent_operator.shell.snapshots import Key, index_values
from tests.fakes.kube import FakeApiServer
from tests.fakes.signals import NoSignals

GEO = Key("ns", "geo")


class Bench:
    """One agent and a core that is a function of the snapshot."""

    def __init__(self, decide: Callable[[Snapshot], Plan]) -> None:
        self.server = FakeApiServer()
        self.cache = Cache(index_values=index_values)
        self.seen: list[Snapshot] = []
        self.clock = 0.0
        kube, metrics = self.server.client(), Metrics()

        def remember(snapshot: Snapshot, _: datetime) -> Plan:
            self.seen.append(snapshot)
            return decide(snapshot)

        self.reconciler = Reconciler(
            store=self.cache,
            executor=Executor(kube, self.cache, metrics),
            recorder=Recorder(kube, metrics, instance="test", clock=lambda: 0.0),
            warnings=PodWarnings(kube),
            signals=NoSignals(),
            decide=remember,
            defaults=Defaults(runtime_image="runtime:1"),
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            clock=lambda: self.clock,
        )
        meta = {"name": "geo", "namespace": "ns"}
        self.agent = self.server.add(
            {"apiVersion": AGENT.api_version, "kind": AGENT.kind, "metadata": meta, "spec": {}}
        )
        self.cache.put(self.agent)

    def reconcile(self) -> Outcome:
        self.server.log.clear()
        return asyncio.run(self.reconciler.reconcile(GEO))


def service(snapshot: Snapshot) -> dict[str, Any]:
    meta = snapshot.agent["metadata"]
    owner = {"apiVersion": AGENT.api_version, "kind": AGENT.kind, "name": "geo", "uid": meta["uid"]}
    owners = [{**owner, "controller": True}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "geo", "namespace": "ns", "ownerReferences": owners},
    }


def one_service(snapshot: Snapshot) -> Plan:
    """A core that wants one Service and says in the status whether it was refused."""
    status: dict[str, Any] | None = {"blocked": [f.code for f in snapshot.blocked]}
    if snapshot.agent.get("status") == status:
        status = None
    if snapshot.children:
        return Plan(status=status, urgent=True)
    write = Apply(service(snapshot), None, "missing")
    told = (Event("Normal", "Created", "a Service"),)
    return Plan(writes=(write,), status=status, urgent=True, events=told)


LOOK_ONCE_MORE = Outcome(requeue_after=NARRATION_SECONDS, patient=True)


def test_children_come_first_then_the_status_then_the_events() -> None:
    bench = Bench(one_service)
    assert bench.reconcile() == LOOK_ONCE_MORE
    verbs = [entry[:2] for entry in bench.server.log if entry[0] != "get"]
    assert verbs == [("apply", "Service"), ("apply/status", "AgentDeployment"), ("create", "Event")]


def test_the_second_look_finds_nothing_to_do() -> None:
    bench = Bench(one_service)
    bench.reconcile()
    assert bench.reconcile() == Outcome()
    assert bench.server.log == []


def test_a_restarted_operator_writes_nothing_to_a_finished_agent() -> None:
    bench = Bench(one_service)
    bench.reconcile()
    restarted = Bench(one_service)
    restarted.server.objects = bench.server.objects
    for obj in bench.server.objects.values():
        if obj["kind"] != "Event":
            restarted.cache.put(obj)
    assert restarted.reconcile() == Outcome()
    assert restarted.server.log == []


def test_the_status_tells_the_refusal_it_caused_in_the_same_reconcile() -> None:
    bench = Bench(one_service)
    bench.server.fail("apply", "Service", ForbiddenError("exceeded quota"), times=1)
    assert bench.reconcile() == Outcome(retry=True)
    assert bench.server.objects[AGENT, "ns", "geo"]["status"] == {"blocked": ["Forbidden"]}
    assert [len(s.blocked) for s in bench.seen] == [0, 1]


def test_a_lasting_refusal_writes_the_status_once() -> None:
    bench = Bench(one_service)
    bench.server.fail("apply", "Service", ForbiddenError("exceeded quota"), times=3)
    bench.reconcile()
    for _ in range(2):
        bench.reconcile()
        assert [e for e in bench.server.writes() if e[0] == "apply/status"] == []


def test_a_refusal_that_ended_is_taken_out_of_the_status() -> None:
    bench = Bench(one_service)
    bench.server.fail("apply", "Service", ForbiddenError("exceeded quota"), times=1)
    bench.reconcile()
    bench.reconcile()
    assert (SERVICE, "ns", "geo") in bench.server.objects
    assert bench.server.objects[AGENT, "ns", "geo"]["status"] == {"blocked": []}


def test_what_can_never_be_accepted_is_not_retried() -> None:
    bench = Bench(one_service)
    bench.server.fail("apply", "Service", InvalidError("bad"), times=1)
    assert bench.reconcile() == Outcome(retry=False)


def test_a_stale_view_writes_no_status_and_decides_again() -> None:
    bench = Bench(one_service)
    bench.server.add(service(Snapshot(bench.agent, (), (), Defaults("x"))))
    assert bench.reconcile() == Outcome(retry=True)
    assert bench.server.writes() == []
    assert bench.reconcile().retry is False
    assert [len(s.children) for s in bench.seen] == [0, 1]


def test_an_agent_that_is_gone_needs_nothing() -> None:
    bench = Bench(one_service)
    bench.cache.remove(AGENT, "ns", "geo", uid=bench.agent["metadata"]["uid"])
    assert bench.reconcile() == Outcome()
    assert bench.seen == []


def test_an_event_that_cannot_be_posted_does_not_fail_the_reconcile() -> None:
    bench = Bench(one_service)
    bench.server.fail("create", "Event", ForbiddenError("namespace is terminating"))
    assert bench.reconcile() == LOOK_ONCE_MORE


def progress(snapshot: Snapshot) -> Plan:
    """A core that reports how many children there are, and makes one."""
    status: dict[str, Any] | None = {"children": len(snapshot.children)}
    status = None if snapshot.agent.get("status") == status else status
    write = () if snapshot.children else (Apply(service(snapshot), None, "missing"),)
    return Plan(writes=write, status=status)


def statuses(bench: Bench) -> list[tuple[str, str, str]]:
    return [entry for entry in bench.server.writes() if entry[0] == "apply/status"]


def test_a_report_of_progress_waits_a_second_and_says_what_is_true_by_then() -> None:
    bench = Bench(progress)
    assert bench.reconcile() == LOOK_ONCE_MORE
    assert statuses(bench) == []
    bench.clock = 0.4
    assert bench.reconcile() == Outcome(requeue_after=NARRATION_SECONDS - 0.4, patient=True)
    assert statuses(bench) == []
    bench.clock = 1.0
    assert bench.reconcile() == Outcome()
    assert len(statuses(bench)) == 1
    assert bench.server.objects[AGENT, "ns", "geo"]["status"] == {"children": 1}


def test_a_report_that_became_pointless_is_not_written_and_the_next_one_waits_anew() -> None:
    shown: list[dict[str, Any] | None] = [{"step": 1}, None, {"step": 2}]
    bench = Bench(lambda _: Plan(status=shown.pop(0)))
    assert bench.reconcile() == LOOK_ONCE_MORE
    bench.clock = 0.5
    assert bench.reconcile() == Outcome()
    bench.clock = 5.0
    assert bench.reconcile() == LOOK_ONCE_MORE
    assert statuses(bench) == []


def test_what_is_written_again_for_the_same_spec_is_said_to_be_repeated_and_a_new_spec_is_not() -> None:
    bench = Bench(lambda snapshot: Plan(writes=(Apply(service(snapshot), None, "missing"),)))

    def lose_the_service() -> None:
        bench.server.drop(SERVICE, "ns", "geo")

    assert bench.reconcile().repeated is False
    lose_the_service()
    assert bench.reconcile().repeated is True
    lose_the_service()
    bench.cache.put(bench.server.edit(AGENT, "ns", "geo", lambda agent: agent.update(spec={"replicas": 2})))
    assert bench.reconcile().repeated is False


WAITING = PodReference("ns", "geo-1", "uid-of-geo-1")


def asks_about_a_pod(snapshot: Snapshot) -> Plan:
    """A core that cannot say what a pod waits for without its events."""
    notes = [event["note"] for event in snapshot.warnings]
    return Plan(status={"waits": notes}, urgent=True, inspect=(WAITING,), requeue_after=5.0)


def event(name: str, uid: str, kind: str = "Warning", note: str = 'secret "hub" not found') -> dict[str, Any]:
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "ns"},
        "type": kind,
        "regarding": {"kind": "Pod", "uid": uid},
        "note": note,
    }


def test_the_warnings_about_a_pod_are_read_when_the_core_asks_and_before_the_status_is_written() -> None:
    bench = Bench(asks_about_a_pod)
    bench.server.add(event("a", WAITING.uid))
    bench.server.add(event("b", WAITING.uid, kind="Normal", note="scheduled"))
    bench.server.add(event("c", "uid-of-another", note='secret "other" not found'))
    assert bench.reconcile() == Outcome(requeue_after=5.0)
    assert [e[:2] for e in bench.server.log] == [("list", "Event"), ("apply/status", "AgentDeployment")]
    assert bench.server.objects[AGENT, "ns", "geo"]["status"] == {"waits": ['secret "hub" not found']}
    assert [len(s.warnings) for s in bench.seen] == [0, 1]


def test_without_a_warning_the_first_decision_stands() -> None:
    bench = Bench(asks_about_a_pod)
    bench.reconcile()
    assert len(bench.seen) == 1


def test_without_the_permission_to_read_events_the_decision_is_made_without_them() -> None:
    bench = Bench(asks_about_a_pod)
    bench.server.add(event("a", WAITING.uid))
    bench.server.fail("list", "Event", ForbiddenError("cannot list resource events"))
    assert bench.reconcile() == Outcome(requeue_after=5.0)
    assert bench.server.objects[AGENT, "ns", "geo"]["status"] == {"waits": []}


def test_while_the_api_server_is_away_no_status_is_written_that_the_events_would_contradict() -> None:
    bench = Bench(asks_about_a_pod)
    bench.server.fail("list", "Event", UnavailableError("HTTP 503"))
    with pytest.raises(UnavailableError):
        bench.reconcile()
    assert bench.server.writes() == []


def test_the_snapshot_holds_own_children_and_pods_only_in_a_stable_order() -> None:
    bench = Bench(lambda _: Plan(requeue_after=7.0))
    mine = service(Snapshot(bench.agent, (), (), Defaults("x")))
    for name in ("b", "a"):
        bench.cache.put(bench.server.add({**mine, "metadata": {**mine["metadata"], "name": name}}))
        labels = {"agentoperator.dev/agent": "geo"}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "ns", "labels": labels},
        }
        bench.cache.put(bench.server.add(pod))
    foreign = {**mine, "metadata": {"name": "c", "namespace": "ns"}}
    bench.cache.put(bench.server.add(foreign))
    assert bench.reconcile() == Outcome(requeue_after=7.0)
    snapshot = bench.seen[0]
    assert [c["metadata"]["name"] for c in snapshot.children] == ["a", "b"]
    assert [p["metadata"]["name"] for p in snapshot.pods] == ["a", "b"]
    assert all(p["kind"] == POD.kind for p in snapshot.pods)
    assert snapshot.defaults.runtime_image == "runtime:1"
