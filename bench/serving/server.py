"""Starts ours and the peer as processes on the same one core. Layer: tooling.

The one idea: both get the same weights, the same core and the same thread count; the load comes from the
other core, so that neither pays for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.serving.models import ROOT
from tests.support.processes import free_port

SERVER_CORE, CLIENT_CORE = 0, 1
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
START_SECONDS = 180.0


@dataclass(frozen=True)
class Serving:
    """A server that answers."""

    name: str
    url: str
    pid: int

    @property
    def rss_mib(self) -> float:
        """Resident memory of the process and its children, in MiB."""
        process = psutil.Process(self.pid)
        every = [process, *process.children(recursive=True)]
        return sum(one.memory_info().rss for one in every) / 2**20


@contextmanager
def ours(model: Path, batching: str = "auto") -> Iterator[Serving]:
    """Our runtime with this model, as many rows as there are clients."""
    port = free_port()
    config = {
        "name": "bench", "namespace": "bench", "revision": "bench", "port": port,
        "model": {"uri": f"pvc://bench/{model.name}", "served_name": str(model), "path": str(model),
                  "batching": batching},
        "admin": {"port": free_port()},
        "parameters": {"max_concurrency": 32, "max_queued_requests": 256},
        "logging": {"level": "warning"},
    }  # fmt: skip
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(config, file)
        file.flush()
        command = [
            sys.executable,
            "-m",
            "agent_runtime",
            "serve",
            "--config",
            file.name,
            "--host",
            "127.0.0.1",
        ]
        with _process("ours", command, port, "/health/ready") as serving:
            yield serving


@contextmanager
def peer(model: Path, *options: str) -> Iterator[Serving]:
    """`transformers serve` with this model preloaded."""
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("transformers")), "serve", str(model), "--host", "127.0.0.1",
        "--port", str(port), "--device", "cpu", *options,
    ]  # fmt: skip
    with _process("transformers serve", command, port, "/health") as serving:
        yield serving


@contextmanager
def _process(name: str, command: Sequence[str], port: int, health: str) -> Iterator[Serving]:
    environment = os.environ | ONE_THREAD | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), *command], env=environment, stdout=log, stderr=log
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(process, url + health, log)
            yield Serving(name, url, process.pid)
        finally:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: object) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    log.seek(0)  # type: ignore[attr-defined]
    raise RuntimeError(f"{url} never answered:\n{log.read().decode()[-3000:]}")  # type: ignore[attr-defined]
