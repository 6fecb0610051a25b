"""What passes through: bytes, errors, disconnects, slow ends, and what is no HTTP at all."""

from __future__ import annotations

import asyncio
import hashlib
import socket

import pytest

from tests.support.gateway import Client, Seen, ask, endpoint, free_port, quick, replica, running, until

HOST = "127.0.0.1"


async def test_connections_are_kept_alive_on_both_sides() -> None:
    async with running() as it, replica() as pod:
        await it.pods(pod.port, endpoint(HOST, "one"))
        client = await Client.to(it)
        for number in range(20):
            client.post(b"%d" % number, connection="keep-alive")
            answer = await client.answer()
            assert answer.status == 200
            assert "connection" not in answer.headers
        assert pod.connections == 1
        assert [seen.body for seen in pod.seen] == [b"%d" % number for number in range(20)]
        assert "connection" not in pod.seen[0].headers


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async def echo(seen: Seen) -> None:
        await seen.answer(seen.body)

    async with running() as it, replica(echo) as pod:
        await it.pods(pod.port, endpoint(HOST, "one"))
        client = await Client.to(it)
        for number in range(50):
            client.post(b"%d" % number)
        assert [(await client.answer()).body for _ in range(50)] == [b"%d" % n for n in range(50)]


async def test_a_client_that_wants_the_connection_closed_is_told_so_and_gets_it() -> None:
    async with running() as it, replica() as pod:
        await it.pods(pod.port, endpoint(HOST, "one"))
        client = await Client.to(it)
        client.post(connection="close")
        assert (await client.answer()).headers["connection"] == "close"
        assert await client.closed()
        assert (await ask(it)).status == 200
        assert pod.connections == 1, "the replica's connection is another one"


async def test_bodies_of_unknown_length_pass_in_both_directions() -> None:
    async def chunked(seen: Seen) -> None:
        await seen.begin_stream()
        await seen.event(hashlib.sha256(seen.body).hexdigest())
        await seen.end_stream()

    async with running() as it, replica(chunked) as pod:
        await it.pods(pod.port, endpoint(HOST, "one"))
        client = await Client.to(it)
        parts = [bytes([number]) * 10_000 for number in range(20)]
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        for part in parts:
            client.send(b"%x\r\n%b\r\n" % (len(part), part))
            await asyncio.sleep(0)
        client.send(b"0\r\n\r\n")
        answer = await client.answer()
        assert hashlib.sha256(b"".join(parts)).hexdigest().encode() in answer.body
        client.post()
        assert (await client.answer()).status == 200


async def test_large_bodies_pass_unchanged() -> None:
    body = hashlib.sha256(b"seed").digest() * (8 * 2**20 // 32)

    async def echo(seen: Seen) -> None:
        await seen.answer(seen.body)

    async with running() as it, replica(echo) as pod:
        await it.pods(pod.port, endpoint(HOST, "one"))
        answer = await ask(it, body)
        assert answer.body == body


async def test_a_client_that_reads_slowly_slows_the_replica_down() -> None:
    total = 64 * 2**20
    sent = 0

    async def flood(seen: Seen) -> None:
        nonlocal sent
        seen.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        while sent < total:
            seen.writer.write(b"x" * 65_536)
            sent += 65_536
            await seen.writer.drain()

    async with running() as it, replica(flood) as pod:
        await it.pods(pod.port, endpoint(HOST, "one"))
        client = await Client.to(it)
        sock = client.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.post()
        await client.head()
        stalled = -1
        while stalled != sent:
            stalled = sent
            await asyncio.sleep(0.3)
        held = max(c.transport.get_write_buffer_size() for c in it.lane.clients)
        assert sent < total / 2, "the replica was stopped"
        assert held < 2**20, "the gateway holds little of it"
        assert len(await asyncio.wait_for(client.reader.readexactly(total), 60)) == total
        assert it.empty()


async def test_a_replica_that_reads_slowly_slows_the_client_down() -> None:
    total = 64 * 2**20
    go = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        await reader.readexactly(total)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    server = await asyncio.start_server(serve, HOST, 0)
    async with running() as it:
        await it.pods(server.sockets[0].getsockname()[1], endpoint(HOST, "one"))
        client = await Client.to(it)
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % total)
        client.send(b"x" * total)
        left = -1
        while left != client.writer.transport.get_write_buffer_size():
            left = client.writer.transport.get_write_buffer_size()
            await asyncio.sleep(0.3)
        assert left > total / 2, "the client was stopped"
        go.set()
        assert (await client.answer()).status == 200
    server.close()


