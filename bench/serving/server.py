"""Starts ours and the peer as processes in the same place. Layer: tooling.

The one idea: both get the same weights and the same place, which is one core and one thread, or the GPU and
half the cores; the load comes from the other cores, so that neither pays for it. What the servers print is
appended to the file that BENCH_LOGS names, if it does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from bench.serving.models import ROOT
from tests.support.processes import free_port

SERVER_CORE, CLIENT_CORE = 0, 1
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
START_SECONDS = 180.0


@dataclass(frozen=True)
class Place:
    """Where a server computes. Cores as taskset's -c takes them."""

    device: Literal["cpu", "cuda"]
    server_cores: str
    client_cores: str
    environment: Mapping[str, str] = field(default_factory=dict)


CPU = Place("cpu", str(SERVER_CORE), str(CLIENT_CORE), ONE_THREAD)


def gpu() -> Place:
    """The first GPU, half of this machine's cores for the server and half for its clients."""
    cores = os.cpu_count() or 2
    half = max(1, cores // 2)
    return Place("cuda", f"0-{half - 1}", f"{half % cores}-{cores - 1}", {"TOKENIZERS_PARALLELISM": "false"})


@dataclass(frozen=True)
class Serving:
    """A server that answers. `seconds` is the time from its process' start to its being ready."""

    name: str
    url: str
    pid: int
    place: Place = CPU
    seconds: float = 0.0
    admin_url: str = ""

    def stats(self) -> dict[str, Any]:
        """GET /stats of ours."""
        with urllib.request.urlopen(f"{self.admin_url}/stats", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    @property
    def rss_mib(self) -> float:
        """Resident memory of the process and its children, in MiB."""
        process = psutil.Process(self.pid)
        every = [process, *process.children(recursive=True)]
        return sum(one.memory_info().rss for one in every) / 2**20


@contextmanager
def ours(
    model: Path,
    batching: str = "auto",
    *,
    place: Place = CPU,
    rows: int = 32,
    parameters: Mapping[str, int] | None = None,
    command: Sequence[str] = ("agent_runtime",),
) -> Iterator[Serving]:
    """Our runtime with this model, as many rows as there are clients. `command` is the module that is run,
    and what it is given before its own arguments."""
    port, admin = free_port(), free_port()
    config = {
        "name": "bench", "namespace": "bench", "revision": "bench", "port": port,
        "model": {"uri": f"pvc://bench/{model.name}", "served_name": str(model), "path": str(model),
                  "batching": batching, "device": "auto"},
        "admin": {"port": admin},
        "parameters": {"max_concurrency": rows, "max_queued_requests": 256, **(parameters or {})},
        "logging": {"level": "warning"},
    }  # fmt: skip
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(config, file)
        file.flush()
        arguments = ["serve", "--config", file.name, "--host", "127.0.0.1"]
        started = [sys.executable, "-m", *command, *arguments]
        with _process("ours", started, port, "/health/ready", place, admin=admin) as serving:
            yield serving


@contextmanager
def peer(model: Path, *options: str, place: Place = CPU) -> Iterator[Serving]:
    """`transformers serve` with this model preloaded."""
    port = free_port()
    command = [
        sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", str(model),
        "--host", "127.0.0.1", "--port", str(port), "--device", place.device, *options,
    ]  # fmt: skip
    with _process("transformers serve", command, port, "/health", place) as serving:
        yield serving


@contextmanager
def _process(
    name: str, command: Sequence[str], port: int, health: str, place: Place, *, admin: int = 0
) -> Iterator[Serving]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | place.environment | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
    with tempfile.TemporaryFile() as log:
        begun = time.monotonic()
        process = subprocess.Popen(
            ["taskset", "-c", place.server_cores, *command], env=environment, stdout=log, stderr=log
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(process, url + health, log)
            seconds = time.monotonic() - begun
            yield Serving(name, url, process.pid, place, seconds, f"http://127.0.0.1:{admin}")
        finally:
            process.kill()
            process.wait()
            if os.environ.get("BENCH_LOGS"):
                log.seek(0)
                with Path(os.environ["BENCH_LOGS"]).open("ab") as kept:
                    kept.write(f"==> {name} {' '.join(command)[-200:]}\n".encode() + log.read()[-20_000:])


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
