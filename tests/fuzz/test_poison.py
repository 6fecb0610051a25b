"""Values, bytes and connections that are poison by design: each has its answer, and nobody is harmed."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from tests.model.training import trained
from tests.support.raw_http import Answer, Connection, exchange, post
from tests.unit.runtime.crowd import CHAT, FRANCE, asking, idle, witnesses
from tests.unit.runtime.harness import Server, write_config

MESSAGES = json.dumps([{"role": "user", "content": FRANCE}]).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One ordinary runtime."""
    folder = tmp_path_factory.mktemp("poison")
    parameters = {"max_output_tokens": 16, "max_input_tokens": 256, "max_queued_requests": 1000}
    config = write_config(folder, trained(), parameters=parameters, agent={"sessions": {}})
    with Server(folder, "--config", str(config)) as server:
        yield server.wait_ready()


@pytest.fixture(autouse=True)
def unharmed(server: Server) -> Iterator[None]:
    """After each test nothing runs or waits, and the next question is answered."""
    yield
    idle(server)
    assert server.chat(FRANCE).json()["choices"][0]["message"]["content"] == "Paris"
    assert server.http.get("/health/live").status_code == 200


def with_fields(fields: bytes) -> bytes:
    """A chat request with raw JSON members."""
    return b'{"messages":' + MESSAGES + b"," + fields + b"}"


FIELDS = (
    "temperature", "top_p", "top_k", "seed", "max_tokens", "max_completion_tokens", "min_tokens", "n",
    "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "ignore_eos", "stream",
)  # fmt: skip
VALUES = (
    b"NaN", b"Infinity", b"-Infinity", b"1e308", b"1e309", b"-1e309", b"-0.0", b"1e-320", b"0", b"-1", b"1",
    b"9223372036854775807", b"-9223372036854775808", b"123456789012345678901234567890", b"9" * 5000,
    b"true", b'"1"', b"[]", b"{}", b"null",
)  # fmt: skip


async def test_every_sampling_field_with_every_poisonous_value_is_answered_or_refused_by_name(
    server: Server,
) -> None:
    pairs = list(product(FIELDS, VALUES))
    room = asyncio.Semaphore(16)

    async def ask(name: str, value: bytes) -> Answer:
        async with room:
            return await exchange(server.url, post(CHAT, with_fields(b'"%s":%s' % (name.encode(), value))))

    async with witnesses(server, 4) as seen:
        answers = await asyncio.gather(*(ask(*pair) for pair in pairs))

    assert seen.wrong == []
    odd = []
    for (name, value), answer in zip(pairs, answers, strict=True):
        fine = answer.status == 200 and answer.whole
        refused = answer.status == 400 and answer.json()["error"]["param"] in (name, None)
        if not (fine or (refused and answer.code)):
            odd.append((name, value[:40], answer.status, answer.body[:300]))
    assert odd == []


