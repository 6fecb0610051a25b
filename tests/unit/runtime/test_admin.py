"""The admin port over real HTTP: anybody who reaches it may look, few may change."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from agent_runtime.access.gate import Gate
from agent_runtime.access.reload import KeySource
from agent_runtime.api.admin import Admin, admin_app, from_this_host, token_matches
from agent_runtime.api.long_poll import Changes, LongPoll, Moment
from agent_runtime.contract import AdminConfig, Parameters
from agent_runtime.observability import logging as runtime_logging
from agent_runtime.observability.metrics import Metrics
from agent_runtime.parameters import LiveParameters
from agent_runtime.stats import ModelFacts, Stats
from tests.support.asgi_server import serving

TOKEN = "the-admin-token-0123456789"
SHA = hashlib.sha256(TOKEN.encode()).hexdigest()


class World:
    def __init__(self, token_sha256: str | None = None, gate: Gate | None = None) -> None:
        self.metrics = Metrics("geo")
        self.parameters = LiveParameters(Parameters())
        self.refuse = False
        self.parameters.subscribe("admission", ["max_concurrency"], self.apply)
        self.app = admin_app(
            Admin(
                config=AdminConfig(token_sha256=token_sha256),
                parameters=self.parameters,
                exposition=self.metrics.render,
                stats=lambda: Stats(
                    state="READY", since=1.0, uptime_seconds=2.0, model=ModelFacts(served_name="geo"),
                    parameters=self.parameters.value,
                ),
                polls=LongPoll(Changes(), lambda: Moment(0, "READY")),
                gate=gate,
                routes=[Route("/health/live", self.live)],
                on_change=self.metrics.parameters_changed,
            )
        )  # fmt: skip

    def apply(self, new: Parameters) -> None:
        if self.refuse:
            raise RuntimeError("no room")

    async def live(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse("alive")


@pytest.fixture
def world() -> World:
    return World()


@contextmanager
def client(world: World) -> Iterator[httpx2.Client]:
    with serving(world.app) as url, httpx2.Client(base_url=url, trust_env=False, timeout=30) as http:
        yield http


@pytest.fixture
def http(world: World) -> Iterator[httpx2.Client]:
    with client(world) as http:
        yield http


def error(response: httpx2.Response) -> tuple[int, str, str | None]:
    found = response.json()["error"]
    return response.status_code, found["code"], found["param"]


def test_metrics_stats_and_probes_are_there_for_everybody(http: httpx2.Client) -> None:
    metrics = http.get("/metrics")
    stats = Stats.decode(http.get("/stats").content)

    assert 'vllm:num_requests_running{model_name="geo"} 0.0' in metrics.text
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert stats is not None and stats.model.served_name == "geo"
    assert http.get("/health/live").text == "alive"


@pytest.mark.parametrize(
    ("query", "param"), [("wait=5", "load"), ("wait=x&load=0", "wait"), ("wait=1&load=0&state=x", "state")]
)
def test_a_poll_that_cannot_be_understood_is_refused_by_name(
    http: httpx2.Client, query: str, param: str
) -> None:
    assert error(http.get(f"/stats?{query}")) == (400, "invalid_value", param)


def test_a_poll_is_answered_with_the_record(http: httpx2.Client) -> None:
    polled = Stats.decode(http.get("/stats?wait=0.01&load=0").content)

    assert polled is not None and polled.state == "READY"
    assert Stats.decode(http.get("/stats?wait=60&load=1").content) == polled
    assert Stats.decode(http.get("/stats?wait=60&load=0&state=LOADING").content) == polled


def test_parameters_are_shown_changed_and_remembered(world: World, http: httpx2.Client) -> None:
    changed = http.patch("/admin/parameters", json={"max_concurrency": 32})

    assert (changed.status_code, changed.json()["max_concurrency"]) == (200, 32)
    assert world.parameters.value.max_concurrency == 32
    shown = {found["name"]: found for found in http.get("/admin/parameters").json()["parameters"]}
    assert shown["max_concurrency"]["value"] == 32 and shown["max_concurrency"]["live"]
    assert shown["max_concurrency"]["bounds"] == {"minimum": 1, "maximum": 4096}
    (change,) = http.get("/admin/parameters/history").json()["changes"]
    assert (change["who"], change["result"]) == ("loopback", "applied")
    assert change["changes"] == {"max_concurrency": {"from": 16, "to": 32}}
    assert 'agent_runtime_parameter_changes_total{result="applied"} 1.0' in http.get("/metrics").text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"max_concurrency": 0}', (400, "invalid_value", "max_concurrency")),
        (b'{"surprise": 1}', (400, "invalid_value", "surprise")),
        (b'{"max_input_tokens": 1}', (409, "not_changeable_live", "max_input_tokens")),
        (b"[]", (400, "invalid_json", None)),
        (b"{", (400, "invalid_json", None)),
        (b"[" * 10_000, (400, "invalid_json", None)),
        (b" " * 20_000, (413, "request_too_large", None)),
    ],
)
def test_a_bad_change_is_refused_by_name(
    world: World, http: httpx2.Client, body: bytes, expected: tuple[int, str, str | None]
) -> None:
    assert error(http.patch("/admin/parameters", content=body)) == expected
    assert world.parameters.value == Parameters()


def test_a_change_a_part_refuses_is_undone_and_told(world: World, http: httpx2.Client) -> None:
    world.refuse = True

    response = http.patch("/admin/parameters", json={"max_concurrency": 32})

    assert error(response) == (409, "parameters_not_applied", None)
    assert "admission" in response.text and "no room" in response.text
    assert http.get("/admin/parameters/history").json()["changes"][0]["result"] == "restored"


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Origin", "Via"])
def test_what_was_passed_on_is_not_from_this_host(world: World, http: httpx2.Client, header: str) -> None:
    response = http.patch("/admin/parameters", json={"max_concurrency": 32}, headers={header: "127.0.0.1"})

    assert error(response)[:2] == (403, "admin_loopback_only")
    assert world.parameters.value == Parameters()


def test_where_a_token_is_configured_nothing_else_opens() -> None:
    world = World(token_sha256=SHA)
    with client(world) as http:
        change = {"max_concurrency": 32}
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            refused = http.patch("/admin/parameters", json=change, headers=headers)
            assert error(refused)[:2] == (401, "invalid_admin_token")
            assert refused.headers["www-authenticate"] == "Bearer"

        accepted = http.patch("/admin/parameters", json=change, headers={"Authorization": f"Bearer {TOKEN}"})

        assert accepted.status_code == 200
        assert world.parameters.history[0].who == "admin token"
        assert http.get("/stats").status_code == http.get("/admin/parameters").status_code == 200


def test_an_api_key_marked_admin_may_change_and_is_named(tmp_path: Path) -> None:
    for name, admin in (("boss", True), ("web", False)):
        entry = {"sha256": hashlib.sha256(f"{name}-key".encode()).hexdigest(), "admin": admin}
        (tmp_path / name).write_text(json.dumps(entry))
    world = World(token_sha256=SHA, gate=Gate(KeySource(tmp_path)))
    with client(world) as http:
        change = {"max_concurrency": 32}

        web = http.patch("/admin/parameters", json=change, headers={"Authorization": "Bearer web-key"})
        boss = http.patch("/admin/parameters", json=change, headers={"Authorization": "Bearer boss-key"})

        assert (web.status_code, boss.status_code) == (401, 200)
        assert world.parameters.history[0].who == "API key 'boss'"


def test_the_log_level_changes_at_once(http: httpx2.Client) -> None:
    root = logging.getLogger()
    before = root.level
    try:
        runtime_logging.set_level("info")
        assert http.get("/admin/log-level").json() == {"level": "info"}

        assert http.put("/admin/log-level", json={"level": "debug"}).json() == {"level": "debug"}

        assert root.level == logging.DEBUG
        assert error(http.put("/admin/log-level", json={"level": "loud"})) == (400, "invalid_value", "level")
        assert error(http.put("/admin/log-level", json={"levle": "info"})) == (
            400,
            "unsupported_field",
            "levle",
        )
        assert root.level == logging.DEBUG
    finally:
        root.setLevel(before)


def test_unknown_paths_and_methods_are_told_in_the_same_shape(http: httpx2.Client) -> None:
    assert error(http.get("/nothing")) == (404, "not_found", None)
    assert error(http.delete("/admin/parameters")) == (405, "method_not_allowed", None)


@pytest.mark.parametrize(
    ("peer", "here"),
    [
        ("127.0.0.1", True), ("127.8.9.10", True), ("::1", True), ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False), ("::ffff:10.0.0.1", False), ("", False), ("testclient", False), (None, False),
    ],
)  # fmt: skip
def test_only_loopback_addresses_are_this_host(peer: str | None, here: bool) -> None:
    assert from_this_host(peer, {}) is here


def test_a_token_is_compared_by_its_hash() -> None:
    assert token_matches(TOKEN, SHA)
    assert not token_matches(TOKEN + "x", SHA) and not token_matches(SHA, SHA)
