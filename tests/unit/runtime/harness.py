"""Starts the runtime as a process, reads its log, asks it things. Layer: tests."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx2

from tests.model.training import REPOSITORY

DEADLINE = 120.0
"""Seconds any wait may take before the test fails; nothing is measured against it."""

CONTINENTS = "List the continents."


def wait_for(what: str, condition: Callable[[], Any]) -> Any:
    """The condition's first true value; fails by name when it stays false."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what}: still not so after {DEADLINE:.0f} s")


def write_config(folder: Path, model: Path, /, **settings: Any) -> Path:
    """A runtime configuration as the operator writes it."""
    config: dict[str, Any] = {
        "name": "geography",
        "namespace": "default",
        "revision": "abcd1234",
        "model": {"uri": f"pvc://models/{model.name}", "served_name": "geography", "path": str(model)},
    }
    file = folder / "config.json"
    file.write_text(json.dumps(config | settings))
    return file


class Server:
    """A runtime process. `control` is the folder whose files it obeys (see controlled.py)."""

    def __init__(self, control: Path, *arguments: str, module: str = "agent_runtime") -> None:
        self.control = control
        self.report = control / "termination-log"
        self.lines: list[str] = []
        command = [sys.executable, "-m", module]
        command += (
            ["serve", "--port", "0", "--admin-port", "0"] if module == "agent_runtime" else [str(control)]
        )
        environment = os.environ | {
            "PYTHONPATH": str(REPOSITORY),
            "TERMINATION_LOG_PATH": str(self.report),
            "HF_HUB_OFFLINE": "1",
        }
        self.process = subprocess.Popen(
            [*command, *arguments],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def __enter__(self) -> Self:
        try:
            listening = wait_for("listening", lambda: self.exited or self.find("listening"))
        except BaseException:
            self.process.kill()  # nobody will leave a block that was not entered
            raise
        self.url = f"http://127.0.0.1:{listening['port']}"
        self.http = httpx2.Client(base_url=self.url, timeout=DEADLINE, trust_env=False)
        self.admin_url = f"http://127.0.0.1:{listening['admin_port']}"
        self.admin = httpx2.Client(base_url=self.admin_url, timeout=DEADLINE, trust_env=False)
        return self

    def __exit__(self, *exception: object) -> None:
        self.http.close()
        self.admin.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def exited(self) -> dict[str, int] | None:
        """Raises when the process ended although the test wants it running."""
        if self.process.poll() is not None:
            raise AssertionError("the runtime exited:\n" + "".join(self.lines))
        return None

    def log(self) -> list[dict[str, Any]]:
        """Every line so far, parsed; a line that is not JSON fails here."""
        return [json.loads(line) for line in list(self.lines)]

    def find(self, message: str, **fields: Any) -> dict[str, Any] | None:
        """The first log line with this message and these fields."""
        for line in self.log():
            if line["msg"].startswith(message) and fields.items() <= line.items():
                return line
        return None

    def wait_ready(self) -> Self:
        """Returns once the readiness probe says so."""
        wait_for("ready", lambda: self.exited or self.http.get("/health/ready").status_code == 200)
        return self

    def wait_exit(self) -> int:
        """The exit code, once it is there."""
        code = self.process.wait(timeout=DEADLINE)
        self._reader.join(timeout=DEADLINE)
        return code

    def touch(self, name: str) -> None:
        """Make the engine obey."""
        (self.control / name).touch()

    def clear(self, name: str) -> None:
        """Let it go."""
        (self.control / name).unlink(missing_ok=True)

    def metric(self, name: str) -> float:
        """The value of a metric, by the beginning of its line; 0 when absent."""
        for line in self.admin.get("/metrics").text.splitlines():
            if line.startswith(name):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def stats(self) -> dict[str, Any]:
        """GET /stats."""
        found: dict[str, Any] = self.admin.get("/stats").json()
        return found

    def rss(self) -> int:
        """Resident memory, in bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()

    def descriptors(self) -> int:
        """Open file descriptors."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def threads(self) -> int:
        """Threads of the process."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/task").iterdir())

    def tasks(self) -> list[str]:
        """What runs on the event loop; of a controlled runtime only."""
        self.touch("count")
        wait_for("tasks counted", lambda: not (self.control / "count").exists())
        names: list[str] = json.loads((self.control / "tasks").read_text())
        return names

    def change(self, **parameters: Any) -> None:
        """Changes serving parameters."""
        changed = self.admin.patch("/admin/parameters", json=parameters)
        assert changed.status_code == 200, changed.text

    def chat(self, question: str, **fields: Any) -> httpx2.Response:
        """One question."""
        body = {"messages": [{"role": "user", "content": question}], **fields}
        return self.http.post("/v1/chat/completions", json=body)


class Background:
    """A request sent from a thread; `result` waits for its answer."""

    def __init__(self, send: Callable[[], httpx2.Response]) -> None:
        self._answer: httpx2.Response | Exception | None = None
        self._send = send
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._answer = self._send()
        except Exception as error:
            self._answer = error

    def result(self) -> httpx2.Response:
        """The answer. Raises what the client raised."""
        self._thread.join(DEADLINE)
        assert self._answer is not None, "no answer came"
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def text(response: httpx2.Response) -> str:
    """The words of a chat answer."""
    assert response.status_code == 200, response.text
    content: str = response.json()["choices"][0]["message"]["content"]
    return content
