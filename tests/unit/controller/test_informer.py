"""News becomes keys; what is not news costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from agent_operator.controller.cache import Cache
from agent_operator.controller.informer import Informer
from agent_operator.controller.queue import WorkQueue
from agent_operator.controller.resync import resync
from agent_operator.observability.metrics import Metrics
from agent_operator.shell.kinds import AGENT, SCALED_OBJECT, SERVICE, WATCHED, Kind, selector_of, watched
from agent_operator.shell.kube import NotFoundError, UnavailableError
from agent_operator.shell.snapshots import Key, index_values, key_of, unseen
from tests.fakes.kube import FakeApiServer
from tests.fakes.virtual_time import run_virtual

GEO = Key("ns", "geo")


def agent(name: str = "geo", namespace: str = "ns") -> dict[str, Any]:
    return {
        "apiVersion": AGENT.api_version,
        "kind": AGENT.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {},
    }


def child(labels: dict[str, str], *, owner: str = "") -> dict[str, Any]:
    reference = {"apiVersion": AGENT.api_version, "kind": AGENT.kind, "name": owner, "uid": "x"}
    owners = [{**reference, "controller": True}] if owner else []
    meta = {"name": "web", "namespace": "ns", "labels": labels, "ownerReferences": owners}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta}


class Bench:
    """An informer that watches a fake server."""

    def __init__(self, *namespaces: str, kinds: Sequence[Kind] = WATCHED) -> None:
        self.server = FakeApiServer()
        self.kube = self.server.client()
        self.cache = Cache(index_values=index_values)
        self.queue: WorkQueue[Key] = WorkQueue(Metrics(), jitter=lambda: 0.0)
        self.informer: Informer[Key] = Informer(
            self.cache, self.queue, Metrics(),
            key_of=key_of, kinds=kinds, selector_of=selector_of, namespaces=namespaces,
            optional=(SCALED_OBJECT,), unseen=unseen,
        )  # fmt: skip

    def watch(self) -> None:
        def on_event(event: str, obj: dict[str, Any]) -> None:
            (self.informer.observe_deleted if event == "DELETED" else self.informer.observe)(obj)

        self.server.watch(on_event)

    async def taken(self) -> list[Key]:
        keys = []
        while True:
            try:
                async with asyncio.timeout(0.01):
                    keys.append(await self.queue.get())
            except TimeoutError:
                return keys
            self.queue.done(keys[-1])


def test_the_first_list_fills_the_cache_and_queues_every_agent_once() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.server.add(agent())
        bench.server.add(child({"agentoperator.dev/agent": "geo"}, owner="geo"))
        bench.server.add(agent("other"))
        assert await bench.informer.sync(bench.kube) == 3
        assert bench.informer.synced
        assert sorted(await bench.taken()) == [GEO, Key("ns", "other")]

    run_virtual(scenario())


def test_a_second_list_of_the_same_objects_queues_nothing() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.server.add(agent())
        await bench.informer.sync(bench.kube)
        await bench.taken()
        for obj in (await bench.kube.list(AGENT)).objects:
            bench.informer.observe(obj, listed=True)
        assert await bench.informer.sync(bench.kube) == 0
        assert await bench.taken() == []

    run_virtual(scenario())


def test_a_changed_and_a_deleted_child_queue_their_owner() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.watch()
        bench.server.add(child({"agentoperator.dev/agent": "geo"}, owner="geo"))
        assert await bench.taken() == [GEO]
        bench.server.drop(SERVICE, "ns", "web")
        assert await bench.taken() == [GEO]

    run_virtual(scenario())


def test_a_child_whose_owner_reference_was_removed_still_reaches_its_agent_by_label() -> None:
    assert key_of(child({"agentoperator.dev/agent": "geo"})) == GEO
    assert key_of(child({})) is None


def test_unlabelled_services_of_other_people_are_neither_listed_nor_cached() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.server.add(child({"app": "something"}))
        await bench.informer.sync(bench.kube)
        assert bench.cache.count(SERVICE) == 0

    run_virtual(scenario())


def test_in_namespaced_mode_only_these_namespaces_are_listed() -> None:
    async def scenario() -> None:
        bench = Bench("ns", "third")
        for namespace in ("ns", "second", "third"):
            bench.server.add(agent(namespace=namespace))
        await bench.informer.sync(bench.kube)
        assert sorted(await bench.taken()) == [GEO, Key("third", "geo")]

    run_virtual(scenario())


def test_a_kind_that_is_optional_may_be_unknown_to_the_api_server(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        bench = Bench(kinds=watched(keda=True))
        bench.server.add(agent())
        bench.server.fail("list", "ScaledObject", NotFoundError("the server could not find it"), times=1)
        assert await bench.informer.sync(bench.kube) == 1
        assert bench.informer.synced
        assert await bench.taken() == [GEO]

    run_virtual(scenario())
    assert "ScaledObject of keda.sh/v1alpha1 is not installed" in caplog.text


def test_after_a_list_agents_nobody_has_looked_at_come_first() -> None:
    async def scenario() -> None:
        bench = Bench()
        for number in range(5):
            seen = agent(f"seen-{number}")
            seen["metadata"]["generation"] = 1
            bench.server.add({**seen, "status": {"observedGeneration": 1}})
        fresh = agent("zz-new")
        fresh["metadata"]["generation"] = 1
        bench.server.add(fresh)
        await bench.informer.sync(bench.kube)
        assert (await bench.taken())[0] == Key("ns", "zz-new")

    run_virtual(scenario())


def test_news_of_a_list_that_broke_off_is_not_forgotten() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.server.add(agent())
        bench.server.fail("list", "Service", UnavailableError("down"), times=1)
        with pytest.raises(UnavailableError):
            await bench.informer.sync(bench.kube)
        assert await bench.taken() == [], "not before all kinds are known"
        await bench.informer.sync(bench.kube)
        assert await bench.taken() == [GEO]

    run_virtual(scenario())


def test_a_kind_that_is_needed_may_not() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.server.fail("list", "AgentDeployment", NotFoundError("the server could not find it"), times=1)
        with pytest.raises(NotFoundError):
            await bench.informer.sync(bench.kube)
        assert not bench.informer.synced

    run_virtual(scenario())


def test_resync_finds_a_deletion_that_no_watch_told() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.server.add(agent())
        await bench.informer.sync(bench.kube)
        await bench.taken()
        bench.server.drop(AGENT, "ns", "geo")  # nobody watches
        task = asyncio.create_task(resync(bench.kube, bench.informer, bench.queue, list, period=600))
        await asyncio.sleep(40)
        task.cancel()
        assert bench.cache.get(AGENT, *GEO) is None
        assert await bench.taken() == [GEO]

    run_virtual(scenario())


def test_resync_spreads_all_keys_over_its_period() -> None:
    async def scenario() -> list[float]:
        bench = Bench()
        keys = [Key("ns", f"agent-{n}") for n in range(100)]
        task = asyncio.create_task(resync(bench.kube, bench.informer, bench.queue, lambda: keys, period=600))
        times = []
        seen: set[Key] = set()
        while len(seen) < 100:
            key = await bench.queue.get()
            seen.add(key)
            times.append(asyncio.get_running_loop().time())
            bench.queue.done(key)
        task.cancel()
        return times

    times = run_virtual(scenario())
    busiest = max(sum(start <= t < start + 60 for t in times) for start in range(0, 1300, 60))
    assert busiest < 40, "a wave, not a trickle"


def test_resync_survives_an_api_server_that_cannot_list() -> None:
    async def scenario() -> bool:
        bench = Bench()
        bench.server.fail("list", "Pod", UnavailableError("down"), times=2)
        task = asyncio.create_task(resync(bench.kube, bench.informer, bench.queue, list, period=600))
        await asyncio.sleep(100)
        task.cancel()
        return bench.informer.synced

    assert run_virtual(scenario())
