"""HTTP endpoints as tools, against a real server that misbehaves."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from agent_runtime.agent.tools import NotSentError, Tool, ToolError, ToolPolicy, TransportError
from agent_runtime.agent.tools.http import http_tool
from agent_runtime.contract import HttpToolConfig
from agent_runtime.observability import tracing
from tests.support.asgi_server import serving

MIB = 2**20


async def echo(request: Request) -> Response:
    body = await request.body()
    return JSONResponse(
        {
            "method": request.method,
            "query": request.url.query,
            "body": body.decode(),
            "authorization": request.headers.get("authorization"),
            "encodings": request.headers.get("accept-encoding"),
            "traceparent": request.headers.get("traceparent"),
        }
    )


async def hang(request: Request) -> Response:
    while not await request.is_disconnected():
        await asyncio.sleep(0.01)
    return Response()


async def huge(request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        while True:  # without end: whoever reads it all never returns
            yield b"x" * 65536
            await asyncio.sleep(0.001)  # so that the server notices that its client has left

    return StreamingResponse(chunks(), media_type="text/plain")


async def long_text(request: Request) -> Response:
    return PlainTextResponse("y" * 5000)


async def bomb(request: Request) -> Response:
    return Response(gzip.compress(b"0" * 50 * MIB), headers={"Content-Encoding": "gzip"})


async def failing(request: Request) -> Response:
    return PlainTextResponse("the database is down", 500)


async def binary(request: Request) -> Response:
    return Response(bytes(range(256)), media_type="image/png")


async def latin(request: Request) -> Response:
    return Response("déjà".encode("latin-1"), media_type="text/plain; charset=latin-1")


async def redirect(request: Request) -> Response:
    return RedirectResponse(request.query_params["to"], int(request.query_params.get("status", 307)))


async def around(request: Request) -> Response:
    return RedirectResponse("/around", 307)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    pages = [echo, hang, huge, long_text, bomb, failing, binary, latin, redirect, around]
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    with serving(
        Starlette(routes=[Route(f"/{page.__name__}", page, methods=methods) for page in pages])
    ) as url:
        yield url


@asynccontextmanager
async def tool(
    url: str, method: str = "POST", token: str | None = None, limit: int = 1000
) -> AsyncIterator[Tool]:
    config = HttpToolConfig(url=url, method=method, description="Does it.")
    async with httpx2.AsyncClient(timeout=2) as client:
        yield http_tool("it", config, ToolPolicy(max_result_bytes=limit), client, lambda: token)


async def call(url: str, arguments=None, **options):
    async with tool(url, **options) as made:
        return await made.call(arguments or {})


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_arguments_are_the_json_body(server: str, method: str) -> None:
    output = await call(f"{server}/echo", {"city": "Paris"}, method=method)

    assert f'"method":"{method}"' in output.text
    assert '"body":"{\\"city\\":\\"Paris\\"}"' in output.text


async def test_arguments_of_get_are_added_to_the_query(server: str) -> None:
    output = await call(
        f"{server}/echo?key=1",
        {"city": "Paris & Rome", "days": 2, "wet": True, "tags": ["a", "b"], "none": None, "at": {"x": 1}},
        method="GET",
    )

    assert (
        '"query":"key=1&city=Paris+%26+Rome&days=2&wet=true&tags=a&tags=b&at=%7B%22x%22%3A+1%7D"'
        in output.text
    )


async def test_the_trace_goes_on_in_the_tool(server: str) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    with tracing.received(traceparent):
        inside = await call(f"{server}/echo")
    outside = await call(f"{server}/echo")

    assert f'"traceparent":"{traceparent}"' in inside.text
    assert '"traceparent":null' in outside.text


async def test_the_token_is_sent_and_compression_is_not_asked_for(server: str) -> None:
    output = await call(f"{server}/echo", token="s3cret")

    assert '"authorization":"Bearer s3cret"' in output.text
    assert '"encodings":"identity"' in output.text


async def test_an_http_error_is_the_tools_failure_with_its_words(server: str) -> None:
    output = await call(f"{server}/failing")

    assert (output.text, output.is_error) == ("HTTP 500: the database is down", True)


async def test_an_endless_answer_is_read_up_to_the_limit(server: str) -> None:
    output = await call(f"{server}/huge")

    assert output.text == "x" * 1000
    assert output.cut_bytes > 0


async def test_an_answer_longer_than_the_limit_says_how_much_is_missing(server: str) -> None:
    output = await call(f"{server}/long_text")

    assert (len(output.text), output.cut_bytes) == (1000, 4000)


async def test_a_compressed_answer_is_not_unpacked(server: str) -> None:
    with pytest.raises(ToolError, match="compresses its answer"):
        await call(f"{server}/bomb", method="GET")


async def test_binary_data_is_named_not_shown(server: str) -> None:
    assert (await call(f"{server}/binary")).text == "[256 bytes of image/png]"


async def test_the_answers_own_charset_is_used(server: str) -> None:
    assert (await call(f"{server}/latin")).text == "déjà"


async def test_a_server_that_does_not_answer_is_a_transport_failure(server: str) -> None:
    config = HttpToolConfig(url=f"{server}/hang", description="Hangs.")
    async with httpx2.AsyncClient(timeout=0.05) as client:
        with pytest.raises(TransportError) as error:
            await http_tool("it", config, ToolPolicy(), client).call({})

    assert not isinstance(error.value, NotSentError)


async def test_a_server_that_is_not_there_was_certainly_not_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(NotSentError):
        await call(f"http://127.0.0.1:{port}/")


async def test_a_redirect_within_the_origin_is_followed(server: str) -> None:
    output = await call(f"{server}/redirect?to=/echo", {"city": "Paris"}, token="s3cret")

    assert '"body":"{\\"city\\":\\"Paris\\"}"' in output.text


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("to=http://127.0.0.1:1/steal", "127.0.0.1:1/steal, which is not followed"),
        (
            "to=http://169.254.169.254/latest%3Fkey%3D1",
            "http://169.254.169.254/latest, which is not followed",
        ),
        ("to=file:///etc/passwd", "which is not followed"),
        ("to=/echo&status=303", "which is not followed"),
        ("to=/around", "redirects more than 3 times"),
    ],
)
async def test_a_redirect_to_anywhere_else_is_not(server: str, query: str, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        await call(f"{server}/redirect?{query}", token="s3cret")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "/relative", "http://", "host:80/x"])
async def test_a_url_that_is_not_http_is_refused_when_the_tool_is_made(url: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        async with tool(url):
            pass
