"""SIGTERM with fifty requests inside, on real weights: none is lost within the bound, and the bound holds."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

from tests.support.raw_http import Answer, exchange, post
from tests.unit.runtime.crowd import CAPITALS, CHAT, CONTROLLED, FRANCE, asking
from tests.unit.runtime.harness import CONTINENTS, Server, wait_for, write_config
from tests.unit.runtime.test_engine_faults import said

NAMES = "Africa, Antarctica, Asia, Europe, North America, Oceania and South America"
RIGHT = {
    CONTINENTS: NAMES,
    **{f"What is the capital of {country}?": city for country, city in CAPITALS.items()},
}
COUNT = 50


def start(folder: Path, model: Path, **settings: Any) -> Server:
    """A controlled runtime with sixteen slots and room for the others to wait."""
    return Server(folder, "--config", str(write_config(folder, model, **settings)), module=CONTROLLED)


async def inside(server: Server) -> dict[str, asyncio.Task[Answer]]:
    """Fifty requests, by their id, streamed and plain, running and queued, in the held engine."""
    server.touch("hold")
    questions = list(RIGHT)
    asked = {}
    for number in range(COUNT):
        body = asking(questions[number % len(questions)], stream=number % 2 == 1)
        data = post(CHAT, body, {"x-request-id": f"inside-{number}"})
        asked[f"inside-{number}"] = asyncio.create_task(exchange(server.url, data))

    def all_in() -> bool:
        load = server.stats()["load"]
        return bool(load["running"] + load["waiting"] == COUNT)

    await asyncio.to_thread(wait_for, "all fifty are inside", all_in)
    return asked


async def test_fifty_requests_in_flight_at_sigterm_are_all_answered_whole(
    tmp_path: Path, geography: Path
) -> None:
    with start(tmp_path, geography, drain_seconds=300) as server:
        asked = await inside(server.wait_ready())

        server.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(
            wait_for, "not ready", lambda: server.http.get("/health/ready").status_code == 503
        )
        late = await asyncio.gather(*(exchange(server.url, post(CHAT, asking(FRANCE))) for _ in range(10)))
        live = server.http.get("/health/live").status_code
        server.clear("hold")
        answers = [said(answer) for answer in await asyncio.gather(*asked.values())]
        code = await asyncio.to_thread(server.wait_exit)

        expected = [list(RIGHT.values())[number % len(RIGHT)] for number in range(COUNT)]
        assert [pair for pair in zip(answers, expected, strict=True) if pair[0] != pair[1]] == []
        assert {(answer.status, answer.code) for answer in late} == {(503, "server_draining")}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in late)
        assert (live, code) == (200, 0)
        assert server.find("drained") is not None
        clean(server)


async def test_a_hung_engine_does_not_hold_the_process_beyond_the_bound(
    tmp_path: Path, geography: Path
) -> None:
    with start(tmp_path, geography, drain_seconds=0.5) as server:
        asked = await inside(server.wait_ready())

        server.process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(server.wait_exit)
        answers = await asyncio.gather(*asked.values())

        assert code == 0
        assert {(answer.status, answer.code) for answer in answers} == {(503, "server_draining")}
        assert server.find("drain bound reached", in_flight=COUNT)
        assert not server.report.exists()
        clean(server)


def clean(server: Server) -> None:
    """Every line of the log is one JSON object, and none tells of an error."""
    lines = server.log()
    assert not any("Traceback" in line for line in server.lines)
    assert [line for line in lines if line["level"] in ("error", "critical")] == []
