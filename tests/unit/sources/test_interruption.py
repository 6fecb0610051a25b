"""Downloads of whole processes: killed, side by side, and with a secret."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.hub import Hub, Mode, sha256

REPOSITORY = Path(__file__).resolve().parents[3]
DEADLINE = 60.0
"""Seconds any wait may take before the test fails; nothing is measured against it."""
TOKEN = "hf_processsecret1234567"

FETCH = """
from agent_runtime.contract import ModelConfig
from agent_runtime.llm.sources import resolve
print(resolve(ModelConfig(uri="hf://acme/model", served_name="m", repo_id="acme/model")))
"""

WITH_A_SECRET = """
import subprocess, sys
from agent_runtime.observability.logging import configure
from agent_runtime.secrets import take_secrets
take_secrets()
configure("debug")
from agent_runtime.contract import ModelConfig
from agent_runtime.llm.failures import LoadError
from agent_runtime.llm.sources import resolve
try:
    resolve(ModelConfig(uri="hf://acme/model", served_name="m", repo_id="acme/model"))
except LoadError as error:
    print(error, repr(error), error.report)
    import logging; logging.getLogger("x").error("failed", exc_info=error)
idle = "import sys; print(flush=True); sys.stdin.read()"
child = subprocess.Popen([sys.executable, "-c", idle], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print("CHILD", child.pid, flush=True)
sys.stdin.read()
child.communicate()
"""


def process(hub: Hub, cache: Path, program: str, **environment: str) -> subprocess.Popen[str]:
    """A Python process that uses this hub and cache by its environment."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "AWS_"))}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=inherited
        | {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(cache), "PYTHONPATH": str(REPOSITORY)}
        | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(what: str, condition: Callable[[], Any]) -> Any:
    """The condition's first true value; fails by name when it stays false."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what}: still not so after {DEADLINE:.0f} s")


def test_a_killed_process_loses_nothing_that_had_arrived(hub: Hub, geography: Path, tmp_path: Path) -> None:
    repository = hub.add("acme/model", geography, Mode.SLOW, rate=1_000_000)
    weights = geography / "model.safetensors"
    left = tmp_path / "cache" / "models--acme--model" / "blobs" / f"{sha256(weights)}.incomplete"
    first = process(hub, tmp_path / "cache", FETCH)
    wait_for("half a megabyte", lambda: left.exists() and left.stat().st_size > 500_000)
    first.kill()
    first.communicate()
    arrived = left.stat().st_size
    repository.mode = Mode.WHOLE

    second = process(hub, tmp_path / "cache", FETCH)
    folder = Path(second.communicate(timeout=DEADLINE)[0].splitlines()[-1])

    assert (folder / weights.name).read_bytes() == weights.read_bytes()
    assert hub.ranges() == [f"bytes={arrived}-"]


def test_processes_that_share_a_cache_fetch_each_file_once(hub: Hub, geography: Path, tmp_path: Path) -> None:
    hub.add("acme/model", geography, Mode.SLOW, rate=4_000_000)
    both = [process(hub, tmp_path / "cache", FETCH) for _ in range(2)]

    folders = [Path(one.communicate(timeout=DEADLINE)[0].splitlines()[-1]) for one in both]

    assert folders[0] == folders[1]
    assert {file.name for file in folders[0].iterdir()} == {file.name for file in geography.iterdir()}
    assert hub.gets("model.safetensors") == 1


def test_a_token_is_in_no_log_no_child_and_no_proc_file(hub: Hub, geography: Path, tmp_path: Path) -> None:
    hub.tokens.add(TOKEN)
    hub.add("acme/model", geography, Mode.GATED)
    one = process(hub, tmp_path / "cache", WITH_A_SECRET, HF_TOKEN=TOKEN, HF_DEBUG="1")
    assert one.stdout is not None
    said: list[str] = []
    for line in one.stdout:
        said.append(line)
        if line.startswith("CHILD"):
            break
    child = int(said[-1].split()[1])

    environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in (one.pid, child)]
    said.append(one.communicate(input="", timeout=DEADLINE)[0])

    assert {seen.authorization for seen in hub.seen} == {f"Bearer {TOKEN}"}
    assert "ModelAccessDenied" in "".join(said)
    assert TOKEN not in "".join(said)
    assert all(b"HF_ENDPOINT" in environment for environment in environments)
    assert not any(TOKEN.encode() in environment for environment in environments)
