"""Closed-loop load on one server, from a process of its own. Layer: tooling.

`python -m bench.serving.load URL MODEL --clients N --requests M [--stream]` prints one JSON object: tokens
per second, the seconds to the first byte and to the end of every request, and those between its arrivals.

The one idea: each client asks again when it has its answer, so the number of requests in flight is the
number of clients, at every server. Bytes are counted, not parsed: the client's core must never be the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import httpx2

from bench.serving.models import ROOT
from bench.serving.server import Serving

TOKENS = 64
WORDS = ("river", "capital", "country", "sea", "mountain", "city", "border", "people")
QUESTION = "Which river flows through the capital of the country?"


@dataclass(frozen=True)
class Load:
    """What one run measured. Times in seconds, sorted; `gaps` are those between two arrivals of a stream."""

    tokens_per_second: float
    first: list[float]
    whole: list[float]
    gaps: list[float]

    def percentile(self, values: list[float], share: float) -> float:
        """The value below which this share of the values lies."""
        return values[min(len(values) - 1, int(share * len(values)))]


def run(
    serving: Serving,
    model: str,
    *,
    clients: int,
    requests: int,
    stream: bool,
    chat: bool = False,
    words: int = 0,
) -> Load:
    """Loads a server from other cores: `requests` of each client, prompts `words` longer than usual."""
    command = [
        "taskset", "-c", serving.place.client_cores, sys.executable, "-m", "bench.serving.load", serving.url,
        model, "--clients", str(clients), "--requests", str(requests), "--words", str(words),
        *(["--stream"] if stream else []), *(["--chat"] if chat else []),
    ]  # fmt: skip
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path}
    )
    if done.returncode:
        raise RuntimeError(f"load on {serving.name} failed:\n{done.stderr[-2000:]}")
    return Load(**json.loads(done.stdout))


def candidates(count: int) -> list[str]:
    """Different candidates of a few tokens each."""
    return [f"The river of country {number} is long" for number in range(count)]


def decide(serving: Serving, *, count: int, requests: int) -> float:
    """Milliseconds of POST /v1/decide over so many candidates, the median."""
    content = {"input": QUESTION, "candidates": candidates(count)}
    taken = []
    with httpx2.Client(base_url=serving.url, timeout=600, trust_env=False) as http:
        for _ in range(requests):
            begun = time.monotonic()
            http.post("/v1/decide", json=content).raise_for_status()
            taken.append(time.monotonic() - begun)
    return statistics.median(taken) * 1000


def prompt(number: int, words: int = 0) -> str:
    """The text of a request, with so many more words; texts differ so that nothing is shared."""
    text = f"Question {number}: which river flows through the capital of country {number * 7 % 193}?"
    return " ".join(
        [text, *(WORDS[(number + count * 3 + count // 7) % len(WORDS)] for count in range(words))]
    )


def body(model: str, number: int, stream: bool, chat: bool, words: int = 0) -> dict[str, Any]:
    """A request for TOKENS tokens."""
    text = prompt(number, words)
    common = {"model": model, "max_tokens": TOKENS, "temperature": 0.0, "stream": stream}
    return {**common, "messages": [{"role": "user", "content": text}]} if chat else {**common, "prompt": text}


async def measure(
    url: str, model: str, *, clients: int, requests: int, stream: bool, chat: bool, words: int = 0
) -> Load:
    """The load itself."""
    first: list[float] = []
    whole: list[float] = []
    gaps: list[float] = []
    path = "/v1/chat/completions" if chat else "/v1/completions"
    limits = httpx2.Limits(max_connections=clients, max_keepalive_connections=clients)

    async def client(http: httpx2.AsyncClient, number: int) -> None:
        for turn in range(requests):
            content = json.dumps(body(model, number * 1000 + turn, stream, chat, words)).encode()
            begun, seen = time.monotonic(), 0.0
            headers = {"content-type": "application/json"}
            async with http.stream("POST", path, content=content, headers=headers) as answer:
                if answer.status_code != 200:
                    raise RuntimeError((await answer.aread()).decode()[:500])
                async for _ in answer.aiter_raw():
                    now = time.monotonic()
                    first.append(now - begun) if not seen else gaps.append(now - seen)
                    seen = now
            whole.append(time.monotonic() - begun)

    async with httpx2.AsyncClient(base_url=url, timeout=600, limits=limits, trust_env=False) as http:
        begun = time.monotonic()
        await asyncio.gather(*(client(http, number) for number in range(clients)))
        seconds = time.monotonic() - begun
    return Load(clients * requests * TOKENS / seconds, sorted(first), sorted(whole), sorted(gaps))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--words", type=int, default=0)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--chat", action="store_true")
    options = parser.parse_args()
    load = asyncio.run(
        measure(
            options.url,
            options.model,
            clients=options.clients,
            requests=options.requests,
            stream=options.stream,
            chat=options.chat,
            words=options.words,
        )
    )
    print(json.dumps(load.__dict__))
    return 0


if __name__ == "__main__":
    sys.exit(main())
