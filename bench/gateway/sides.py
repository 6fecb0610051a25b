"""The processes of the comparison, all on loopback. Layer: tooling.

The one idea: one backend for both sides, nginx with a static JSON answer at two addresses (two pods); in
front of it ours, and nginx with one worker as a plain reverse proxy that keeps its connections to the backend
alive. The proxies share one core, backend and load the other, and never run under load at the same time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from local_cluster.preflight import install_packages
from tests.support.processes import free_port

ROOT = Path(__file__).parents[2]
PROXY_CORE, LOAD_CORE = "0", "1"
PODS = ("127.0.0.2", "127.0.0.3")
START_SECONDS = 30.0
PACKAGES = {"nginx-light": "/usr/sbin/nginx", "wrk": "/usr/bin/wrk"}

_ANSWER = (
    '{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"geo","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"The capital of France is Paris."},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":9,"completion_tokens":7,"total_tokens":16}}'
)

_COMMON = """
daemon off; worker_processes 1; error_log stderr error; pid {folder}/pid;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 300s;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  {inside}
}}
"""
_BACKEND = "server {{ listen 127.0.0.2:{port}; listen 127.0.0.3:{port}; default_type application/json; \
location = /stats {{ return 404; }} location / {{ return 200 '{answer}'; }} }}"
_PROXY = "upstream pods {{ {servers} keepalive 64; keepalive_requests 1000000000; }} \
server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://pods; proxy_http_version 1.1; \
proxy_set_header Connection ''; }} }}"


@dataclass(frozen=True)
class Side:
    """Something that answers, and the process whose CPU time it takes."""

    name: str
    host: str
    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/v1/chat/completions"

    def prefer(self, *, first: bool) -> None:
        """Whether the process and its workers go before all others; without the right to, nothing changes."""
        process = psutil.Process(self.pid)
        for one in (process, *process.children(recursive=True)):
            with suppress(PermissionError):
                if first:
                    os.sched_setscheduler(one.pid, os.SCHED_FIFO, os.sched_param(1))
                else:
                    os.sched_setscheduler(one.pid, os.SCHED_OTHER, os.sched_param(0))

    def cpu_seconds(self) -> float:
        """Used so far, by the process and its workers."""
        process = psutil.Process(self.pid)
        times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
        return sum(one.user + one.system for one in times)


@dataclass(frozen=True)
class Sides:
    direct: Side
    ours: Side
    nginx: Side


@contextmanager
def _process(name: str, command: list[str], core: str, host: str, port: int) -> Iterator[Side]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"}
    process = subprocess.Popen(["taskset", "-c", core, *command], env=environment, cwd=ROOT)
    try:
        end = time.monotonic() + START_SECONDS
        while not _listens(process, port):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{name} did not start: exit code {process.poll()}")
            time.sleep(0.02)
        yield Side(name, host, port, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    try:
        return any(
            one.status == psutil.CONN_LISTEN and one.laddr.port == port
            for one in psutil.Process(process.pid).net_connections("tcp")
        )
    except psutil.NoSuchProcess:
        return False


@contextmanager
def _nginx(name: str, inside: str, core: str, host: str, port: int) -> Iterator[Side]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "nginx.conf"
        config.write_text(_COMMON.format(folder=folder, inside=inside))
        Path(folder).chmod(0o755)
        with _process(name, ["/usr/sbin/nginx", "-e", "stderr", "-c", str(config)], core, host, port) as side:
            yield side


@contextmanager
def running() -> Iterator[Sides]:
    """Backend, ours and nginx."""
    install_packages(PACKAGES)
    backend, own, peer = free_port(), free_port(), free_port()
    with ExitStack() as stack:
        inside = _BACKEND.format(port=backend, answer=_ANSWER)
        direct = stack.enter_context(_nginx("direct", inside, LOAD_CORE, PODS[0], backend))
        command = [sys.executable, "-m", "bench.gateway.serve", str(own), str(backend), *PODS]
        ours = stack.enter_context(_process("gateway", command, PROXY_CORE, "127.0.0.1", own))
        servers = "".join(f"server {address}:{backend};" for address in PODS)
        inside = _PROXY.format(servers=servers, port=peer)
        nginx = stack.enter_context(_nginx("nginx", inside, PROXY_CORE, "127.0.0.1", peer))
        yield Sides(direct, ours, nginx)
