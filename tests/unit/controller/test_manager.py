"""Start and stop in the right order, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from agent_operator.controller.cache import Cache
from agent_operator.controller.informer import Informer
from agent_operator.controller.leader import LeaderElector, LeadershipLostError
from agent_operator.controller.manager import DRAIN_SECONDS, EndedError, Manager, Parts
from agent_operator.controller.queue import WorkQueue
from agent_operator.controller.worker import Workers
from agent_operator.observability.metrics import Metrics
from agent_operator.shell.kinds import AGENT, LEASE, WATCHED, selector_of
from agent_operator.shell.kube import NotFoundError
from agent_operator.shell.snapshots import Key, key_of
from tests.fakes.kube import FakeApiServer
from tests.fakes.virtual_time import run_virtual


@dataclass
class Done:
    retry: bool = False
    requeue_after: float | None = None
    patient: bool = False
    repeated: bool = False


class Bench:
    """A manager over a fake server whose watch does nothing; `diary` says what happened when."""

    def __init__(self, server: FakeApiServer | None = None, *, work_seconds: float = 1.0) -> None:
        self.server = server or FakeApiServer()
        self.kube = self.server.client()
        self.diary: list[str] = []
        self.stopping = asyncio.Event()
        self.work_seconds = work_seconds
        self.watch: Callable[[], Awaitable[None]] = self._for_ever
        metrics = Metrics()
        self.queue: WorkQueue[Key] = WorkQueue(metrics)
        self.elector = LeaderElector(self.kube, namespace="ops", name="lease", identity=f"me-{id(self)}")
        self.manager = Manager(
            Parts(
                kube=self.kube,
                informer=Informer(
                    Cache(), self.queue, metrics,
                    key_of=key_of, kinds=WATCHED, selector_of=selector_of, namespaces=(),
                ),
                queue=self.queue,
                workers=Workers(self.queue, self._reconcile, metrics, count=2, timeout=60),
                watch=lambda: self.watch(),  # noqa: PLW0108 - a test replaces it later
                resync=self._for_ever,
                elector=self.elector,
                on_leading=lambda leads: self.diary.append(f"leading {leads}"),
            )
        )  # fmt: skip

    async def _reconcile(self, key: Key) -> Done:
        self.diary.append(f"begin {key.name}")
        await asyncio.sleep(self.work_seconds)
        self.diary.append(f"end {key.name} leading={self.elector.leads()}")
        return Done()

    async def _for_ever(self) -> None:
        await asyncio.Event().wait()

    def start(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.manager.run(self.stopping))


def agent(name: str) -> dict[str, object]:
    meta = {"name": name, "namespace": "ns"}
    return {"apiVersion": AGENT.api_version, "kind": AGENT.kind, "metadata": meta, "spec": {}}


def holder(server: FakeApiServer) -> str:
    return str(server.objects[LEASE, "ops", "lease"]["spec"]["holderIdentity"])


def test_work_begins_after_the_lease_and_the_lists_and_ends_before_the_lease_is_released() -> None:
    async def scenario() -> None:
        bench = Bench(work_seconds=8)
        bench.server.add(agent("geo"))
        running = bench.start()
        await asyncio.sleep(5)
        assert [entry[0] for entry in bench.server.log[:3]] == ["get", "create", "list"]
        bench.stopping.set()
        await running
        assert bench.diary == ["leading True", "begin geo", "end geo leading=True", "leading False"]
        assert holder(bench.server) == ""

    run_virtual(scenario())


def test_stopping_does_not_wait_for_ever_for_a_slow_reconcile() -> None:
    async def scenario() -> float:
        bench = Bench(work_seconds=50)
        bench.server.add(agent("geo"))
        running = bench.start()
        await asyncio.sleep(5)
        bench.stopping.set()
        await running
        return asyncio.get_running_loop().time()

    assert run_virtual(scenario()) <= 5 + DRAIN_SECONDS + 1


def test_a_standby_works_on_nothing_and_has_no_problem_until_it_leads() -> None:
    async def scenario() -> None:
        server = FakeApiServer()
        server.add(agent("geo"))
        leader, standby = Bench(server), Bench(server)
        first = leader.start()
        await asyncio.sleep(1)
        second = standby.start()
        await asyncio.sleep(60)
        assert standby.diary == []
        assert standby.manager.problem == ""
        leader.stopping.set()
        await first
        await asyncio.sleep(10)
        assert "begin geo" in standby.diary
        standby.stopping.set()
        await second

    run_virtual(scenario())


def test_a_standby_stops_at_once() -> None:
    async def scenario() -> float:
        server = FakeApiServer()
        leader, standby = Bench(server), Bench(server)
        first = leader.start()
        await asyncio.sleep(1)
        second = standby.start()
        await asyncio.sleep(20)
        standby.stopping.set()
        await second
        at = asyncio.get_running_loop().time()
        assert holder(server) == leader.elector.identity
        leader.stopping.set()
        await first
        return at

    assert run_virtual(scenario()) == pytest.approx(21)


def test_losing_the_lease_ends_the_manager_within_the_renew_deadline() -> None:
    async def scenario() -> float:
        bench = Bench()
        running = bench.start()
        await asyncio.sleep(5)
        bench.kube.down = True
        with pytest.raises(LeadershipLostError):
            await running
        assert bench.diary[-1] == "leading False"
        return asyncio.get_running_loop().time()

    assert run_virtual(scenario()) <= 5 + 10.1


def test_watches_that_end_by_themselves_end_the_manager() -> None:
    async def scenario() -> None:
        bench = Bench()

        async def broken() -> None:
            await asyncio.sleep(3)

        bench.watch = broken
        with pytest.raises(EndedError, match="watch"):
            await bench.start()
        assert holder(bench.server) == ""

    run_virtual(scenario())


def test_without_the_crd_the_leader_says_so_and_starts_as_soon_as_it_exists() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.server.fail(
            "list", AGENT.kind, NotFoundError("the server could not find the resource"), times=3
        )
        running = bench.start()
        await asyncio.sleep(1)
        assert "CRD" in bench.manager.problem
        await asyncio.sleep(30)
        assert bench.manager.problem == ""
        assert bench.elector.leads()
        bench.stopping.set()
        await running

    run_virtual(scenario())
