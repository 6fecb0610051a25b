"""Clients in numbers, who do nothing wrong and notice everything. Layer: tests.

The one idea: what a fault costs is counted in other people's answers, so witnesses ask questions with one
right answer throughout, and every answer that is not it is kept.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.unit.runtime.harness import DEADLINE, Server, wait_for

CHAT = "/v1/chat/completions"
CAPITALS = {"France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Japan": "Tokyo"}
FRANCE = "What is the capital of France?"
CONTROLLED = "tests.unit.runtime.controlled"


def idle(server: Server) -> None:
    """Wait until nothing runs or waits, in the queue or in the engine."""

    def nothing() -> bool:
        found = server.stats()
        load, engine = found["load"], found["engine"]
        return not (load["running"] or load["waiting"] or load["rows"] or engine["busy"])

    wait_for("idle", nothing)


def asking(question: str, **fields: Any) -> dict[str, Any]:
    """The body of one question."""
    return {"messages": [{"role": "user", "content": question}], **fields}


@dataclass
class Witnesses:
    """Clients who do nothing wrong, and what they got. `wrong` is every answer that is not the right one."""

    answered: int = 0
    wrong: list[str] = field(default_factory=list)


@asynccontextmanager
async def witnesses(server: Server, count: int, pause: float = 0.0) -> AsyncIterator[Witnesses]:
    """So many clients who ask one question after the other for as long as the block lasts, and once more
    after it; with a pause, in seconds, where they shall not be the load themselves."""
    seen, over = Witnesses(), asyncio.Event()

    async def witness(http: httpx2.AsyncClient, number: int) -> None:
        countries = list(CAPITALS)
        while True:
            last = over.is_set()
            country = countries[(number + seen.answered) % len(countries)]
            body = asking(f"What is the capital of {country}?", stream=number % 2 == 1)
            try:
                answer = await http.post(CHAT, json=body)
                said = content(answer)
            except (httpx2.HTTPError, ValueError, KeyError) as error:
                said = f"{type(error).__name__}: {error}"
            seen.answered += 1
            if said != CAPITALS[country]:
                seen.wrong.append(f"{country}: {said}")
            if last:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(pause or None):
                    await (over.wait() if pause else asyncio.sleep(0))

    async with httpx2.AsyncClient(base_url=server.url, timeout=DEADLINE, trust_env=False) as http:
        running = [asyncio.create_task(witness(http, number)) for number in range(count)]
        try:
            yield seen
        finally:
            over.set()
            await asyncio.gather(*running)


def content(answer: httpx2.Response) -> str:
    """The words of a chat answer, streamed or not. Raises ValueError or KeyError when it is none."""
    if answer.status_code != 200:
        raise ValueError(f"{answer.status_code} {answer.text}")
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return str(answer.json()["choices"][0]["message"]["content"])
    events = answer.text.split("\n\n")
    if events[-2:] != ["data: [DONE]", ""]:
        raise ValueError(f"the stream ends with {events[-2:]}")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
