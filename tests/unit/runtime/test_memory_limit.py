"""Memory really runs out: the process may take so much address space and no more (RLIMIT_AS).

What does not fit is refused by itself, what does not fit together is split, and nobody else notices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.raw_http import exchange, post
from tests.unit.runtime.crowd import CHAT, CONTROLLED, FRANCE, asking, idle, witnesses
from tests.unit.runtime.harness import Server, wait_for, write_config
from tests.unit.runtime.test_engine_faults import said

HEADROOM = 160 * 2**20
TOO_LONG = 24_000
"""Tokens. An encoder's attention takes some bytes times their square: gigabytes."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, geography: Path) -> Iterator[Server]:
    """One runtime in little memory that takes long prompts."""
    folder = tmp_path_factory.mktemp("memory")
    (folder / "headroom").write_text(str(HEADROOM))
    parameters = {"max_concurrency": 24, "max_input_tokens": 100_000, "max_queued_tokens": 100_000_000}
    config = write_config(folder, geography, parameters=parameters)
    with Server(folder, "--config", str(config), module=CONTROLLED) as server:
        yield server.wait_ready()


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """The shared runtime, let go and idle after each test."""
    yield shared
    shared.clear("hold")
    idle(shared)


def prompt(server: Server, tokens: int) -> str:
    """Text of at least so many tokens, and hardly more."""
    words = "rivers " * tokens
    counted = server.http.post("/tokenize", json={"prompt": "rivers " * 100}).json()["count"]
    return words[: len("rivers ") * (tokens * 100 // counted + 1)]


async def test_a_request_too_large_for_memory_fails_alone(server: Server) -> None:
    too_long = asking(prompt(server, TOO_LONG), max_tokens=4)

    async with witnesses(server, 16) as seen:
        failed = await exchange(server.url, post(CHAT, too_long))

    assert (failed.status, failed.code) == (413, "out_of_memory")
    assert "shorten" in failed.json()["error"]["message"]
    assert seen.wrong == []
    assert seen.answered >= 16
    assert server.stats()["engine"]["restarts"] == 0


async def test_requests_that_do_not_fit_together_are_split_and_never_answered_wrongly(
    server: Server,
) -> None:
    """Longer and longer ones, until sixteen at once do not fit: which of them do alone is the allocator's
    business, and none may be answered with anything but its answer or its own refusal."""
    before = server.stats()["engine"]["out_of_memory_splits"]
    tokens, answers = 600, []
    async with witnesses(server, 4) as seen:
        while server.stats()["engine"]["out_of_memory_splits"] == before:
            tokens += 200
            long = asking(prompt(server, tokens), max_tokens=4)
            server.touch("hold")
            asked = [asyncio.create_task(exchange(server.url, post(CHAT, long))) for _ in range(16)]
            await asyncio.to_thread(wait_for, "all run", lambda: server.stats()["load"]["running"] >= 16)
            server.clear("hold")
            answers = await asyncio.gather(*asked)
            assert {answer.status for answer in answers} <= {200, 413}
            assert len({said(answer) for answer in answers if answer.status == 200}) <= 1
            assert {answer.code for answer in answers if answer.status == 413} <= {"out_of_memory"}

    assert seen.wrong == []
    assert server.stats()["engine"]["restarts"] == 0
    assert said(await exchange(server.url, post(CHAT, asking(FRANCE)))) == "Paris"
