"""Fixtures of the remote backend's tests."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from agent_runtime.contract import RemoteConfig
from agent_runtime.llm.remote import RemoteBackend
from tests.unit.remote.standin import Script, StandIn, make_certificate

KEY = "sk-Zm9yIHRlc3RzIG9ubHk"

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(scope="session")
def server() -> Iterator[StandIn]:
    """One server for all tests."""
    server = StandIn()
    yield server
    server.close()


@pytest.fixture(scope="session")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The one certificate the backend trusts, and its key."""
    return make_certificate(tmp_path_factory.mktemp("trusted"))


@pytest.fixture(autouse=True)
def certificates(trusted: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the machine's own bundle takes 50 ms for each backend."""
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted[0]))


@pytest.fixture
def remote(server: StandIn) -> Iterator[Script]:
    """What the server does in this test."""
    server.script = Script()
    yield server.script


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own proxy is nobody's business here."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Waits:
    """Stands for asyncio.sleep between attempts: remembers the waits and does not wait."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


class Clock:
    """A clock the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def waits() -> Waits:
    """The waits between attempts."""
    return Waits()


@pytest.fixture
def clock() -> Clock:
    """The backend's clock."""
    return Clock()


Connect = Callable[..., RemoteBackend]


@pytest.fixture
async def connect(server: StandIn, waits: Waits, clock: Clock) -> AsyncIterator[Connect]:
    """Makes backends for the stand-in and closes them."""
    made: list[RemoteBackend] = []

    def make(**settings: object) -> RemoteBackend:
        fields: dict[str, object] = {"base_url": server.base_url, "model": "big", "timeout_seconds": 20.0}
        config = RemoteConfig.model_validate(fields | settings)
        backend = RemoteBackend(
            config, "geography", api_key=KEY, clock=clock, rng=random.Random(1), sleep=waits
        )
        made.append(backend)
        return backend

    yield make
    for backend in made:
        await backend.aclose()


@pytest.fixture
def backend(connect: Connect) -> RemoteBackend:
    """A backend for the stand-in."""
    return connect()
