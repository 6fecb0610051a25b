"""What the operator and Prometheus are told, and how a gateway stops."""

from __future__ import annotations

import asyncio
import time

import aiohttp

from agent_operator.api.gateway import Demand
from agent_operator.gateway.metrics import OUTCOMES
from tests.support.gateway import (
    Client,
    Running,
    Seen,
    ask,
    endpoint,
    free_port,
    our_slice,
    quick,
    replica,
    running,
    until,
)


async def demand(it: Running, **query: str) -> Demand:
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{it.control.port}/demand"
        async with session.get(url, params=query) as answer:
            found = Demand.decode(await answer.read())
    assert found is not None
    return found


async def get(it: Running, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{it.control.port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def test_the_first_held_request_answers_whoever_asks_for_demand() -> None:
    async with running() as it, replica() as pod:
        idle = await demand(it)
        assert idle.agents == {}
        asking = asyncio.create_task(demand(it, wait="30", since=idle.version))
        await asyncio.sleep(0.05)
        assert not asking.done()
        asked = asyncio.create_task(ask(it, b"x" * 100))
        found = await asyncio.wait_for(asking, 10)
        assert found.version != idle.version
        assert found.agents["team/geo"].held == 1
        assert found.agents["team/geo"].held_bytes > 100
        again = asyncio.create_task(demand(it, wait="30", since=found.version))
        await it.pods(pod.port, endpoint("127.0.0.1", "one"))
        await asked
        served = await asyncio.wait_for(again, 10)
        assert served.agents["team/geo"].held == 0
        assert served.agents["team/geo"].held_total == 1


async def test_without_news_demand_answers_when_the_wait_is_over() -> None:
    async with running() as it:
        first = await demand(it)
        begun = time.monotonic()
        second = await demand(it, wait="0.2", since=first.version)
        assert second.version == first.version
        assert time.monotonic() - begun >= 0.2


async def test_somebody_who_missed_a_change_is_answered_at_once() -> None:
    async with running() as it:
        first = await demand(it)
        asked = asyncio.create_task(ask(it))
        await until("it is held", lambda: len(it.lane.queue))
        found = await asyncio.wait_for(demand(it, wait="60", since=first.version), 10)
        assert found.agents["team/geo"].held == 1
        assert (await asyncio.wait_for(demand(it, wait="60"), 10)).agents["team/geo"].held == 1
        asked.cancel()


async def test_every_metric_is_there_by_its_name() -> None:
    async with running() as it, replica() as pod:
        asked = asyncio.create_task(ask(it))
        await until("it is held", lambda: len(it.lane.queue))
        _, text = await get(it, "/metrics")
        assert 'agentoperator_gateway_held_requests{agent="team/geo"} 1.0' in text
        await it.pods(pod.port, endpoint("127.0.0.1", "one"))
        await asked
        _, text = await get(it, "/metrics")
        names = {
            line.split("{")[0] for line in text.splitlines() if line.startswith("agentoperator_gateway_")
        }
        assert names == {
            "agentoperator_gateway_held_requests", "agentoperator_gateway_held_bytes",
            "agentoperator_gateway_in_flight_requests", "agentoperator_gateway_ready_pods",
            "agentoperator_gateway_client_connections", "agentoperator_gateway_held_total",
            "agentoperator_gateway_passed_total", "agentoperator_gateway_upstream_errors_total",
            *(f"agentoperator_gateway_{outcome}_total" for outcome in OUTCOMES),
            *(f"agentoperator_gateway_hold_seconds_{part}" for part in ("bucket", "count", "sum")),
        }  # fmt: skip
        assert 'agentoperator_gateway_released_total{agent="team/geo"} 1.0' in text
        assert 'agentoperator_gateway_hold_seconds_count{agent="team/geo"} 1.0' in text


async def test_stopping_refuses_who_waits_lets_replicas_finish_and_takes_nobody_new() -> None:
    go = asyncio.Event()

    async def waiting(seen: Seen) -> None:
        await go.wait()
        await seen.answer(b"done")

    async with running(capacity_per_replica=1) as it, replica(waiting) as pod:
        # One is held first, so the line is kept although there is a pod.
        held = [asyncio.create_task(ask(it)) for _ in range(3)]
        await until("three wait", lambda: len(it.lane.queue) == 3)
        await it.pods(pod.port, endpoint("127.0.0.1", "one"))
        await until("one is at the replica", lambda: pod.seen)
        assert len(it.lane.queue) == 2
        stopping = asyncio.create_task(it.gateway.stop(delay=0.2, drain=30))
        await asyncio.sleep(0.05)
        assert (await get(it, "/readyz"))[0] == 503
        assert (await get(it, "/healthz"))[0] == 200
        late = asyncio.create_task(ask(it))
        await until("served on for a while", lambda: len(it.lane.queue) == 3)
        await until("who waits is refused", lambda: sum(one.done() for one in (*held, late)) == 3)
        go.set()
        answers = await asyncio.gather(*held, late)
        assert sorted(one.status for one in answers) == [200, 503, 503, 503]
        refused = [one for one in answers if one.status == 503]
        assert {one.error["code"] for one in refused} == {"gateway_stopping"}
        assert {one.headers["retry-after"] for one in refused} == {"1"}
        await asyncio.wait_for(stopping, 10)
        try:
            await Client.to(it)
        except ConnectionRefusedError:
            return
        raise AssertionError("the port is still open")


async def test_two_agents_have_two_ports_and_a_port_in_use_is_told_not_taken() -> None:
    async with running() as it, replica(quick) as pod:
        await it.pods(pod.port, endpoint("127.0.0.1", "one"))
        other = it.route.model_copy(update={"agent": "sky", "backend_service": "sky"})
        it.informer.observe(our_slice(other, it.port))
        await asyncio.sleep(0.05)
        assert len(list(it.gateway.directory.lanes())) == 1
        assert (await ask(it)).status == 200


async def test_a_slice_that_names_another_namespace_is_not_obeyed() -> None:
    async with running() as it:
        thief = it.route.model_copy(update={"agent": "thief", "namespace": "bank", "api_keys_secret": "keys"})
        it.informer.observe(our_slice(thief, free_port()))
        await asyncio.sleep(0.05)
        assert [lane.route.agent for lane in it.gateway.directory.lanes()] == ["geo"]
