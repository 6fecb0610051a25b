"""The engine, the remote model or a tool fails while others are being answered: none of them notices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.raw_http import Answer, exchange, post
from tests.unit.remote.standin import (
    Handler,
    Script,
    StandIn,
    piece,
    raw_stream,
    silence,
    sse,
    status,
    stream,
    usage,
    well_behaved,
)
from tests.unit.runtime.crowd import CAPITALS, CHAT, CONTROLLED, FRANCE, asking, idle
from tests.unit.runtime.harness import Server, wait_for, write_config

OTHERS = 16
POISON = "poison"
"""What controlled.py takes for a poisoned prompt."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, geography: Path) -> Iterator[Server]:
    """One runtime with a slot for everybody."""
    folder = tmp_path_factory.mktemp("engine")
    config = write_config(folder, geography, parameters={"max_concurrency": 32})
    with Server(folder, "--config", str(config), module=CONTROLLED) as server:
        yield server.wait_ready()


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """The shared runtime, let go and idle after each test."""
    yield shared
    shared.clear("hold")
    idle(shared)


async def others(server: Server) -> list[asyncio.Task[Answer]]:
    """So many requests inside the held engine, each for another capital, every second one streamed."""
    server.touch("hold")
    countries = list(CAPITALS)
    asked = [
        asyncio.create_task(
            exchange(
                server.url,
                post(
                    CHAT,
                    asking(f"What is the capital of {countries[number % 4]}?", stream=number % 2 == 1),
                ),
            )
        )
        for number in range(OTHERS)
    ]
    await asyncio.to_thread(wait_for, "all of them run", lambda: server.stats()["load"]["running"] >= OTHERS)
    return asked


def said(answer: Answer) -> str:
    """The words of an answer, streamed or not; the whole of anything else."""
    if answer.status != 200 or not answer.whole:
        return f"{answer.status} {answer.body!r}"
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return str(answer.json()["choices"][0]["message"]["content"])
    *events, done, _ = answer.body.decode().split("\n\n")
    if done != "data: [DONE]":
        return f"a stream that ends with {done}"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


async def harmed(asked: list[asyncio.Task[Answer]]) -> list[str]:
    """What was answered in place of the right answers."""
    right = list(CAPITALS.values())
    answers = [said(answer) for answer in await asyncio.gather(*asked)]
    return [answer for number, answer in enumerate(answers) if answer != right[number % 4]]


async def test_the_engines_thread_dies_and_every_request_in_it_is_answered(server: Server) -> None:
    before = server.stats()["engine"]["restarts"]
    asked = await others(server)

    server.touch("death")
    server.clear("hold")
    wrong = await harmed(asked)

    assert wrong == []
    assert not (server.control / "death").exists()
    assert server.stats()["engine"]["restarts"] == before + 1
    assert server.http.get("/health/live").status_code == 200


async def test_a_poisoned_request_among_sixteen_fails_alone(server: Server) -> None:
    asked = await others(server)

    poisoned = asyncio.create_task(exchange(server.url, post(CHAT, asking(POISON))))
    await asyncio.to_thread(
        wait_for, "it is among them", lambda: server.stats()["load"]["running"] == OTHERS + 1
    )
    server.clear("hold")
    failed = await poisoned
    wrong = await harmed(asked)

    assert (failed.status, failed.code) == (500, "generation_failed")
    assert wrong == []


@dataclass
class Watched:
    """What the probes and the record said, one look after the other."""

    live: list[int] = field(default_factory=list)
    ready: list[int] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)

    async def look(self, server: Server) -> str:
        """Asks once; the engine's progress in one word."""
        for path, found in (("live", self.live), ("ready", self.ready)):
            answer = await asyncio.to_thread(server.admin.get, f"/health/{path}")
            found.append(answer.status_code)
        self.records.append(await asyncio.to_thread(server.stats))
        return str(self.records[-1]["progress"])


STALL_SECONDS = 5.0


