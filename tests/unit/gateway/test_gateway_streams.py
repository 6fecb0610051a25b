"""A stream that must wait begins with comments, and the replica's events are joined on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from agent_operator.gateway.core import wake
from tests.support.gateway import Client, Running, Seen, ask, endpoint, free_port, replica, running, until

STREAM = b'{"model":"geo","stream":true,"messages":[]}'


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first comment after 0.05 s instead of 1 s, the same one again after 0.2 s instead of 5 s."""
    monkeypatch.setattr("agent_operator.gateway.lane.COMMENT_SECONDS", 0.05)
    monkeypatch.setattr("agent_operator.gateway.lane.TICK_SECONDS", 0.02)
    monkeypatch.setattr(wake, "COMMENT_SECONDS", 0.05)
    monkeypatch.setattr(wake, "REPEAT_SECONDS", 0.2)


async def begun(it: Running, body: bytes = STREAM) -> Client:
    """A client whose stream has begun with a comment."""
    client = await Client.to(it)
    client.post(body, accept_encoding="gzip")
    head = await client.head()
    assert head.status == 200
    assert head.headers["content-type"].startswith("text/event-stream")
    assert await client.chunk() == b": scheduling\n\n"
    return client


async def rest(client: Client) -> bytes:
    body = b""
    while data := await client.chunk():
        body += data
    return body


async def test_a_held_stream_gets_comments_then_the_replicas_events_and_the_connection_stays() -> None:
    async def events(seen: Seen) -> None:
        await seen.begin_stream()
        for word in ("one", "two", "[DONE]"):
            await seen.event(word)
        await seen.end_stream()

    async with running() as it, replica(events) as pod:
        client = await begun(it)
        assert await client.chunk() == b": scheduling\n\n", "said again after a while"
        await it.pods(pod.port, endpoint("127.0.0.1", "one"))
        assert (await rest(client)).endswith(b"data: one\n\ndata: two\n\ndata: [DONE]\n\n")
        assert "accept-encoding" not in pod.seen[0].headers
        assert it.empty()
        client.post(STREAM)
        second = await client.answer()
        assert second.status == 200
        assert second.body == b"data: one\n\ndata: two\n\ndata: [DONE]\n\n"


@asynccontextmanager
async def stats_of_a_pod(**facts: Any) -> AsyncIterator[int]:
    """What a pod says of itself, on the port given."""
    record = {"since": 0, "uptime_seconds": 1, "model": {"served_name": "geo"}}

    async def stats(request: web.Request) -> web.Response:
        return web.json_response({**record, **facts})

    app = web.Application()
    app.router.add_get("/stats", stats)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield port
    await runner.cleanup()


async def test_a_stream_tells_how_far_the_pod_is() -> None:
    facts = {"source": "hf", "bytes_done": 43, "bytes_total": 100}
    async with stats_of_a_pod(state="LOADING", download=facts) as port, running(admin_port=port) as it:
        client = await begun(it)
        await it.pods(free_port(), endpoint("127.0.0.1", "one", ready=False))
        said = b""
        while said != b": loading 43 %\n\n":
            said = await client.chunk()
        client.leave()
        await until("nothing is left", it.empty)


async def test_who_waits_is_released_to_a_pod_that_says_it_is_ready_before_the_slices_do() -> None:
    async with (
        stats_of_a_pod(state="READY") as port,
        running(admin_port=port) as it,
        replica() as pod,
    ):
        held = asyncio.create_task(ask(it))
        await until("it is held", lambda: len(it.lane.queue) == 1)
        await it.pods(pod.port, endpoint("127.0.0.1", "one", ready=False))
        assert (await held).status == 200
        await it.pods(pod.port, endpoint("127.0.0.1", "one", ready=False, terminating=True))
        await until("its own word counts only while it starts", lambda: it.lane.replicas.ready == [])
        assert it.empty()


async def test_a_pod_that_says_it_is_ready_and_takes_no_connection_is_left_alone() -> None:
    async with stats_of_a_pod(state="READY") as port, running(admin_port=port) as it:
        held = asyncio.create_task(ask(it))
        await until("it is held", lambda: len(it.lane.queue) == 1)
        await it.pods(free_port(), endpoint("127.0.0.1", "one", ready=False))
        await until("it was tried", lambda: it.lane.upstream_errors["connect"] > 0)
        assert it.lane.replicas.ready == []
        assert not held.done(), "the request waits on"
        async with replica() as pod:
            await it.pods(pod.port, endpoint("127.0.0.1", "two"))
            assert (await held).status == 200


async def test_an_error_of_the_replica_becomes_an_event_of_the_stream_that_has_begun() -> None:
    async def failing(seen: Seen) -> None:
        await seen.answer(
            b'{"error":{"message":"too long","code":"context_length_exceeded"}}', "400 Bad Request"
        )

    async with running() as it, replica(failing) as pod:
        client = await begun(it)
        await it.pods(pod.port, endpoint("127.0.0.1", "one"))
        last = (await rest(client)).split(b"data: ")[-1]
        assert json.loads(last)["error"]["code"] == "context_length_exceeded"
        assert it.empty()


async def test_a_deadline_ends_a_begun_stream_with_an_error_event() -> None:
    async with running(hold_seconds=0.3) as it:
        client = await begun(it)
        assert json.loads((await rest(client)).split(b"data: ")[-1])["error"]["code"] == "agent_not_ready"
        assert it.empty()


async def test_a_replica_that_dies_in_the_middle_ends_the_stream_with_an_error_event() -> None:
    async def dying(seen: Seen) -> None:
        await seen.begin_stream()
        await seen.event("one")
        seen.writer.transport.abort()

    async with running() as it, replica(dying) as pod:
        client = await begun(it)
        await it.pods(pod.port, endpoint("127.0.0.1", "one"))
        assert json.loads((await rest(client)).split(b"data: ")[-1])["error"]["code"] == "upstream_closed"
        assert it.empty()


async def test_a_request_that_asks_for_no_stream_keeps_its_status_however_long_it_waits() -> None:
    async with running(hold_seconds=0.3) as it:
        client = await Client.to(it)
        client.post(b'{"stream":false,"messages":[{"content":"say \\"stream\\": true"}]}')
        assert (await client.answer()).status == 503


async def test_an_http_1_0_client_gets_its_stream_without_chunks() -> None:
    async def events(seen: Seen) -> None:
        await seen.begin_stream()
        await seen.event("one")
        await seen.end_stream()

    async with running() as it, replica(events) as pod:
        client = await Client.to(it)
        client.send(b"POST / HTTP/1.0\r\ncontent-length: %d\r\n\r\n%b" % (len(STREAM), STREAM))
        await client.head()
        await asyncio.sleep(0)
        await it.pods(pod.port, endpoint("127.0.0.1", "one"))
        body = await asyncio.wait_for(client.reader.read(), 30)
        assert body.startswith(b": scheduling\n\n")
        assert body.endswith(b"data: one\n\n")
