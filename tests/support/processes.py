"""Servers that run as processes of this machine: their ports, endpoints, metrics and ends. Layer: tests."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("", 0)) as listener:
        return int(listener.getsockname()[1])


def answer_of(port: int, path: str, seconds: float = 2) -> tuple[int, str]:
    """Status and body of an endpoint; (0, why) when nothing answers in so many seconds."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=seconds) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def sample(exposition: str, name: str) -> float | None:
    """Sum of a metric over all its labels, None when it is not there."""
    lines = [line for line in exposition.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines) if lines else None


def end(process: subprocess.Popen[bytes], patience: float = 40) -> float:
    """Ask a process to end, insist after `patience` seconds; the seconds that took."""
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return time.monotonic() - begin