def in_one_word(engine: dict[str, Any]) -> str:
    """What the word must be by the figures beside it."""
    if engine["busy"] == 0:
        return "Idle"
    return "Stalled" if engine["idle_seconds"] >= STALL_SECONDS else "Busy"


async def test_a_hung_engine_is_found_by_every_witness_and_a_saturated_one_by_none(
    tmp_path: Path, geography: Path
) -> None:
    parameters = {"max_concurrency": 4, "max_queued_requests": 100}
    config = write_config(tmp_path, geography, parameters=parameters, stall_seconds=STALL_SECONDS)
    with Server(tmp_path, "--config", str(config), module=CONTROLLED) as server:
        server.wait_ready()
        saturated, hung = Watched(), Watched()

        body = post(CHAT, asking("List the continents."))
        asked = [asyncio.create_task(exchange(server.url, body)) for _ in range(32)]
        while not all(task.done() for task in asked):
            await saturated.look(server)
        server.touch("hold")
        hanging = asyncio.create_task(exchange(server.url, post(CHAT, asking(FRANCE))))
        while await hung.look(server) != "Stalled":
            assert len(hung.records) < 10_000
        await hung.look(server)
        reason = server.http.get("/health/live").json()["reason"]
        server.clear("hold")
        answer = await hanging
        idle(server)

        assert set(saturated.live) == set(saturated.ready) == {200}
        assert {record["progress"] for record in saturated.records} <= {"Busy", "Idle"}
        assert "Busy" in {record["progress"] for record in saturated.records}
        assert (hung.live[0], hung.ready[0], hung.live[-1], hung.ready[-1]) == (200, 200, 503, 503)
        # Word and figure are taken one after the other: at the very moment of the stall they may differ.
        told = [
            record
            for record in (*saturated.records, *hung.records)
            if abs(record["engine"]["idle_seconds"] - STALL_SECONDS) > 0.1
        ]
        assert [record["progress"] for record in told] == [in_one_word(record["engine"]) for record in told]
        assert "no token for" in reason
        assert said(answer) == "Paris"
        assert (server.stats()["progress"], server.http.get("/health/ready").status_code) == ("Idle", 200)


async def test_a_poll_hears_of_a_stall_that_begins_while_it_waits(tmp_path: Path, geography: Path) -> None:
    config = write_config(tmp_path, geography, stall_seconds=STALL_SECONDS)
    with Server(tmp_path, "--config", str(config), module=CONTROLLED) as server:
        server.wait_ready().touch("hold")
        asked = asyncio.create_task(exchange(server.url, post(CHAT, asking(FRANCE))))
        words, load = [""], 0
        while words[-1] != "Stalled":  # a poll that hears of nothing takes longer than this client waits
            answer = await asyncio.to_thread(server.admin.get, f"/stats?wait=60&load={load}", timeout=45)
            words.append(answer.json()["progress"])
            load = answer.json()["load"]["running"]
        server.clear("hold")

        assert "Idle" not in words
        assert said(await asked) == "Paris"


# A remote model


@pytest.fixture(scope="module")
def remote() -> Iterator[StandIn]:
    """A model behind an API, and a tool, both as bad as a test wants them."""
    made = StandIn()
    yield made
    made.close()


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, remote: StandIn) -> Iterator[Server]:
    """A runtime in front of it, with one tool there."""
    folder = tmp_path_factory.mktemp("front")
    model = {
        "uri": "remote",
        "served_name": "front",
        "remote": {"base_url": remote.base_url, "model": "big", "timeout_seconds": 60},
    }
    tool = {
        "name": "look_up",
        "http": {"url": remote.base_url.replace("/v1", "/tool"), "description": "Looks something up."},
        "timeout_seconds": 0.5,
        "retries": 0,
    }
    remote.script = working()
    config = write_config(folder, folder, model=model, agent={"tools": [tool]})
    with Server(folder, "--config", str(config)) as server:
        yield server.wait_ready()


