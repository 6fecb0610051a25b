"""In mode Always every request passes here, to the pod that fits it best."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from tests.support.gateway import Client, Seen, ask, endpoint, free_port, replica, running, until


def conversation(number: int, turns: int = 1) -> bytes:
    messages = [{"role": "user", "content": f"question {number}"}]
    messages += [{"role": "assistant", "content": "a"}, {"role": "user", "content": "more"}] * (turns - 1)
    return json.dumps({"model": "geo", "messages": messages}).encode()


async def test_the_turns_of_a_conversation_go_to_one_pod() -> None:
    async with (
        running(mode="Always") as it,
        replica() as one,
        replica(host="127.0.0.2", port=one.port) as two,
    ):
        await it.pods(one.port, endpoint("127.0.0.1", "one"), endpoint("127.0.0.2", "two"))
        for turn in range(1, 5):
            for number in range(19):
                assert (await ask(it, conversation(number, turn))).status == 200
        homes = [{json.loads(seen.body)["messages"][0]["content"] for seen in pod.seen} for pod in (one, two)]
        assert not homes[0] & homes[1]
        assert min(map(len, homes)) >= 3


async def test_a_body_that_comes_in_pieces_is_waited_for_and_passed_whole() -> None:
    async with (
        running(mode="Always") as it,
        replica() as one,
        replica(host="127.0.0.2", port=one.port) as two,
    ):
        await it.pods(one.port, endpoint("127.0.0.1", "one"), endpoint("127.0.0.2", "two"))
        body = conversation(7)
        client = await Client.to(it)
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body))
        for byte in body:
            client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.answer()).status == 200
        assert [seen.body for seen in (*one.seen, *two.seen)] == [body]


async def test_without_a_common_beginning_load_decides() -> None:
    go = asyncio.Event()

    async def waiting(seen: Seen) -> None:
        await go.wait()
        await seen.answer()

    async with (
        running(mode="Always") as it,
        replica(waiting) as one,
        replica(waiting, host="127.0.0.2", port=one.port) as two,
    ):
        await it.pods(one.port, endpoint("127.0.0.1", "one"), endpoint("127.0.0.2", "two"))
        asked = [asyncio.create_task(ask(it)) for _ in range(10)]
        await until("all are there", lambda: len(one.seen) + len(two.seen) == 10)
        assert len(one.seen) == len(two.seen) == 5
        go.set()
        await asyncio.gather(*asked)
        assert it.empty()


async def test_what_others_gave_a_pod_counts_too() -> None:
    async def stats(request: web.Request) -> web.Response:
        busy = 50 if request.url.host == "127.0.0.1" else 0
        record = {"state": "READY", "since": 0, "uptime_seconds": 1, "model": {"served_name": "geo"}}
        return web.json_response({**record, "load": {"running": busy, "waiting": 0}})

    app = web.Application()
    app.router.add_get("/stats", stats)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    for host in ("127.0.0.1", "127.0.0.2"):
        await web.TCPSite(runner, host, port).start()
    async with (
        running(mode="Always", admin_port=port) as it,
        replica() as one,
        replica(host="127.0.0.2", port=one.port) as two,
    ):
        await it.pods(one.port, endpoint("127.0.0.1", "one"), endpoint("127.0.0.2", "two"))
        await ask(it)
        await until("it was asked", lambda: any(pod.others for pod in it.lane.replicas))
        before = len(one.seen)
        for number in range(10):
            await ask(it, conversation(number))
        assert len(one.seen) == before
        assert len(two.seen) >= 10
    await runner.cleanup()