async def test_when_the_client_leaves_the_replica_notices() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def endless(seen: Seen) -> None:
        await seen.begin_stream()
        started.set()
        try:
            while True:
                await seen.event("word")
                await asyncio.sleep(0.01)
        except ConnectionError:
            ended.set()
            raise

    async with running() as it, replica(endless) as pod:
        await it.pods(pod.port, endpoint(HOST, "one"))
        client = await Client.to(it)
        client.post()
        await asyncio.wait_for(started.wait(), 30)
        client.leave()
        await asyncio.wait_for(ended.wait(), 30)
        await until("nothing is left", it.empty)


async def test_a_refused_connection_is_tried_on_another_pod_and_nobody_sees_it() -> None:
    async with running() as it, replica(host="127.0.0.2") as pod:
        await it.pods(pod.port, endpoint("127.0.0.1", "dead"), endpoint("127.0.0.2", "alive"))
        answers = await asyncio.gather(*(ask(it) for _ in range(50)))
        assert {one.status for one in answers} == {200}
        assert it.lane.upstream_errors["connect"] >= 1


async def test_when_every_pod_refuses_the_request_waits_until_one_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agent_operator.gateway.replicas.REST_SECONDS", 0.05)
    port = free_port()
    async with running() as it:
        await it.pods(port, endpoint(HOST, "one"))
        asked = asyncio.create_task(ask(it))
        await until("it waits", lambda: len(it.lane.queue) == 1)
        async with replica(port=port) as pod:
            assert (await asked).status == 200
            assert len(pod.seen) == 1


async def test_a_request_that_reached_a_replica_is_never_sent_twice() -> None:
    async def dying(seen: Seen) -> None:
        seen.writer.transport.abort()

    async with running() as it, replica(dying) as pod, replica(host="127.0.0.2", port=pod.port) as other:
        await it.pods(pod.port, endpoint(HOST, "one"), endpoint("127.0.0.2", "two"))
        answers = await asyncio.gather(*(ask(it, b"%d" % number) for number in range(20)))
        assert {one.status for one in answers} == {200, 502}
        bodies = [seen.body for seen in (*pod.seen, *other.seen)]
        assert len(bodies) == len(set(bodies)) == 20


async def test_an_answer_that_is_cut_off_is_seen_to_be_cut_off() -> None:
    async def cut(seen: Seen) -> None:
        seen.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await seen.writer.drain()
        seen.writer.transport.close()

    async with running() as it, replica(cut) as pod:
        await it.pods(pod.port, endpoint(HOST, "one"))
        client = await Client.to(it)
        client.post()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.answer()


async def test_an_answer_that_ends_with_its_connection_passes() -> None:
    async def old(seen: Seen) -> None:
        seen.writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        await seen.writer.drain()
        seen.writer.close()

    async with running() as it, replica(old) as pod:
        await it.pods(pod.port, endpoint(HOST, "one"))
        assert (await ask(it)).body == b"until the end"


