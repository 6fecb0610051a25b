"""Sends generated requests to a runtime and judges the answers. Layer: tests.

The one idea: what must hold of every answer needs no knowledge of the request: a status that the document
declares, no 5xx but 503 and 504, and errors in OpenAI's shape. Witnesses ask for the capital of France
throughout; what a campaign costs is counted in their answers.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tests.model.training import REPOSITORY
from tests.unit.runtime.crowd import Witnesses, witnesses
from tests.unit.runtime.harness import DEADLINE, Server

GENERATORS = 2
CLIENTS = 16
ALLOWED = frozenset({503, 504})
PROBES = ("/health/startup", "/health/ready", "/health/live")


@dataclass
class Campaign:
    """What was sent and what came back. `defects` are answers that break a rule, each with its request."""

    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    witnesses: Witnesses = field(default_factory=Witnesses)


async def requests(document: Path, seed: int, count: int) -> AsyncIterator[dict[str, Any]]:
    """The requests of all generators as they come."""
    queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(2000)

    async def generator(number: int) -> None:
        share = count // GENERATORS + (count % GENERATORS if number == 0 else 0)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.fuzz.generate", str(document), "--seed", str(seed),
            "--count", str(share), "--share", f"{number}/{GENERATORS}",
            cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": f"{REPOSITORY / 'operator'}:{REPOSITORY}"},
            stdout=asyncio.subprocess.PIPE, limit=2**26,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            async for line in process.stdout:
                await queue.put(json.loads(line))
            assert await process.wait() == 0, "a generator failed"
        finally:
            if process.returncode is None:
                process.kill()
            await queue.put(None)

    running = [asyncio.create_task(generator(number)) for number in range(GENERATORS)]
    try:
        left = GENERATORS
        while left:
            request = await queue.get()
            if request is None:
                left -= 1
            else:
                yield request
        await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def run(server: Server, document: dict[str, Any], folder: Path, seed: int, count: int) -> Campaign:
    """Sends `count` requests, CLIENTS at a time."""
    file = folder / "openapi.json"
    file.write_text(json.dumps(document))
    found = Campaign()
    source = requests(file, seed, count)
    limits = httpx2.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    declared = _declared(document)
    async with (
        witnesses(server, 2, pause=0.25) as found.witnesses,
        httpx2.AsyncClient(base_url=server.url, timeout=DEADLINE, trust_env=False, limits=limits) as http,
    ):
        lock = asyncio.Lock()

        async def client() -> None:
            while True:
                async with lock:
                    request = await anext(source, None)
                if request is None:
                    return
                await _send(http, request, found, declared)
                if found.sent % max(1, count // 20) == 0:
                    found.rss.append(server.rss())
                    _tell(found, count)

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return found


def _tell(found: Campaign, count: int) -> None:
    by_class = {
        f"{kind}xx": sum(n for s, n in found.statuses.items() if s // 100 == kind) for kind in (2, 4, 5)
    }
    print(f"fuzz: {found.sent} of {count} sent; {by_class}; RSS {found.rss[-1] >> 20} MiB", flush=True)


def _declared(document: dict[str, Any]) -> dict[str, set[int]]:
    return {
        f"{method.upper()} {path}": {int(status) for status in operation["responses"]}
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


async def _send(
    http: httpx2.AsyncClient, request: dict[str, Any], found: Campaign, declared: dict[str, set[int]]
) -> None:
    body = base64.b64decode(request["body"])
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request["headers"]]
    message = http.build_request(request["method"], "/", content=body, headers=headers)
    message.extensions["target"] = request["target"].encode("ascii")
    try:
        answer = await http.send(message)
        said = answer.text
    except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol):
        return  # no client could send it
    except httpx2.HTTPError as error:
        found.defects.append(f"{_shown(request)}: {type(error).__name__} {error}")
        return
    found.sent += 1
    found.statuses[answer.status_code] += 1
    found.modes[request["mode"]] += 1
    found.operations[request["operation"]] += 1
    expected = declared.get(request["operation"], set()) | {400, 404, 405}
    if wrong := verdict(answer, said, request["method"], request["target"], expected):
        found.defects.append(f"{_shown(request)}: {wrong}: {said[:300]}")


def verdict(answer: httpx2.Response, said: str, method: str, target: str, expected: set[int]) -> str | None:
    """Which rule the answer breaks."""
    status = answer.status_code
    if status >= 500 and status not in ALLOWED:
        return f"status {status}"
    if status not in expected:
        return f"status {status} is not declared"
    if status < 400 or method == "HEAD" or target.startswith(PROBES):
        return None
    try:
        error = json.loads(said)["error"]
    except (ValueError, KeyError, TypeError):
        return f"an error {status} that is none"
    if set(error) != {"message", "type", "param", "code"} or not (error["message"] and error["code"]):
        return f"an error {status} of another shape"
    return None


def _shown(request: dict[str, Any]) -> str:
    body = base64.b64decode(request["body"])[:600]
    return f"{request['mode']} {request['method']} {request['target'][:200]} {request['headers']} {body!r}"
