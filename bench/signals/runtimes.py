"""Five thousand admin ports in one process. Layer: tooling.

    python -m bench.signals.runtimes PORT

The one idea: a socket bound to every address answers on all of 127.0.0.0/8, so each replica has an address
of its own. The answer is a real record of a runtime at work; a question with `wait` is kept for that long, as
the runtime does while its load does not change.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from agent_runtime.contract import ADMIN_PORT
from agent_runtime.stats import (
    AgentFacts,
    Latency,
    LoadFacts,
    ModelFacts,
    Percentiles,
    ProcessFacts,
    Rates,
    Stats,
)
from tests.support.processes import end

ROOT = Path(__file__).resolve().parents[2]
RECORD = Stats(
    name="agent", revision="bcdfghjk", state="READY", since=1.8e9, uptime_seconds=3600.0,
    model=ModelFacts(
        served_name="agent", architecture="T5ForConditionalGeneration", device="cpu", dtype="float32",
        parameters=900_000, context=512,
    ),
    load=LoadFacts(running=3, waiting=1, queued_tokens=700, rows=3, rows_possible=16),
    rates=Rates(window_seconds=10.0, prompt_tokens=120.0, generated_tokens=640.0, requests=12.0),
    latency=Latency(
        window_seconds=60.0,
        first_token=Percentiles(count=700, p50=0.02, p95=0.05, p99=0.09),
        inter_token=Percentiles(count=9000, p50=0.004, p95=0.008, p99=0.012),
        end_to_end=Percentiles(count=700, p50=0.2, p95=0.5, p99=0.8),
    ),
    process=ProcessFacts(rss_bytes=840_000_000, cpu_seconds=812.0),
    load_phases={"start": 2.1, "fetch": 0.0, "load": 0.3, "warmup": 0.1, "first_token": 0.01, "ready": 2.6},
    agent=AgentFacts(runs_live=1),
)  # fmt: skip


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: every question gets the record."""
    body = RECORD.encode()
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    )
    try:
        while True:
            question = await reader.readuntil(b"\r\n\r\n")
            query = parse_qs(urlsplit(question.split(b" ", 2)[1].decode()).query)
            if query.get("load") == [str(RECORD.load.running + RECORD.load.waiting)]:
                await asyncio.sleep(float(query["wait"][0]))
            writer.write(head + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.start_server(answer, "0.0.0.0", port, backlog=4096)
    print("listening", flush=True)
    await server.serve_forever()


@contextmanager
def answering(*before: str) -> Iterator[None]:
    """The process on the admin port while the context lasts; `before` is put in front of its command."""
    command = [*before, sys.executable, "-m", "bench.signals.runtimes", str(ADMIN_PORT)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as replicas:
        try:
            if replicas.stdout is None or b"listening" not in replicas.stdout.readline():
                raise SystemExit(f"no replica answers on port {ADMIN_PORT}")
            yield
        finally:
            end(replicas)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
