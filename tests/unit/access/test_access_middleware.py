"""The gate before a real server, asked by real clients."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from agent_runtime.access.gate import Gate, open_gate, principal_of, require_model, require_tool
from agent_runtime.access.middleware import AccessMiddleware
from agent_runtime.access.reload import KeySource
from agent_runtime.api.errors import ApiError
from agent_runtime.api_keys import Limits, Principal
from agent_runtime.contract import AccessConfig
from tests.support.asgi_server import serving
from tests.support.waiting import wait_for

KEY = "the-web-key-0123456789-abcdef"


class World:
    """A guarded application; `hold` keeps streams open, `now` is the gate's clock."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, 0.0
        self.hold = threading.Event()
        self.reached: list[str] = []
        self.refused: list[str] = []
        self.entry()
        self.source = KeySource(folder)
        self.gate = Gate(self.source, clock=lambda: self.now)
        app = Starlette(
            routes=[
                Route("/v1/models", self.models),
                Route("/v1/stream", self.stream),
                Route("/v1/fail", self.fail),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/health/live", self.models),
                WebSocketRoute("/v1/socket", self.socket),
            ]
        )
        self.app = AccessMiddleware(app, self.gate, on_refused=self.refused.append)

    def entry(self, **fields: object) -> None:
        from hashlib import sha256

        content = {"sha256": sha256(KEY.encode()).hexdigest(), **fields}
        (self.folder / "web").write_text(json.dumps(content))
        if hasattr(self, "source"):
            self.source.poll()

    async def models(self, request: Request) -> JSONResponse:
        self.reached.append(request.url.path)
        principal = principal_of(request.scope)
        return JSONResponse({"name": None if principal is None else principal.name})

    async def stream(self, request: Request) -> StreamingResponse:
        async def pieces() -> Iterator[bytes]:
            import anyio

            yield b"first\n"
            while not self.hold.is_set():
                await anyio.sleep(0.01)
            yield b"last\n"

        return StreamingResponse(pieces())  # type: ignore[arg-type]

    async def fail(self, request: Request) -> JSONResponse:
        raise RuntimeError("a defect")

    async def chat(self, request: Request) -> JSONResponse:
        return JSONResponse(
            {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": []}
        )

    async def socket(self, socket: WebSocket) -> None:
        self.reached.append("socket")
        await socket.accept()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def http(world: World) -> Iterator[httpx2.Client]:
    with serving(world.app) as url, httpx2.Client(base_url=url, trust_env=False, timeout=30) as client:
        yield client


def bearer(key: str = KEY) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def code(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_without_a_key_nothing_behind_the_gate_is_reached(world: World, http: httpx2.Client) -> None:
    response = http.get("/v1/models")

    assert code(response) == (401, "missing_api_key")
    assert response.headers["www-authenticate"] == "Bearer"
    assert code(http.get("/v1/no-such-route")) == (401, "missing_api_key")
    assert world.reached == [] and world.refused == ["missing_api_key", "missing_api_key"]


@pytest.mark.parametrize(
    "headers", [bearer(), {"api-key": KEY}, {"x-api-key": KEY}], ids=["bearer", "api-key", "x-api-key"]
)
def test_the_right_key_is_let_in_and_known_behind(http: httpx2.Client, headers: dict[str, str]) -> None:
    response = http.get("/v1/models", headers=headers)

    assert (response.status_code, response.json()) == (200, {"name": "web"})


def test_a_wrong_key_is_refused_and_not_repeated(http: httpx2.Client) -> None:
    response = http.get("/v1/models", headers=bearer("a-wrong-key-0123456789"))

    assert code(response) == (401, "invalid_api_key")
    assert "a-wrong-key" not in response.text


def test_probes_need_no_key(http: httpx2.Client) -> None:
    assert http.get("/health/live").json() == {"name": None}


def test_an_expired_key_says_so(world: World, http: httpx2.Client) -> None:
    world.entry(expires="2001-01-01T00:00:00Z")

    assert code(http.get("/v1/models", headers=bearer())) == (401, "expired_api_key")


def test_a_revoked_key_is_refused(world: World, http: httpx2.Client) -> None:
    assert http.get("/v1/models", headers=bearer()).status_code == 200

    (world.folder / "web").unlink()
    world.source.poll()

    assert code(http.get("/v1/models", headers=bearer())) == (401, "invalid_api_key")


def test_the_rate_is_told_and_kept(world: World, http: httpx2.Client) -> None:
    world.entry(requests_per_minute=2)
    first = http.get("/v1/models", headers=bearer())
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    http.get("/v1/models", headers=bearer())

    refused = http.get("/v1/models", headers=bearer())

    assert code(refused) == (429, "rate_limit_exceeded")
    assert refused.headers["retry-after"] == "30"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    world.now += 30
    assert http.get("/v1/models", headers=bearer()).status_code == 200


def test_rotating_a_key_gives_no_new_allowance(world: World, http: httpx2.Client) -> None:
    world.entry(requests_per_minute=1)
    http.get("/v1/models", headers=bearer())

    world.entry(requests_per_minute=1, admin=True)

    assert code(http.get("/v1/models", headers=bearer())) == (429, "rate_limit_exceeded")


def test_tokens_used_count_against_the_next_request(world: World, http: httpx2.Client) -> None:
    world.entry(tokens_per_minute=100)
    http.get("/v1/models", headers=bearer())
    world.gate.charge(Principal("web", limits=Limits(tokens_per_minute=100)), 150)

    assert code(http.get("/v1/models", headers=bearer())) == (429, "rate_limit_exceeded")


def test_a_place_is_given_back_when_the_stream_has_ended(world: World, http: httpx2.Client) -> None:
    world.entry(max_concurrency=1)
    with http.stream("GET", "/v1/stream", headers=bearer()) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "first"
        assert code(http.get("/v1/models", headers=bearer())) == (429, "rate_limit_exceeded")
        world.hold.set()
        assert list(lines) == ["last"]

    wait_for("a place", lambda: http.get("/v1/models", headers=bearer()).status_code == 200)


def test_a_place_is_given_back_when_the_client_leaves(world: World, http: httpx2.Client) -> None:
    world.entry(max_concurrency=1)
    with http.stream("GET", "/v1/stream", headers=bearer()) as stream:
        next(stream.iter_lines())

    wait_for("a place", lambda: http.get("/v1/models", headers=bearer()).status_code == 200)


def test_a_place_is_given_back_after_a_defect(world: World, http: httpx2.Client) -> None:
    world.entry(max_concurrency=1)

    once = bearer() | {"Connection": "close"}  # after a defect the server closes the connection anyway

    assert [http.get("/v1/fail", headers=once).status_code for _ in range(3)] == [500, 500, 500]


async def test_websockets_are_refused(world: World) -> None:
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/v1/socket",
        "headers": [(b"authorization", b"Bearer " + KEY.encode())],
    }
    await world.app(scope, receive, send)  # type: ignore[arg-type]

    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert world.reached == []


def test_openais_client_understands_every_refusal(world: World) -> None:
    def ask(key: str) -> object:
        client = openai.OpenAI(
            base_url=f"{url}/v1",
            api_key=key,
            max_retries=0,
            http_client=openai.DefaultHttpxClient(trust_env=False),
        )
        return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])

    with serving(world.app) as url:
        with pytest.raises(openai.AuthenticationError) as wrong:
            ask("wrong")
        assert wrong.value.code == "invalid_api_key"
        assert ask(KEY) is not None
        world.entry(requests_per_minute=1)
        ask(KEY)
        with pytest.raises(openai.RateLimitError) as limited:
            ask(KEY)
        assert limited.value.code == "rate_limit_exceeded"


def test_what_a_key_was_not_given_is_refused_by_name() -> None:
    principal = Principal("web", models=frozenset({"geo"}), tools=frozenset({"search"}))
    require_model(principal, "geo")
    require_tool(principal, "search")
    require_model(None, "anything")

    for refuse, name in ((require_model, "other"), (require_tool, "delete")):
        with pytest.raises(ApiError) as refused:
            refuse(principal, name)
        assert (refused.value.status, refused.value.code) == (403, "permission_denied")
        assert name in refused.value.message and "web" in refused.value.message


def test_without_a_path_there_is_no_gate(tmp_path: Path) -> None:
    assert open_gate(AccessConfig()) is None


def test_with_a_path_the_gate_follows_it(tmp_path: Path) -> None:
    (tmp_path / "web").write_text(KEY)
    gate = open_gate(AccessConfig(api_keys_path=str(tmp_path)))
    assert gate is not None
    try:
        assert gate.recognise({b"x-api-key": KEY.encode()}).name == "web"
    finally:
        gate.source.stop()