async def test_a_terminating_pod_gets_nothing_new_and_ends_what_it_has() -> None:
    go = asyncio.Event()

    async def waiting(seen: Seen) -> None:
        await go.wait()
        await seen.answer(b"old")

    async with running() as it, replica(waiting) as old, replica(host="127.0.0.2", port=old.port) as new:
        await it.pods(old.port, endpoint(HOST, "one"))
        asked = asyncio.create_task(ask(it))
        await until("it is there", lambda: old.seen)
        await it.pods(old.port, endpoint(HOST, "one", terminating=True), endpoint("127.0.0.2", "two"))
        for _ in range(5):
            assert (await ask(it)).status == 200
        go.set()
        assert (await asked).body == b"old"
        assert (len(old.seen), len(new.seen)) == (1, 5)


async def test_head_and_get_pass_and_an_answer_without_a_body_does_not_hang() -> None:
    async def bare(seen: Seen) -> None:
        if seen.line.startswith("HEAD"):
            seen.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
        else:
            seen.writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await seen.writer.drain()

    async with running() as it, replica(bare) as pod:
        await it.pods(pod.port, endpoint(HOST, "one"))
        client = await Client.to(it)
        client.send(b"HEAD /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await client.head()).headers["content-length"] == "100"
        client.send(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await client.head()).status == 204
        client.send(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await client.head()).status == 204


BAD = {
    "not HTTP": b"hello\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    "two framings": b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
    "a length that is none": b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
    "a negative length": b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nx: a\r\n b\r\n\r\n",
    "a bare line feed": b"GET / HTTP/1.1\nx: a\r\n\r\n",
    "a blank before the colon": b"GET / HTTP/1.1\r\ncontent-length : 5\r\n\r\n",
    "a chunk that is none": b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "chunks before their time": b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a tunnel": b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    "an encoding that is not chunked": b"POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
}


@pytest.mark.parametrize("bad", BAD)
async def test_what_is_no_request_gets_400_and_harms_nobody(bad: str) -> None:
    async with running() as it, replica() as pod:
        await it.pods(pod.port, endpoint(HOST, "one"))
        client, other = await Client.to(it), await Client.to(it)
        client.send(BAD[bad])
        answer = await client.answer()
        assert (answer.status, answer.error["code"]) == (400, "bad_request")
        assert answer.headers["connection"] == "close"
        assert await client.closed()
        other.post()
        assert (await other.answer()).status == 200
        assert len(pod.seen) <= 2
        await until("nothing is left", it.empty)


async def test_a_head_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    async with running() as it:
        client = await Client.to(it)
        client.send(b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000)
        assert (await client.answer()).status == 431


async def test_an_offer_to_upgrade_is_passed_over() -> None:
    async with running() as it, replica() as pod:
        await it.pods(pod.port, endpoint(HOST, "one"))
        client = await Client.to(it)
        client.post(
            connection="Upgrade, HTTP2-Settings, X-Own", upgrade="h2c", http2_settings="AAMA", x_own="1"
        )
        assert (await client.answer()).status == 200
        assert not {"upgrade", "http2-settings", "connection", "x-own"} & set(pod.seen[0].headers)


async def test_a_refused_client_sees_the_answer_although_it_still_sends() -> None:
    async with running(max_held_bytes=2048) as it:
        client = await Client.to(it)
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n")
        client.send(b"x" * 1_000_000)
        assert (await client.answer()).status == 503


async def test_a_pod_that_declines_is_passed_over_for_another() -> None:
    async def full(seen: Seen) -> None:
        await seen.answer(b'{"error":{}}', "429 Too Many Requests", retry_after="1")

    async with (
        running(mode="Always") as it,
        replica(full) as one,
        replica(quick, host="127.0.0.2", port=one.port) as two,
    ):
        await it.pods(one.port, endpoint(HOST, "one"), endpoint("127.0.0.2", "two"))
        answers = await asyncio.gather(*(ask(it, b"%d" % number) for number in range(20)))
        assert {answer.status for answer in answers} == {200}
        await it.pods(one.port, endpoint(HOST, "one"))
        assert (await ask(it)).status == 429, "with nowhere else to go the client is told"
        assert len(two.seen) == 20
