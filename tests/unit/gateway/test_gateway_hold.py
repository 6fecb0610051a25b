"""Requests for an agent without pods wait, within bounds, and are released when there are some."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from agent_runtime.api_keys import new_key
from tests.support.gateway import Client, Seen, ask, endpoint, our_slice, replica, running, until


async def test_a_thousand_held_requests_are_all_answered_once_there_is_a_pod_and_never_too_many_at_once() -> (
    None
):
    async def slow(seen: Seen) -> None:
        await asyncio.sleep(0.005)
        await seen.answer(seen.body)

    async with running(capacity_per_replica=16, max_held_requests=1000) as it, replica(slow) as pod:
        asked = [asyncio.create_task(ask(it, b'{"n":%d}' % n)) for n in range(1000)]
        await until("all are held", lambda: len(it.lane.queue) == 1000)
        assert it.lane.queue.size > 1000 * 10
        await it.pods(pod.port, endpoint("127.0.0.1", "one"))
        answers = await asyncio.gather(*asked)
        assert [one.status for one in answers] == [200] * 1000
        assert [json.loads(one.body)["n"] for one in answers] == list(range(1000))
        assert pod.most <= 16
        assert len(pod.seen) == 1000
        assert it.empty()
        assert it.lane.outcomes["released"] == 1000


async def test_who_was_held_and_is_declined_by_a_full_pod_waits_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_operator.gateway.replicas.REST_SECONDS", 0.02)
    inside = 0

    async def small(seen: Seen) -> None:
        nonlocal inside
        if inside >= 10:
            await seen.answer(b'{"error":{}}', "429 Too Many Requests", retry_after="6")
            return
        inside += 1
        await asyncio.sleep(0.005)
        inside -= 1
        await seen.answer(seen.body)

    async with running(capacity_per_replica=80, max_held_requests=300) as it, replica(small) as pod:
        asked = [asyncio.create_task(ask(it, b'{"n":%d}' % n)) for n in range(300)]
        await until("all are held", lambda: len(it.lane.queue) == 300)
        await it.pods(pod.port, endpoint("127.0.0.1", "one"))
        answers = await asyncio.gather(*asked)
        assert [one.status for one in answers] == [200] * 300
        assert it.lane.upstream_errors["declined"] > 0
        assert it.empty()


async def test_the_first_to_come_is_the_first_to_be_released() -> None:
    async with running(capacity_per_replica=1) as it, replica() as pod:
        asked = []
        for number in range(20):
            asked.append(asyncio.create_task(ask(it, b"%d" % number)))
            await until("it is held", lambda: len(it.lane.queue) == number + 1)  # noqa: B023
        await it.pods(pod.port, endpoint("127.0.0.1", "one"))
        await asyncio.gather(*asked)
        assert [seen.body for seen in pod.seen] == [b"%d" % number for number in range(20)]


async def test_beyond_the_bound_every_request_is_refused_and_told_when_to_come_again() -> None:
    async with running(max_held_requests=10) as it, replica() as pod:
        held = [asyncio.create_task(ask(it)) for _ in range(10)]
        await until("ten are held", lambda: len(it.lane.queue) == 10)
        refused = await asyncio.gather(*(ask(it) for _ in range(50)))
        assert {one.status for one in refused} == {503}
        assert all(int(one.headers["retry-after"]) >= 1 for one in refused)
        assert {one.error["code"] for one in refused} == {"hold_queue_full"}
        await it.pods(pod.port, endpoint("127.0.0.1", "one"))
        assert {one.status for one in await asyncio.gather(*held)} == {200}
        assert it.lane.outcomes["refused"] == 50


async def test_bytes_are_bounded_too_also_of_bodies_that_do_not_say_how_long_they_are() -> None:
    async with running(max_held_bytes=4096) as it:
        large = await ask(it, b"x" * 5000)
        assert (large.status, large.error["code"]) == (503, "hold_queue_full")
        client = await Client.to(it)
        client.send(
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3e8\r\n" + b"x" * 1000 + b"\r\n"
        )
        await until("it is held", lambda: it.lane.queue.size > 1000)
        client.send(b"1388\r\n" + b"x" * 5000 + b"\r\n")
        assert (await client.answer()).status == 503
        assert it.empty()


async def test_a_request_whose_time_is_over_gets_503_and_leaves_the_line() -> None:
    async with running(hold_seconds=30) as it:
        answer = await ask(it, X_Request_Timeout_Seconds="0.05")
        assert (answer.status, answer.error["code"]) == (503, "agent_not_ready")
        assert "retry-after" in answer.headers
        assert it.empty()
        await it.configure(hold_seconds=0.05)
        assert (await ask(it)).status == 503
        assert it.lane.outcomes["expired"] == 2


async def test_what_is_left_of_the_clients_time_is_what_the_replica_is_told() -> None:
    async with running() as it, replica() as pod:
        asked = asyncio.create_task(ask(it, X_Request_Timeout_Seconds="20"))
        await until("it is held", lambda: len(it.lane.queue))
        await asyncio.sleep(0.02)
        await it.pods(pod.port, endpoint("127.0.0.1", "one"))
        assert (await asked).status == 200
        assert 0 < float(pod.seen[0].headers["x-request-timeout-seconds"]) < 20


async def test_clients_that_leave_leave_nothing_behind() -> None:
    async with running() as it, replica() as pod:
        clients = [await Client.to(it) for _ in range(100)]
        for client in clients:
            client.post(b"x" * 1000)
        await until("all are held", lambda: len(it.lane.queue) == 100)
        for client in clients:
            client.leave()
        await until("none is held", it.empty)
        await until("no connection is left", lambda: not it.lane.clients)
        assert it.lane.outcomes["cancelled"] == 100
        await it.pods(pod.port, endpoint("127.0.0.1", "one"))
        assert (await ask(it)).status == 200
        assert len(pod.seen) == 1


async def test_without_a_key_nobody_is_held() -> None:
    key = new_key()
    async with running(api_keys_secret="keys") as it, replica() as pod:
        it.secrets["keys"] = {"data": {"ann": base64.b64encode(key.entry.encode()).decode()}}
        for headers in ({}, {"Authorization": "Bearer wrong-key-0123456789-abcdef"}):
            refused = await ask(it, **headers)
            assert refused.status == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert refused.error["type"] == "invalid_request_error"
        assert it.lane.queue.total == 0
        asked = asyncio.create_task(ask(it, Authorization=f"Bearer {key.key}"))
        await until("the one with a key is held", lambda: len(it.lane.queue) == 1)
        await it.pods(pod.port, endpoint("127.0.0.1", "one"))
        assert (await asked).status == 200
        assert it.reads == 1
        assert (await ask(it)).status == 200, "with a pod the pod decides"


async def test_keys_that_cannot_be_found_admit_nobody() -> None:
    async with running(api_keys_secret="keys") as it:
        assert (await ask(it, Authorization="Bearer whatever-0123456789-abcdef")).status == 401


async def test_a_client_that_waits_for_100_continue_is_told_only_when_it_is_wanted() -> None:
    async with running(max_held_requests=1) as it, replica() as pod:
        first, second = await Client.to(it), await Client.to(it)
        head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n"
        first.send(head)
        assert (await first.head()).status == 100
        second.send(head)
        assert (await second.answer()).status == 503
        await it.pods(pod.port, endpoint("127.0.0.1", "one"))
        first.send(b"hello")
        assert (await first.answer()).status == 200
        assert pod.seen[0].body == b"hello"
        assert "expect" not in pod.seen[0].headers


async def test_an_agent_that_is_deleted_refuses_those_who_wait_and_closes_its_port() -> None:
    async with running() as it:
        asked = asyncio.create_task(ask(it))
        await until("it is held", lambda: len(it.lane.queue))
        it.informer.observe_deleted(our_slice(it.route, it.port))
        assert (await asked).error["code"] == "agent_gone"
        await until("its lane is gone", lambda: not list(it.gateway.directory.lanes()))