def working(*chat: Handler) -> Script:
    """A remote that lists its model and answers conversations, after these handlers, rightly."""
    script = Script()
    script.on("/v1/models", status(200, {"object": "list", "data": [{"id": "big", "object": "model"}]}))
    script.chat(*chat, well_behaved("Par", "is"))
    return script


GARBAGE = {
    "bytes": raw_stream(b"\xff\xfe\x00garbage\x80\n\n"),
    "html": status(200, b"<html>It works!</html>", Content_Type="text/html"),
    "broken json": raw_stream(sse('{"choices": [')),
    "wrong types": stream({"choices": "none"}),
    "cut off": raw_stream(sse(piece("Par")), then="cut"),
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_garbage_from_the_remote_is_one_502_and_the_next_request_is_answered(
    front: Server, remote: StandIn, kind: str
) -> None:
    remote.script = working(*[GARBAGE[kind]] * 3)

    failed = await exchange(front.url, post(CHAT, asking(FRANCE)))
    await recovered(front, remote)

    assert (failed.status, failed.code) == (502, "remote_failed")
    assert front.http.get("/health/live").status_code == 200


async def recovered(front: Server, remote: StandIn) -> None:
    """Returns once the remote is asked again: after many failures it is left alone for a while."""
    remote.script = working()
    await asyncio.to_thread(wait_for, "answered again", lambda: front.chat(FRANCE).text.count("Paris") == 1)


async def test_a_remote_that_is_slow_costs_its_own_request_its_deadline(
    front: Server, remote: StandIn
) -> None:
    remote.script = working(silence)

    late = asyncio.create_task(
        exchange(front.url, post(CHAT, asking(FRANCE), {"x-request-timeout-seconds": "1"}))
    )
    await asyncio.to_thread(remote.script.waiting.wait, 60)
    others = await asyncio.gather(*(exchange(front.url, post(CHAT, asking(FRANCE))) for _ in range(16)))

    assert [said(answer) for answer in others] == ["Paris"] * 16
    answer = await late
    assert (answer.status, answer.code) == (504, "deadline_exceeded")


async def test_a_remote_that_is_overloaded_is_429_and_says_when_to_return(
    front: Server, remote: StandIn
) -> None:
    remote.script = working(*[status(429, {"error": {"message": "busy"}}, Retry_After="2")] * 3)

    refused = await exchange(front.url, post(CHAT, asking(FRANCE)))
    await recovered(front, remote)

    assert (refused.status, refused.code) == (429, "remote_overloaded")
    assert int(refused.headers["retry-after"]) >= 1


CALL: list[dict[str, Any]] = [
    {"index": 0, "id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
]


async def test_a_tool_that_hangs_times_out_and_only_its_run_notices(front: Server, remote: StandIn) -> None:
    calls = stream(piece("", role="assistant", tool_calls=CALL), piece(finish="tool_calls"), usage(5, 5))
    remote.script = working(calls)
    remote.script.on("/tool", silence)

    running = asyncio.create_task(exchange(front.url, post("/v1/agent/runs", {"input": "Look it up."})))
    await asyncio.to_thread(remote.script.waiting.wait, 60)
    others = await asyncio.gather(*(exchange(front.url, post(CHAT, asking(FRANCE))) for _ in range(16)))
    run = (await running).json()

    observation = run["steps"][0]["tool_calls"][0]["observation"]
    assert [said(answer) for answer in others] == ["Paris"] * 16
    assert (run["status"], run["output"]) == ("completed", "Paris")
    assert "timeout" in json.dumps(observation) or "timed out" in json.dumps(observation)
    assert front.stats()["agent"]["tool_waits"] == 0
    assert front.stats()["agent"]["runs_live"] == 0


async def test_a_remote_that_is_down_is_503_and_liveness_stays_true(front: Server, remote: StandIn) -> None:
    remote.close()

    answers = [await exchange(front.url, post(CHAT, asking(FRANCE))) for _ in range(2)]

    assert {(answer.status, answer.code) for answer in answers} == {(503, "remote_unreachable")}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
    assert front.http.get("/health/live").status_code == 200
    assert front.stats()["load"]["running"] == 0
