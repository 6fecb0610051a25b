"""A remote that is down, slow, overloaded or sends garbage: each is one error with its code, and the next
request is not harmed."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent_runtime.contract import RemoteConfig
from agent_runtime.llm.base import Chat, GenerationError, Sampling
from agent_runtime.llm.chat import Message
from agent_runtime.llm.failures import LoadError
from agent_runtime.llm.remote import RemoteBackend
from agent_runtime.llm.remote.breaker import Phase
from agent_runtime.llm.remote.client import RemoteClient
from agent_runtime.llm.remote.errors import Errors
from agent_runtime.state import State, Status, liveness
from tests.unit.remote.conftest import KEY, Clock, Connect, Waits
from tests.unit.remote.standin import (
    Exchange,
    Handler,
    Script,
    StandIn,
    make_certificate,
    piece,
    raw_stream,
    refusal,
    silence,
    sse,
    status,
    stream,
    well_behaved,
)
from tests.unit.remote.test_generate import QUESTION, collect, failure


@pytest.fixture
def nobody() -> str:
    """An address where the connection is refused: nobody listens there, and nobody else can."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}/v1"


# Not reached


async def test_a_refused_connection_is_retried_and_then_unreachable(
    connect: Connect, waits: Waits, nobody: str
) -> None:
    error = await failure(connect(base_url=nobody))

    assert error.code == "remote_unreachable"
    assert str(error) == "The remote model behind 'geography' cannot be reached: the connection was refused."
    assert len(waits.seconds) == 2  # three attempts


async def test_an_unknown_host_is_unreachable(connect: Connect) -> None:
    error = await failure(connect(base_url="http://no-such-host.invalid/v1"))

    assert error.code == "remote_unreachable"
    assert "host name cannot be resolved" in str(error)


async def test_a_certificate_nobody_vouches_for_is_unreachable_and_not_retried(
    connect: Connect, waits: Waits, tmp_path: Path
) -> None:
    server = StandIn(make_certificate(tmp_path))

    error = await failure(connect(base_url=server.base_url))

    server.close()
    assert error.code == "remote_unreachable"
    assert "certificate is not trusted" in str(error)
    assert (waits.seconds, server.script.seen) == ([], [])


async def test_a_certificate_of_the_bundle_in_the_environment_is_trusted(
    connect: Connect, trusted: tuple[Path, Path]
) -> None:
    server = StandIn(trusted)
    server.script.chat(well_behaved("Paris"))
    backend = connect(base_url=server.base_url)

    assert (await collect(backend))[1].text == "Paris"
    await backend.aclose()
    server.close()


async def test_https_to_a_plain_http_server_is_unreachable(connect: Connect, server: StandIn) -> None:
    error = await failure(connect(base_url=server.base_url.replace("http:", "https:")))

    assert error.code == "remote_unreachable"
    assert "is it an https address?" in str(error)


async def test_a_slow_first_byte_is_unreachable_and_not_retried(
    connect: Connect, remote: Script, waits: Waits
) -> None:
    remote.chat(silence)

    error = await failure(connect(timeout_seconds=0.2))

    assert error.code == "remote_unreachable"
    assert "nothing came within 0.2 s" in str(error)
    assert waits.seconds == []
    assert await asyncio.to_thread(remote.client_left.wait, 20)


async def test_headers_without_an_answer_are_a_slow_first_byte_too(connect: Connect, remote: Script) -> None:
    remote.chat(raw_stream(b": PROCESSING\n\n", then="stall"))

    error = await failure(connect(timeout_seconds=0.2))

    assert error.code == "remote_unreachable"


async def test_a_stall_in_the_middle_is_seen_although_comments_keep_coming(
    connect: Connect, remote: Script
) -> None:
    async def comments_only(exchange: Exchange) -> None:
        await exchange.head(200, {"Content-Type": "text/event-stream"})
        await exchange.write(sse(piece("Par")))
        while not exchange.script.client_left.is_set():
            await exchange.write(b": still here\n\n")
            gone = asyncio.ensure_future(exchange.receive())
            if (await asyncio.wait({gone}, timeout=0.01))[0]:
                exchange.script.client_left.set()
            gone.cancel()

    remote.chat(comments_only)

    error = await failure(connect(timeout_seconds=0.2))

    assert error.code == "remote_unreachable"
    assert "in the middle of its answer" in str(error)
    assert await asyncio.to_thread(remote.client_left.wait, 20)