BODIES: dict[str, tuple[bytes, int]] = {
    "top_k beyond the vocabulary": (with_fields(b'"top_k":1000000,"temperature":1.0'), 200),
    "a seed whose neighbour overflows": (
        with_fields(b'"seed":9223372036854775807,"n":2,"temperature":1.0'),
        200,
    ),
    "a temperature and a top_p that single precision takes for zero": (
        with_fields(b'"temperature":5e-324,"top_p":5e-324'),
        200,
    ),
    "a bias of no number": (with_fields(b'"logit_bias":{"1":NaN}'), 400),
    "an infinite bias": (with_fields(b'"logit_bias":{"1":Infinity}'), 400),
    "a bias beyond the vocabulary": (with_fields(b'"logit_bias":{"999999999":1}'), 400),
    "a million stop strings": (with_fields(b'"stop":[' + b",".join([b'"a"'] * 1_000_000) + b"]"), 400),
    "a stop string of a megabyte": (with_fields(b'"stop":"' + b"a" * 2**20 + b'"'), 400),
    "deep nesting": (with_fields(b'"metadata":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000), 400),
    "a deep schema": (
        with_fields(
            b'"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":'
            + b'{"properties":{"a":' * 400
            + b"{}"
            + b"}}" * 400
            + b"}}"
        ),
        0,
    ),
    "a schema that refers to the network": (
        with_fields(
            b'"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":'
            b'{"$ref":"http://127.0.0.1:9/x"}}}'
        ),
        400,
    ),
    "a schema that nothing satisfies": (
        with_fields(
            b'"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":{"not":{}}}}'
        ),
        0,
    ),
    "a pattern that explodes": (with_fields(b'"guided_regex":"(a{1,1000}){1,1000}"'), 0),
    "a pattern that is none": (with_fields(b'"guided_regex":"("'), 400),
    "duplicate keys": (with_fields(b'"temperature":0,"temperature":9'), 400),
    "a byte-order mark": (b"\xef\xbb\xbf" + with_fields(b'"n":1'), 0),
    "half a surrogate pair": (b'{"messages":[{"role":"user","content":"\\ud800"}]}', 400),
    "a NUL": (b'{"messages":[{"role":"user","content":"a\\u0000b"}]}', 200),
    "bytes of gzip": (gzip.compress(with_fields(b'"n":1')), 400),
    "no bytes": (b"", 400),
    "one bracket after the other": (b"[" * 100_000, 400),
    "four thousand messages": (json.dumps({"messages": json.loads(MESSAGES) * 4096}).encode(), 400),
}
"""What is sent and the status it has; 0 is either of 200 and 400."""


@pytest.mark.parametrize("name", BODIES)
async def test_a_poisonous_body_has_its_status(server: Server, name: str) -> None:
    body, status = BODIES[name]

    async with witnesses(server, 2) as seen:
        answer = await exchange(server.url, post(CHAT, body))

    assert answer.status in ((200, 400) if status == 0 else (status,)), answer.body[:300]
    assert answer.status == 200 or answer.code
    assert seen.wrong == []


def head(*lines: str) -> bytes:
    """The beginning of a POST."""
    return "\r\n".join([f"POST {CHAT} HTTP/1.1", "Host: test", *lines, "", ""]).encode()


BODY = with_fields(b'"n":1')
LENGTH = f"Content-Length: {len(BODY)}"
WIRE: dict[str, tuple[bytes, set[int]]] = {
    "chunked": (
        head("Transfer-Encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
        {200},
    ),
    "a byte a chunk": (
        head("Transfer-Encoding: chunked") + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
        {200},
    ),
    "a chunk of no size": (head("Transfer-Encoding: chunked") + b"zz\r\n", {400}),
    "an endless chunk size": (head("Transfer-Encoding: chunked") + b"f" * 40 + b"\r\n", {400}),
    "length and chunks": (
        head(LENGTH, "Transfer-Encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
        {200, 400},
    ),
    "two lengths": (head(LENGTH, "Content-Length: 1") + BODY, {400}),
    "a negative length": (head("Content-Length: -1") + BODY, {400}),
    "a length beyond counting": (head("Content-Length: " + "9" * 40) + BODY, {400, 413}),
    "too short a length": (head("Content-Length: 5") + BODY, {400}),
    "no HTTP at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20 + b"\r\n\r\n", {400}),
    "a header of a megabyte": (head("X-Long: " + "x" * 2**20, LENGTH) + BODY, {400, 431}),
    "a head without an end": (head("X-Long: ").rstrip() + b"x" * 2**20, {400, 431}),
    "a NUL in a header": (head("X-Odd: a\0b", LENGTH) + BODY, {200, 400}),
    "gzip, declared": (
        post(CHAT, gzip.compress(BODY), {"Content-Encoding": "gzip"}),
        {400, 415},
    ),
}


@pytest.mark.parametrize("name", WIRE)
async def test_odd_framing_is_understood_or_refused(server: Server, name: str) -> None:
    data, statuses = WIRE[name]

    async with witnesses(server, 2) as seen:
        answer = await exchange(server.url, data)

    assert answer.status in statuses, answer.body[:300]
    assert seen.wrong == []


async def test_a_length_that_is_too_long_waits_and_leaves_with_its_client(server: Server) -> None:
    async with witnesses(server, 2) as seen, Connection(server.url) as connection:
        await connection.send(head(f"Content-Length: {len(BODY) + 1}") + BODY)

    assert seen.wrong == []


async def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    async with Connection(server.url) as connection:
        await connection.send(
            post(CHAT, asking(FRANCE))
            + post(CHAT, b"{")
            + post(CHAT, asking("What is the capital of Japan?"))
        )
        answers = [await connection.answer() for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 400, 200]
    words = [answers[number].json()["choices"][0]["message"]["content"] for number in (0, 2)]
    assert words == ["Paris", "Tokyo"]


async def test_slow_headers_and_bodies_slow_nobody_and_are_answered_in_the_end(server: Server) -> None:
    data = post(CHAT, asking(FRANCE))
    slow = [Connection(server.url) for _ in range(50)]
    for connection in slow:
        await connection.__aenter__()

    async def drip(connection: Connection, until: int) -> None:
        for position in range(until):
            await connection.send(data[position : position + 1])
            await asyncio.sleep(0)

    async with witnesses(server, 8) as seen:
        await asyncio.gather(
            *(drip(one, len(data) - 1) for one in slow[:25]), *(drip(one, 20) for one in slow[25:])
        )
        load: dict[str, Any] = server.stats()["load"]
    for connection in slow[:25]:
        await connection.send(data[-1:])
    answers = await asyncio.gather(*(connection.answer() for connection in slow[:25]))
    for connection in slow:
        connection.abort()

    assert seen.wrong == []
    assert load["running"] + load["waiting"] <= 8
    assert {answer.status for answer in answers} == {200}
