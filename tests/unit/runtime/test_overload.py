"""More clients than there is room for, and worse ones than there should be: the others get their answers.

The engine is held by a file (controlled.py) wherever something must happen before an answer does; what is
random is seeded, and nothing is measured against a clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.raw_http import Connection, exchange, post
from tests.unit.runtime.crowd import CHAT, CONTROLLED, FRANCE, asking, idle, witnesses
from tests.unit.runtime.harness import CONTINENTS, Server, wait_for, write_config

PARAMETERS: dict[str, Any] = {
    "max_concurrency": 16,
    "max_queued_requests": 1000,
    "max_queued_tokens": 100_000_000,
    "max_output_tokens": 100_000,
    "request_timeout_seconds": 600.0,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, geography: Path) -> Iterator[Server]:
    """One runtime with sixteen slots."""
    folder = tmp_path_factory.mktemp("overload")
    config = write_config(folder, geography, parameters=PARAMETERS)
    with Server(folder, "--config", str(config), module=CONTROLLED) as server:
        yield server.wait_ready()


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """The shared runtime, let go, idle and with its own parameters after each test."""
    yield shared
    shared.clear("hold")
    shared.change(**PARAMETERS)
    idle(shared)


def held(server: Server) -> dict[str, Any]:
    """What the process holds while it is idle and nobody but this test is connected."""
    idle(server)
    wait_for("connections closed", lambda: not any("_leave_with" in name for name in server.tasks()))
    return {"descriptors": server.descriptors(), "tasks": server.tasks()}


async def leave_somewhere(server: Server, rng: random.Random) -> None:
    """Sends a request and is gone at a random moment: within the request, while it waits or is answered,
    or after a part of the answer; politely or not."""
    body = asking(
        rng.choice([FRANCE, CONTINENTS]), stream=rng.random() < 0.5, max_tokens=rng.choice([4, 32, 300]),
        ignore_eos=True, n=rng.choice([1, 1, 1, 3]),
    )  # fmt: skip
    data = post(CHAT, body)
    async with Connection(server.url) as connection:
        moment = rng.random()
        if moment < 0.2:
            await connection.send(data[: rng.randrange(len(data))])
        else:
            await connection.send(data)
            await asyncio.sleep(rng.random() * 0.5)
        if moment > 0.6:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rng.random()):
                    await connection.reader.read(rng.choice([1, 100, 3000]))
        if rng.random() < 0.5:
            connection.writer.close()
            await asyncio.sleep(0)


async def test_500_clients_that_leave_at_any_moment_leak_nothing_and_harm_nobody(server: Server) -> None:
    rng = random.Random(4)
    async with witnesses(server, 20):
        pass  # whatever is made once and kept has been made now
    before = await asyncio.to_thread(held, server)
    gate = asyncio.Semaphore(100)

    async def leaver(seed: int) -> None:
        async with gate:
            await leave_somewhere(server, random.Random(seed))

    async with witnesses(server, 20) as seen:
        await asyncio.gather(*(leaver(rng.getrandbits(32)) for _ in range(500)))

    def as_before() -> bool:
        return held(server) == before

    assert seen.wrong == []
    assert seen.answered >= 20
    await asyncio.to_thread(wait_for, f"as before: {before}", as_before)
    load, engine = server.stats()["load"], server.stats()["engine"]
    assert (load["running"], load["waiting"], load["queued_tokens"], load["rows"]) == (0, 0, 0, 0)
    assert (engine["busy"], engine["restarts"]) == (0, 0)


async def test_beyond_the_queue_everybody_is_told_when_to_return_and_everybody_in_it_is_answered(
    server: Server,
) -> None:
    server.change(max_queued_requests=8)
    server.touch("hold")
    inside = [asyncio.create_task(exchange(server.url, post(CHAT, asking(FRANCE)))) for _ in range(24)]
    full = {"running": 16, "waiting": 8}
    await asyncio.to_thread(wait_for, "full", lambda: full.items() <= server.stats()["load"].items())

    beyond = await asyncio.gather(
        *(exchange(server.url, post(CHAT, asking(FRANCE, stream=number % 2 == 0))) for number in range(50))
    )
    server.clear("hold")
    answers = await asyncio.gather(*inside)

    assert {(answer.status, answer.code) for answer in beyond} == {(429, "queue_full")}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in beyond)
    assert {"request queue" in answer.json()["error"]["message"] for answer in beyond} == {True}
    assert {answer.json()["choices"][0]["message"]["content"] for answer in answers} == {"Paris"}


async def test_the_queue_is_bounded_in_tokens_too(server: Server) -> None:
    server.change(max_concurrency=1, max_queued_tokens=1000)
    server.touch("hold")
    inside = [
        asyncio.create_task(exchange(server.url, post(CHAT, asking(FRANCE, max_tokens=100))))
        for _ in range(4)
    ]
    await asyncio.to_thread(wait_for, "three wait", lambda: server.stats()["load"]["waiting"] == 3)

    refused = await exchange(server.url, post(CHAT, asking(FRANCE, max_tokens=900)))
    server.clear("hold")
    answers = await asyncio.gather(*inside)

    assert (refused.status, refused.code) == (429, "queue_full")
    assert "token queue" in refused.json()["error"]["message"]
    assert [answer.status for answer in answers] == [200] * 4


async def test_clients_that_read_slowly_hold_no_slot_and_slow_nobody(server: Server) -> None:
    server.change(max_concurrency=4)
    many = asking(CONTINENTS, stream=True, max_tokens=300, ignore_eos=True, logprobs=True, top_logprobs=20)
    before = server.rss()
    slow = [Connection(server.url, narrow=True) for _ in range(4)]
    for connection in slow:
        await connection.__aenter__()
        await connection.send(post(CHAT, many, {"x-request-id": "slow-reader"}))

    # Their answers are made although nobody takes them, and then the slots are free.
    await asyncio.to_thread(idle, server)
    assert server.find("request", request_id="slow-reader") is None, "it is not slow enough"
    async with witnesses(server, 8) as seen:
        for connection in slow:
            assert await connection.reader.read(1) == b"H"
    grown = server.rss() - before
    answers = await asyncio.gather(*(rest(connection) for connection in slow))

    assert seen.wrong == []
    assert grown < 256 * 2**20
    assert all(answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") for answer in answers)
    assert all(len(answer) > 2**18 for answer in answers)


async def rest(connection: Connection) -> bytes:
    """Everything up to the end of a chunked answer."""
    found = bytearray()
    while not found.endswith(b"\r\n0\r\n\r\n"):
        data = await connection.reader.read(2**16)
        if not data:
            break
        found += data
    connection.abort()
    return bytes(found)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_refused_and_not_kept(server: Server, chunked: bool) -> None:
    size, piece = 5 * 2**20, b"x" * 2**16
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    head = f"POST {CHAT} HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n".encode()

    async with witnesses(server, 4) as seen, Connection(server.url) as connection:
        await connection.send(head)
        for _ in range(size // len(piece)):
            await connection.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        answer = await connection.answer()

    assert (answer.status, answer.code) == (413, "request_too_large")
    assert seen.wrong == []


async def test_the_deadline_a_client_names_is_kept_in_the_queue_and_in_the_engine(server: Server) -> None:
    server.change(max_concurrency=1)
    server.touch("hold")
    soon = {"x-request-timeout-seconds": "0.2"}
    running = asyncio.create_task(exchange(server.url, post(CHAT, asking(FRANCE), soon)))
    await asyncio.to_thread(wait_for, "one runs", lambda: server.stats()["load"]["running"] == 1)

    queued = await exchange(server.url, post(CHAT, asking(FRANCE), soon))
    server.clear("hold")
    late = await running

    assert [(one.status, one.code) for one in (queued, late)] == [(504, "deadline_exceeded")] * 2


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0", "soon", "1e400", ""])
async def test_a_deadline_that_is_none_is_refused_by_name(server: Server, value: str) -> None:
    answer = await exchange(server.url, post(CHAT, asking(FRANCE), {"x-request-timeout-seconds": value}))

    assert (answer.status, answer.code) == (400, "invalid_header")
    assert answer.json()["error"]["param"] == "x-request-timeout-seconds"


async def test_connections_that_never_finish_their_request_hold_no_slot(server: Server) -> None:
    data = post(CHAT, asking(FRANCE))
    head_end = data.index(b"\r\n\r\n")
    parts = [data[:5], data[: head_end - 20], data[: head_end + 4], data[:-1]] * 25
    lingering = [Connection(server.url) for _ in parts]
    for connection, part in zip(lingering, parts, strict=True):
        await connection.__aenter__()
        await connection.send(part)

    async with witnesses(server, 20) as seen:
        load = server.stats()["load"]
    # One of them goes on after all, byte by byte.
    slowest = lingering[3]
    await slowest.send(data[-1:])
    answer = await slowest.answer()
    for connection in lingering:
        connection.abort()

    assert seen.wrong == []
    assert load["running"] <= 20
    assert answer.json()["choices"][0]["message"]["content"] == "Paris"