# Cut off


async def test_a_connection_cut_before_the_answer_is_retried(
    backend: RemoteBackend, remote: Script, waits: Waits
) -> None:
    remote.chat(raw_stream(then="cut"), well_behaved("Paris"))

    _, result = await collect(backend)

    assert result.text == "Paris"
    assert len(waits.seconds) == 1


async def test_a_connection_cut_in_the_middle_fails_and_is_never_retried(
    backend: RemoteBackend, remote: Script, waits: Waits
) -> None:
    remote.chat(stream(piece("Par"), then="cut"), well_behaved("Paris"))

    error = await failure(backend)

    assert error.code == "remote_failed"
    assert "broke off in the middle of its answer" in str(error)
    assert waits.seconds == []
    assert len(remote.seen) == 1


async def test_a_stream_without_a_finish_reason_is_not_an_answer(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.chat(stream(piece("Par")))

    error = await failure(backend)

    assert error.code == "remote_failed"
    assert "without a finish_reason" in str(error)


# Overloaded and failing


async def test_429_is_retried_after_the_time_it_names(
    backend: RemoteBackend, remote: Script, waits: Waits
) -> None:
    remote.chat(status(429, {"error": {"message": "slow down"}}, Retry_After="2"), well_behaved("Paris"))

    _, result = await collect(backend)

    assert result.text == "Paris"
    assert waits.seconds == [2.0]


async def test_429_that_goes_on_is_overloaded_with_its_retry_after(
    backend: RemoteBackend, remote: Script, waits: Waits
) -> None:
    remote.chat(status(429, {"error": {"message": "slow down"}}, Retry_After="7"))

    error = await failure(backend)

    assert (error.code, error.retry_after) == ("remote_overloaded", 7)
    assert waits.seconds == [7.0, 7.0]


async def test_a_retry_after_beyond_patience_is_left_to_the_caller(
    backend: RemoteBackend, remote: Script, waits: Waits
) -> None:
    remote.chat(status(429, {}, Retry_After="3600"))

    error = await failure(backend)

    assert (error.code, error.retry_after) == ("remote_overloaded", 3600)
    assert waits.seconds == []


async def test_a_retry_after_beyond_the_deadline_is_left_to_the_caller(
    backend: RemoteBackend, remote: Script, waits: Waits
) -> None:
    remote.chat(status(429, {}, Retry_After="5"))

    error = await failure(backend, deadline=1004.0)

    assert (error.code, error.retry_after) == ("remote_overloaded", 5)
    assert waits.seconds == []


async def test_an_exhausted_quota_is_not_retried(
    backend: RemoteBackend, remote: Script, waits: Waits
) -> None:
    remote.chat(status(429, {"error": {"message": "You have no credit.", "code": "insufficient_quota"}}))

    error = await failure(backend)

    assert error.code == "remote_denied"
    assert waits.seconds == []


async def test_500_and_then_an_answer_is_an_answer(
    backend: RemoteBackend, remote: Script, waits: Waits
) -> None:
    remote.chat(status(500, b"oops"), status(503, b"still"), well_behaved("Paris"))

    _, result = await collect(backend)

    assert result.text == "Paris"
    assert len(waits.seconds) == 2


@pytest.mark.parametrize("code", [500, 502, 503, 504, 529])
async def test_5xx_that_goes_on_is_failed(backend: RemoteBackend, remote: Script, code: int) -> None:
    remote.chat(status(code, {"error": {"message": "the GPU fell off"}}))

    error = await failure(backend)

    assert error.code == "remote_failed"
    assert str(error).endswith(f"failed (HTTP {code}): the GPU fell off")
    assert len(remote.seen) == 3


async def test_408_is_retried_and_then_unreachable(backend: RemoteBackend, remote: Script) -> None:
    remote.chat(status(408, b""))

    error = await failure(backend)

    assert error.code == "remote_unreachable"
    assert len(remote.seen) == 3


@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 413, 422, 307])
async def test_a_refusal_is_final_and_says_what_the_remote_said(
    backend: RemoteBackend, remote: Script, code: int
) -> None:
    remote.chat(refusal("You shall not pass.", code))

    error = await failure(backend)

    assert error.code == ("remote_denied" if code in (401, 402, 403, 307) else "remote_refused")
    assert len(remote.seen) == 1
    assert f"HTTP {code}" in str(error)


