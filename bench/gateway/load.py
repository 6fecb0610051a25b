"""Open-loop load at a fixed rate, spread over several servers. Layer: tooling.

`python -m bench.gateway.load SECONDS RATE HOST:PORT...` prints one JSON object: for each server the seconds
every request took, from its first byte written to the last byte read.

The one idea: at every tick each server gets one request, a moment apart and in an order that turns, so what
disturbs the machine disturbs all of them alike. A request never waits for an earlier one: it takes a
connection that is free, or a new one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import cast

import httptools
import uvloop

_QUESTION = "What is the capital of France? " * 8


def body(number: int) -> bytes:
    """A chat request; a hundred conversations take turns."""
    content = f"Conversation {number % 100}. {_QUESTION}"
    request = {
        "model": "geo",
        "max_tokens": 64,
        "messages": [
            {"role": "system", "content": "You answer briefly."},
            {"role": "user", "content": content},
        ],
    }
    return json.dumps(request).encode()


def request(host: str, number: int) -> bytes:
    """The request as OpenAI's client would send it."""
    content = body(number)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: gzip, deflate\r\n"
        "Connection: keep-alive\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
        "User-Agent: OpenAI/Python\r\nAuthorization: Bearer ao-0123456789012345678901234567890123456789\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


class Connection(asyncio.Protocol):
    """One request at a time."""

    transport: asyncio.Transport

    def __init__(self, target: Target) -> None:
        self._target = target
        self._parser = httptools.HttpResponseParser(self)
        self._begun = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self, data: bytes) -> None:
        self._begun = time.perf_counter()
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() != 200:
            raise RuntimeError(f"{self._target.address} answered {self._parser.get_status_code()}")
        self._target.taken.append(time.perf_counter() - self._begun)
        self._target.free.append(self)


class Target:
    """One server and the connections to it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.host, _, port = address.partition(":")
        self.port = int(port)
        self.free: list[Connection] = []
        self.taken: list[float] = []

    async def connect(self) -> None:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self), self.host, self.port
        )
        self.free.append(connection)

    async def ask(self, number: int) -> None:
        if not self.free:
            await self.connect()
        self.free.pop().send(request(self.host, number))


async def measure(seconds: float, rate: float, targets: list[Target]) -> None:
    """The load itself; the first second warms up and is thrown away."""
    loop = asyncio.get_running_loop()
    for target in targets:
        for _ in range(4):
            await target.connect()
    step = 1 / rate / len(targets)
    begun = loop.time()
    asked = 0
    warm = int(rate)
    for number in range(int(rate * (seconds + 1))):
        if number == warm:
            await asyncio.sleep(0.2)
            begun += 0.2
            for target in targets:
                target.taken.clear()
        for turn in range(len(targets)):
            await asyncio.sleep(max(0.0, begun + asked * step - loop.time()))
            await targets[(number + turn) % len(targets)].ask(number)
            asked += 1
    expected = int(rate * (seconds + 1)) - warm
    end = loop.time() + 10
    while loop.time() < end and any(len(one.taken) < expected for one in targets):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    if any(len(target.taken) != expected for target in targets):
        raise RuntimeError(f"answers are missing: {[len(target.taken) for target in targets]} of {expected}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=float)
    parser.add_argument("rate", type=float)
    parser.add_argument("addresses", nargs="+")
    options = parser.parse_args()
    targets = [Target(address) for address in options.addresses]
    uvloop.run(measure(options.seconds, options.rate, targets))
    print(json.dumps({target.address: sorted(target.taken) for target in targets}))


if __name__ == "__main__":
    main()
