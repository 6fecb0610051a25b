"""Fixtures of the sources' tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_runtime.llm.sources import hub as hub_source
from agent_runtime.llm.sources import s3 as s3_source
from agent_runtime.llm.sources.transfer import RetryPolicy
from tests.model.training import trained
from tests.support.hub import Hub, point_at
from tests.support.s3 import CREDENTIALS, S3

QUICK = RetryPolicy(attempts=4, first_seconds=0.01, longest_seconds=0.02, longest_asked_seconds=0.01)


@pytest.fixture(scope="session")
def geography() -> Path:
    """The real example model; about a minute the first time, then cached."""
    return trained()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts are real and short."""
    monkeypatch.setattr(hub_source, "RETRY", QUICK)
    monkeypatch.setattr(s3_source, "RETRY", QUICK)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The hub's stand-in, which huggingface_hub in this process uses with an empty cache."""
    with Hub() as served:
        point_at(monkeypatch, served.url, tmp_path / "cache")
        yield served


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[S3]:
    with S3() as served:
        yield served


@pytest.fixture
def s3(_s3_server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3:
    """The S3 server, which obstore in this process uses with an empty cache."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", _s3_server.url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return _s3_server


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB; the model has 3.7 MB."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