async def test_an_error_in_the_stream_is_the_error(backend: RemoteBackend, remote: Script) -> None:
    cases = [
        ({"message": "out of memory", "type": "server_error"}, "remote_failed"),
        ({"message": "too long", "type": "BadRequestError", "code": 400}, "remote_refused"),
        ({"message": "too many", "type": "rate_limit_error"}, "remote_overloaded"),
        ("just words", "remote_failed"),
    ]
    for inner, code in cases:
        remote.chat(stream(piece("Par"), {"error": inner}))

        assert (await failure(backend)).code == code


async def test_a_refusal_after_the_first_words_is_not_answered_by_beginning_again(
    backend: RemoteBackend, remote: Script
) -> None:
    inner = {"message": "Use 'max_completion_tokens' instead.", "type": "invalid_request_error", "code": 400}
    remote.chat(stream(piece("Par"), {"error": inner}), well_behaved("Paris"))

    assert (await failure(backend)).code == "remote_refused"
    assert len(remote.seen) == 1


async def test_a_content_filter_is_a_refusal(backend: RemoteBackend, remote: Script) -> None:
    remote.chat(stream(piece("Par"), piece(finish="content_filter")))

    assert (await failure(backend)).code == "remote_refused"


# Garbage


def deep(levels: int) -> bytes:
    """JSON nested deeper than any parser should follow."""
    return b"data: " + b"[" * levels + b"]" * levels + b"\n\n"


