"""The ring follows the mounted Secret: real files, links and permissions."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest

from agent_runtime.access.reload import GRACE_SECONDS, KeySource, Loaded, Unreadable, next_loaded
from agent_runtime.api_keys import Denied, KeyRing, Principal, verify
from tests.support.waiting import wait_for

ONE, OTHER = "the-first-key-0123456789", "the-other-key-0123456789"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Secret:
    """A folder as the kubelet mounts a Secret: files are links through `..data`, turned in one step."""

    def __init__(self, path: Path) -> None:
        self.path, self._version = path, 0
        path.mkdir()

    def publish(self, **entries: str) -> None:
        self._version += 1
        version = self.path / f"..version_{self._version}"
        version.mkdir()
        for name, text in entries.items():
            (version / name).write_text(text)
        fresh = self.path / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.rename(self.path / "..data")
        for name in entries:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")


def names(ring: KeyRing) -> list[str]:
    return [entry.principal.name for entry in ring.entries]


def test_a_mounted_secret_is_read_and_followed(tmp_path: Path) -> None:
    secret = Secret(tmp_path / "keys")
    secret.publish(web=ONE, batch=OTHER)
    source = KeySource(secret.path)
    assert names(source.ring) == ["batch", "web"]

    secret.publish(web=OTHER)
    source.poll()

    assert verify(source.ring, ONE, 0.0) == Denied("invalid_api_key")
    assert verify(source.ring, OTHER, 0.0) == Principal("web")


def test_nothing_changed_keeps_the_same_ring(tmp_path: Path) -> None:
    secret = Secret(tmp_path / "keys")
    secret.publish(web=ONE)
    source = KeySource(secret.path)
    before = source.ring

    source.poll()

    assert source.ring is before


def test_a_file_rewritten_in_place_is_noticed_even_within_one_tick_of_its_clock(tmp_path: Path) -> None:
    """Same size, same inode, same time of change: only the age of the change tells that it may be stale."""
    file = tmp_path / "web"
    file.write_text(ONE)
    then = file.stat()
    source = KeySource(tmp_path, wall_clock=lambda: then.st_mtime)

    with file.open("r+") as opened:
        opened.write(OTHER)
    os.utime(file, ns=(then.st_atime_ns, then.st_mtime_ns))
    source.poll()

    assert verify(source.ring, OTHER, 0.0) == Principal("web")


def test_a_revoked_key_is_gone_after_the_next_look(tmp_path: Path) -> None:
    (tmp_path / "web").write_text(ONE)
    (tmp_path / "batch").write_text(OTHER)
    source = KeySource(tmp_path)

    (tmp_path / "web").unlink()
    source.poll()

    assert names(source.ring) == ["batch"]


def test_a_single_file_holds_one_entry_a_line(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(f"web {ONE}\nbatch {OTHER}\n")

    assert names(KeySource(file).ring) == ["web", "batch"]


def test_a_readable_folder_without_entries_refuses_everybody_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "web").write_text(ONE)
    source = KeySource(tmp_path)

    (tmp_path / "web").unlink()
    with caplog.at_level(logging.ERROR):
        source.poll()

    assert source.ring.entries == ()
    assert "every request is refused" in caplog.text and str(tmp_path) in caplog.text


def test_a_path_that_vanishes_keeps_its_keys_for_a_while_and_then_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, clock = tmp_path / "keys", Clock()
    folder.mkdir()
    (folder / "web").write_text(ONE)
    source = KeySource(folder, clock=clock)

    folder.rename(tmp_path / "moved")
    source.poll()
    assert names(source.ring) == ["web"] and "stay valid" in caplog.text

    clock.now += GRACE_SECONDS
    source.poll()
    assert source.ring.entries == ()

    (tmp_path / "moved").rename(folder)
    source.poll()
    assert names(source.ring) == ["web"]


def test_a_path_that_was_never_there_admits_nobody_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = KeySource(tmp_path / "missing")

    assert source.ring.entries == ()
    assert "every request is refused" in caplog.text and "missing" in caplog.text


def test_bad_entries_disable_themselves_only_and_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "web").write_text(ONE)
    (tmp_path / "short").write_text("short")
    (tmp_path / "binary").write_bytes(b"\xff\xfe" * 20)
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".hidden").write_text(OTHER)

    source = KeySource(tmp_path)

    assert names(source.ring) == ["web"]
    for name in ("short", "binary", "folder", "dangling", "pipe"):
        assert f"'{name}'" in caplog.text
    assert ONE not in caplog.text


def test_the_same_trouble_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "short").write_text("short")
    source = KeySource(tmp_path)
    caplog.clear()

    for _ in range(5):
        source.poll()

    assert caplog.text == ""


def test_a_thread_follows_the_folder(tmp_path: Path) -> None:
    (tmp_path / "web").write_text(ONE)
    source = KeySource(tmp_path)
    source.start()
    try:
        (tmp_path / "web").write_text(OTHER)
        wait_for("the new ring", lambda: verify(source.ring, OTHER, 0.0) == Principal("web"))
    finally:
        source.stop()

    assert "api-keys" not in {thread.name for thread in threading.enumerate()}


RING = KeyRing(())


def test_the_grace_counts_from_the_first_failure() -> None:
    loaded = next_loaded(Loaded(RING), Unreadable("gone"), now=0.0)
    assert loaded == Loaded(RING, 0.0)

    assert next_loaded(loaded, Unreadable("gone"), now=GRACE_SECONDS - 1).ring is RING
    assert next_loaded(loaded, Unreadable("gone"), now=GRACE_SECONDS).ring.entries == ()
    assert next_loaded(loaded, RING, now=GRACE_SECONDS) == Loaded(RING)
