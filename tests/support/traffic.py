"""Requests to an agent as its clients send them. Layer: tests and tooling; imports aiohttp, kubectl.

The one idea: open loop. A request goes when its time has come, whatever became of the others, each on a
connection of its own as from a client of its own, and whatever goes wrong is an outcome and no exception: a
refused connection is a failed request, as it is for a user.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.support.kubectl import Kubectl

QUESTION = "What is the capital of France?"
TIMEOUT_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request. Times are Unix seconds."""

    sent: float
    first_byte: float
    ended: float
    status: int
    """0: no answer at all."""
    headers: dict[str, str]
    body: str
    """The answer, or what went wrong with the connection."""

    @property
    def answered(self) -> bool:
        """Whether this is what the client asked for; an event may tell an error after the 200."""
        return self.status == 200 and '"error":' not in self.body

    def told(self) -> str:
        """The status and the beginning of the answer, for a failure."""
        return f"{self.status} after {self.ended - self.sent:.2f} s: {self.body[:200]}"


@dataclass
class Traffic:
    """A stream of requests in the background, one every `every` seconds, until it is stopped."""

    client: Client
    every: float
    fields: dict[str, Any] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Traffic:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stops sending, and waits for what is under way."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def failed(self) -> list[str]:
        """What went wrong, in words."""
        return [outcome.told() for outcome in self.outcomes if not outcome.answered]

    async def _run(self) -> None:
        begin, number = time.monotonic(), 0
        async with asyncio.TaskGroup() as tasks:
            try:
                while True:
                    tasks.create_task(self._one())
                    number += 1
                    await asyncio.sleep(max(0.0, begin + number * self.every - time.monotonic()))
            except asyncio.CancelledError:
                return  # the group waits for those that were sent

    async def _one(self) -> None:
        self.outcomes.append(await self.client.ask(**self.fields))


class Client:
    """Asks one agent through its Service's cluster address, which the node reaches directly."""

    def __init__(self, session: aiohttp.ClientSession, address: str, model: str) -> None:
        self._session = session
        self._url = f"http://{address}/v1/chat/completions"
        self._model = model

    async def ask(self, *, key: str | None = None, **fields: Any) -> Outcome:
        """One request; `fields` are added to its body."""
        body = {"model": self._model, "messages": [{"role": "user", "content": QUESTION}], **fields}
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        sent = first = time.time()
        try:
            async with self._session.post(self._url, data=json.dumps(body), headers=headers) as response:
                first = time.time()
                text = (await response.read()).decode(errors="replace")
                return Outcome(sent, first, time.time(), response.status, _lower(response.headers), text)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Outcome(sent, first, time.time(), 0, {}, f"{type(error).__name__}: {error}")

    async def burst(self, number: int, rate: float | None = None, **fields: Any) -> list[Outcome]:
        """`number` requests, `rate` a second or all at once."""
        begin = time.monotonic()

        async def one(index: int) -> Outcome:
            if rate:
                await asyncio.sleep(max(0.0, begin + index / rate - time.monotonic()))
            return await self.ask(**fields)

        return await asyncio.gather(*(one(index) for index in range(number)))


def session() -> aiohttp.ClientSession:
    """Every request on a connection of its own, and no limit of them."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS, connect=10)
    )


def address_of(kubectl: Kubectl, agent: str) -> str:
    """The cluster address of the agent's Service."""
    return str((kubectl.get("service", agent) or {})["spec"]["clusterIP"])


def slow(seconds: float) -> dict[str, Any]:
    """Fields of a request that the tiny model computes for about so long when it is alone."""
    tokens = max(1, int(seconds / 0.004))
    return {"max_tokens": tokens, "ignore_eos": True}


def failures(outcomes: Iterable[Outcome]) -> list[str]:
    """What went wrong, in words."""
    return [outcome.told() for outcome in outcomes if not outcome.answered]


def by_status(outcomes: Sequence[Outcome]) -> dict[int, int]:
    """How many got which status; 0 is no answer."""
    return {s: sum(o.status == s for o in outcomes) for s in sorted({o.status for o in outcomes})}


def _lower(headers: Any) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in headers.items()}