async def broken_gzip(exchange: Exchange) -> None:
    """Plain text that claims to be compressed."""
    await exchange.head(200, {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"})
    await exchange.write(b"this is not gzip", more=False)


GARBAGE: dict[str, Handler] = {
    "an HTML page": status(200, b"<html>Sign in</html>", Content_Type="text/html"),
    "JSON instead of a stream": status(200, {"choices": [{"message": {"content": "Paris"}}]}),
    "truncated JSON": raw_stream(b'data: {"choices": [{"del\n\ndata: [DONE]\n\n'),
    "not JSON": stream("Paris"),
    "wrong types": stream({"choices": [{"index": 0, "delta": {"content": 5}}]}),
    "choices as an object": stream({"choices": {"delta": {}}}),
    "no choices": stream({"object": "chat.completion.chunk"}),
    "null": stream("null"),
    "a negative count": stream(piece("x"), {"choices": [], "usage": {"prompt_tokens": -1}}),
    "an empty stream": raw_stream(),
    "only the end": raw_stream(b"data: [DONE]\n\n"),
    "only comments": raw_stream(b": hello\n\n"),
    "not UTF-8": raw_stream(sse(piece("@", finish="stop")).replace(b"@", b"\xff\xfe")),
    "half a character": raw_stream(sse(piece("@", finish="stop")).replace(b"@", b"\xc3")),
    "an unknown finish_reason": stream(piece("x", finish="because")),
    "nesting": raw_stream(deep(100_000)),
    "one endless event": raw_stream(*[b"data: " + b"x" * 2**18] * 6),
    "not what Content-Encoding says": broken_gzip,
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_garbage_is_remote_failed_is_not_retried_and_harms_no_later_request(
    backend: RemoteBackend, remote: Script, waits: Waits, kind: str
) -> None:
    remote.chat(GARBAGE[kind], well_behaved("Paris"))

    error = await failure(backend)

    assert error.code == "remote_failed"
    assert len(str(error)) < 1000
    assert waits.seconds == []
    assert (await collect(backend))[1].text == "Paris"


async def test_an_answer_longer_than_asked_for_is_cut_off(backend: RemoteBackend, remote: Script) -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.head(200, {"Content-Type": "text/event-stream"})
        event = sse(piece("x" * 2**16))
        for _ in range(1000):
            await exchange.write(event)

    remote.chat(endless)

    error = await failure(backend, sampling=Sampling(max_tokens=1))

    assert error.code == "remote_failed"
    assert "more data than" in str(error)


async def test_something_that_is_not_http_is_garbage(
    connect: Connect, talker: Callable[[bytes], str]
) -> None:
    error = await failure(connect(base_url=talker(b"220 smtp ready\r\n\r\n")))

    assert error.code == "remote_failed"


@pytest.fixture
def talker() -> Iterator[Callable[[bytes], str]]:
    """Starts a socket server that says the same to everybody and hangs up."""
    listeners: list[socket.socket] = []

    def start(words: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(words)

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


# The circuit breaker


async def test_after_five_failures_nobody_is_called_until_a_probe_succeeds(
    connect: Connect, remote: Script, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agent_runtime.remote")
    backend = connect()
    remote.chat(*[status(500, b"down")] * 5, well_behaved("Paris"))

    first, second = await failure(backend), await failure(backend)  # three attempts each; the fifth opens
    third = await failure(backend)

    assert first.code == "remote_failed"
    assert (second.code, third.code) == ("remote_unreachable", "remote_unreachable")
    assert third.retry_after is not None
    assert 4 <= third.retry_after <= 6
    assert "The last failure: The remote model behind 'geography' failed (HTTP 500): down" in str(third)
    assert len(remote.seen) == 5

    clock.now += third.retry_after
    assert (await collect(backend))[1].text == "Paris"
    assert (await collect(backend))[1].text == "Paris"
    phases = [record.message for record in caplog.records if record.name == "agent_runtime.remote"]
    assert phases == [f"remote circuit {phase}" for phase in (Phase.OPEN, Phase.HALF_OPEN, Phase.CLOSED)]


async def test_only_one_probe_goes_and_the_others_are_told_to_wait(
    connect: Connect, remote: Script, clock: Clock
) -> None:
    backend = connect()
    remote.chat(*[status(500, b"down")] * 5, silence)
    for _ in range(2):
        await failure(backend)
    clock.now += 60

    probe = backend.generate(backend.encode(QUESTION), Sampling(max_tokens=4))
    assert await asyncio.to_thread(remote.waiting.wait, 20)
    refused = await failure(backend)

    assert (refused.code, refused.retry_after) == ("remote_unreachable", 1)
    assert len(remote.seen) == 6
    probe.cancel()  # a probe that was cancelled says nothing: the next one may go
    await probe.ended()
    remote.chat(well_behaved("Paris"))
    assert (await collect(backend))[1].text == "Paris"


async def test_a_probe_closes_the_circuit_with_its_first_event(
    connect: Connect, remote: Script, clock: Clock
) -> None:
    backend = connect()
    remote.chat(*[status(500, b"down")] * 5, stream(piece("Par"), then="stall"), well_behaved("Paris"))
    for _ in range(2):
        await failure(backend)
    clock.now += 60

    probe = backend.generate(backend.encode(QUESTION), Sampling(max_tokens=4))
    await anext(probe.events())

    assert (await collect(backend))[1].text == "Paris"
    probe.cancel()
    await probe.ended()


async def test_refusals_and_overload_do_not_open_the_circuit(backend: RemoteBackend, remote: Script) -> None:
    remote.chat(*[refusal("no")] * 20, *[status(429, {}, Retry_After="99")] * 20, well_behaved("Paris"))

    codes = [(await failure(backend)).code for _ in range(40)]

    assert codes == ["remote_refused"] * 20 + ["remote_overloaded"] * 20
    assert (await collect(backend))[1].text == "Paris"


async def test_cut_streams_and_garbage_open_the_circuit(backend: RemoteBackend, remote: Script) -> None:
    remote.chat(stream(piece("Par"), then="cut"), GARBAGE["truncated JSON"])

    codes = [(await failure(backend)).code for _ in range(6)]

    assert codes == ["remote_failed"] * 5 + ["remote_unreachable"]


async def test_liveness_stays_true_while_the_remote_is_silent_and_while_it_is_down(
    connect: Connect, remote: Script, clock: Clock
) -> None:
    backend, serving = connect(), Status(State.READY, 0.0, "serving", was_ready=True)
    remote.chat(silence)
    running = backend.generate(backend.encode(QUESTION), Sampling(max_tokens=4))
    assert await asyncio.to_thread(remote.waiting.wait, 20)

    clock.now += 3600

    assert liveness(serving, backend.progress.activity(), stall_seconds=60).ok
    running.cancel()
    await running.ended()


# Others


FAULTS: dict[str, tuple[Handler, str]] = {
    "cut": (stream(piece("x"), then="cut"), "remote_failed"),
    "garbage": (GARBAGE["truncated JSON"], "remote_failed"),
    "page": (GARBAGE["an HTML page"], "remote_failed"),
    "down": (status(500, b"down"), "remote_failed"),
    "stall": (stream(piece("x"), then="stall"), "remote_unreachable"),
    "refusal": (refusal("no"), "remote_refused"),
    "overload": (status(429, {}, Retry_After="99"), "remote_overloaded"),
}


async def test_one_bad_answer_in_a_burst_harms_none_of_the_others(connect: Connect, remote: Script) -> None:
    async def by_question(exchange: Exchange) -> None:
        question = exchange.seen.body["messages"][0]["content"]
        handler = FAULTS[question][0] if question in FAULTS else well_behaved("re: ", question)
        await handler(exchange)

    async def outcome(backend: RemoteBackend, question: str) -> str:
        try:
            return (await collect(backend, Chat((Message("user", question),))))[1].text
        except GenerationError as error:
            return error.code

    remote.chat(by_question)
    backend = connect(timeout_seconds=3)
    good = [f"question {number}" for number in range(15)]

    for fault, (_, code) in FAULTS.items():
        answers = await asyncio.gather(*(outcome(backend, question) for question in [*good, fault, *good]))

        assert answers == [*(f"re: {q}" for q in good), code, *(f"re: {q}" for q in good)]
    assert asyncio.all_tasks() == {asyncio.current_task()}  # nothing goes on behind


# Secrets


async def test_the_api_key_is_in_no_error_log_or_repr(
    connect: Connect, remote: Script, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    backend = connect()

    async def tell_on(exchange: Exchange) -> None:
        authorization = exchange.seen.headers["authorization"]
        await refusal(f"bad key {authorization} or {authorization.split()[1]}")(exchange)

    async def tell_in_stream(exchange: Exchange) -> None:
        key = exchange.seen.headers["authorization"].split()[1]
        await stream(piece("x"), {"error": {"message": f"key {key}"}})(exchange)

    remote.chat(tell_on, tell_in_stream, status(500, KEY.encode()))
    texts = [str(await failure(backend)) for _ in range(3)]
    texts += [repr(backend), repr(vars(backend)), *(record.getMessage() for record in caplog.records)]
    texts += [str(vars(record)) for record in caplog.records]

    assert "[redacted]" in texts[0]
    assert not [text for text in texts if KEY in text]


# Proxies


async def test_a_proxy_from_the_environment_is_used_and_its_failure_named(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, server: StandIn, remote: Script
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.base_url.removesuffix("/v1"))
    remote.chat(well_behaved("Paris"))
    backend = connect(base_url="http://model.invalid/v1")

    _, result = await collect(backend)

    assert result.text == "Paris"
    assert remote.seen[0].headers["host"] == "model.invalid"


async def test_no_proxy_is_honoured(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, nobody: str, remote: Script
) -> None:
    monkeypatch.setenv("HTTP_PROXY", nobody.removesuffix("/v1"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    remote.chat(well_behaved("Paris"))

    assert (await collect(connect()))[1].text == "Paris"


# Configuration


def test_a_key_or_address_that_cannot_work_is_refused_by_field() -> None:
    def attempt(base_url: str = "https://host/v1", key: str | None = "sk-good") -> str:
        config = RemoteConfig(base_url=base_url, model="big")
        try:
            RemoteBackend(config, "geography", api_key=key)
        except LoadError as error:
            assert error.report.code == "RuntimeConfigInvalid"
            assert error.report.remedy
            return error.report.message
        return "accepted"

    assert attempt() == "accepted"
    assert attempt(key=" sk-good\n") == "accepted"
    for base_url in ("ftp://host/v1", "host/v1", "http://", "", "https://host/v1?key=1", "http://[::1"):
        assert "model.remote.base_url" in attempt(base_url)
    secret = attempt("https://user:hunter2@host/v1")
    assert "model.remote.base_url" in secret
    assert "hunter2" not in secret
    for key in ("", "  ", "two\nlines", "clé"):
        assert "API key" in attempt(key=key)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SSL_CERT_FILE", "/no/such/file", "certificate bundle cannot be read (No such file or directory)"),
        ("ALL_PROXY", "socks5://user:hunter2@host:1080", "a SOCKS proxy is set"),
        ("HTTP_PROXY", "gopher://user:hunter2@host", "a proxy's URL is not valid"),
        ("HTTP_PROXY", "http://user:hunter2@host:port", "a proxy's URL is not valid"),
    ],
)
def test_an_environment_that_cannot_work_is_refused_without_showing_its_values(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(LoadError) as caught:
        RemoteBackend(RemoteConfig(base_url="https://host/v1", model="big"), "geography", api_key=None)

    assert caught.value.report.code == "RuntimeConfigInvalid"
    assert words in caught.value.report.message
    assert name in caught.value.report.remedy
    assert "hunter2" not in str(caught.value)


async def test_the_base_urls_path_is_kept(connect: Connect, server: StandIn, remote: Script) -> None:
    remote.on("/deep/er/v1/chat/completions", well_behaved("Paris"))
    root = server.base_url.removesuffix("/v1")

    for base_url in (f"{root}/deep/er/v1", f"{root}/deep/er/v1/"):
        assert (await collect(connect(base_url=base_url)))[1].text == "Paris"


def one_connection(server: StandIn) -> RemoteClient:
    """A client that can have one request under way."""
    config = RemoteConfig(base_url=server.base_url, model="big")
    return RemoteClient(
        config, Errors("geography"), api_key=None, clock=lambda: 0.0, rng=random.Random(), max_connections=1
    )


async def test_no_failure_keeps_its_connection(
    server: StandIn, remote: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_runtime.llm.remote.client.POOL_SECONDS", 5.0)
    client = one_connection(server)

    async def ask() -> list[str]:
        async with client.stream("chat/completions", {}, deadline=None, max_bytes=2**20) as events:
            return [event async for event in events]

    failures = [refusal("no"), GARBAGE["an HTML page"], GARBAGE["an empty stream"], GARBAGE["not UTF-8"]]
    remote.chat(*failures, stream(piece("Par"), then="cut"), well_behaved("Paris"))
    for _ in range(5):
        with pytest.raises(GenerationError) as caught:
            await ask()
        assert caught.value.code in ("remote_refused", "remote_failed")

    assert len(await ask()) == 4
    await client.aclose()


async def test_a_request_that_finds_no_free_connection_is_told_to_come_back(
    server: StandIn, remote: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_runtime.llm.remote.client.POOL_SECONDS", 0.1)
    remote.chat(silence)
    client = one_connection(server)

    async def ask() -> None:
        async with client.stream("chat/completions", {}, deadline=None, max_bytes=100):
            pass

    first = asyncio.create_task(ask())
    assert await asyncio.to_thread(remote.waiting.wait, 20)
    with pytest.raises(GenerationError) as caught:
        await ask()

    assert (caught.value.code, caught.value.retry_after) == ("remote_overloaded", 1)
    assert client.circuit.outcomes == ()  # that is not the remote's fault
    first.cancel()
    await asyncio.wait({first})
    await client.aclose()
