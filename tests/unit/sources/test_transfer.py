"""How files come: resumed, compared, bounded; the server here is a function that may break off anywhere."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.llm.sources.progress import Reporter
from agent_runtime.llm.sources.transfer import (
    Body,
    CorruptDownloadError,
    Digest,
    InterruptedDownloadError,
    RemoteFile,
    RetryPolicy,
    TransientError,
    bytes_on_disk,
    fetch,
    fetch_all,
    partial,
)

AT_ONCE = RetryPolicy(attempts=3, first_seconds=0.0, longest_seconds=0.0)
CONTENT = bytes(range(256)) * 4


def remote_file(folder: Path, content: bytes = CONTENT, name: str = "weights") -> RemoteFile:
    """A file whose digest is known."""
    digest = Digest("sha256", hashlib.sha256(content).hexdigest())
    return RemoteFile(name, len(content), folder / name, digest)


def reporter() -> Reporter:
    """One that tells nobody."""
    return Reporter("test", {}, {})


class Server:
    """Serves one content; each answer ends after the next number of bytes of `cuts`, if there is one."""

    def __init__(self, content: bytes, cuts: list[int] | None = None, ranges: bool = True) -> None:
        self.content, self.cuts, self.ranges = content, list(cuts or []), ranges
        self.offsets: list[int] = []

    def open(self, file: RemoteFile, offset: int) -> AbstractContextManager[Body]:
        """An answer from `offset` on, or from the beginning."""
        return self._open(offset)

    @contextmanager
    def _open(self, offset: int) -> Iterator[Body]:
        self.offsets.append(offset)
        start = offset if self.ranges else 0
        yield Body(start, self._chunks(start))

    def _chunks(self, start: int) -> Iterator[bytes]:
        cut = self.cuts.pop(0) if self.cuts else None
        end = len(self.content) if cut is None else min(start + cut, len(self.content))
        for place in range(start, end, 100):
            yield self.content[place : min(place + 100, end)]
        if cut is not None:
            raise InterruptedDownloadError("broke off")


@given(
    content=st.binary(max_size=600),
    left=st.integers(0, 700),
    cuts=st.lists(st.integers(1, 300), max_size=8),
    ranges=st.booleans(),
)
def test_wherever_a_download_breaks_off_the_file_that_gets_its_name_is_whole(
    content: bytes, left: int, cuts: list[int], ranges: bool
) -> None:
    with tempfile.TemporaryDirectory() as place:
        file = remote_file(Path(place), content)
        partial(file).write_bytes((content + b"?" * 100)[:left])
        patient = RetryPolicy(attempts=20, first_seconds=0.0, longest_seconds=0.0)

        fetch(file, Server(content, cuts, ranges).open, reporter(), patient, threading.Event())

        assert file.target.read_bytes() == content
        assert not partial(file).exists()


def test_failures_are_counted_anew_after_progress(tmp_path: Path) -> None:
    file = remote_file(tmp_path)
    server = Server(CONTENT, cuts=[100] * 10)

    fetch(file, server.open, reporter(), AT_ONCE, threading.Event())

    assert server.offsets == [100 * n for n in range(11)]


def test_patience_ends_when_nothing_more_comes_and_what_came_is_kept(tmp_path: Path) -> None:
    file = remote_file(tmp_path)
    server = Server(CONTENT, cuts=[100, *[0] * 10])

    with pytest.raises(TransientError):
        fetch(file, server.open, reporter(), AT_ONCE, threading.Event())

    assert server.offsets == [0, 100, 100]
    assert partial(file).read_bytes() == CONTENT[:100]
    assert bytes_on_disk(file) == 100


def test_more_bytes_than_promised_are_refused(tmp_path: Path) -> None:
    file = remote_file(tmp_path)

    with pytest.raises(CorruptDownloadError, match="the server sent more"):
        fetch(file, Server(CONTENT + b"x").open, reporter(), AT_ONCE, threading.Event())


def test_a_whole_file_under_its_name_is_not_asked_for(tmp_path: Path) -> None:
    file = remote_file(tmp_path)
    file.target.write_bytes(CONTENT)
    server = Server(CONTENT)

    fetch(file, server.open, reporter(), AT_ONCE, threading.Event())

    assert server.offsets == []


def test_a_file_of_another_size_under_its_name_is_replaced(tmp_path: Path) -> None:
    file = remote_file(tmp_path)
    file.target.write_bytes(b"half")

    fetch(file, Server(CONTENT).open, reporter(), AT_ONCE, threading.Event())

    assert file.target.read_bytes() == CONTENT


def test_one_file_that_fails_ends_the_others_too(tmp_path: Path) -> None:
    failing = threading.Event()

    @contextmanager
    def serve(file: RemoteFile, offset: int) -> Iterator[Body]:
        if file.name == "broken":
            failing.set()
            raise PermissionError("no")
        yield Body(0, endless())

    def endless() -> Iterator[bytes]:
        failing.wait()
        while True:
            yield b""

    files = [remote_file(tmp_path, name=name) for name in ("endless", "broken")]

    with pytest.raises(PermissionError):
        fetch_all(files, serve, reporter(), AT_ONCE)


def test_what_the_server_raises_comes_out_as_it_is(tmp_path: Path) -> None:
    @contextmanager
    def gone(file: RemoteFile, offset: int) -> Iterator[Body]:
        raise FileNotFoundError("gone from the server")
        yield Body(0, iter(()))

    with pytest.raises(FileNotFoundError, match="gone from the server"):
        fetch(remote_file(tmp_path), gone, reporter(), AT_ONCE, threading.Event())


def test_two_names_of_one_content_are_fetched_once(tmp_path: Path) -> None:
    one = remote_file(tmp_path)
    two = RemoteFile("again", one.size, one.target, one.digest)
    server = Server(CONTENT)
    finished: list[str] = []

    fetch_all([one, two], server.open, reporter(), AT_ONCE, lambda file: finished.append(file.name))

    assert server.offsets == [0]
    assert sorted(finished) == ["again", "weights"]


@given(
    failures=st.integers(1, 10_000),
    asked=st.none() | st.floats(-1e6, 1e9),
    fraction=st.floats(0, 1, exclude_max=True),
)
def test_no_wait_is_negative_or_longer_than_its_bound(
    failures: int, asked: float | None, fraction: float
) -> None:
    policy = RetryPolicy()

    pause = policy.pause(failures, asked, fraction)

    longest = policy.longest_seconds if asked is None else policy.longest_asked_seconds + 1
    assert 0 <= pause <= longest


@given(failures=st.integers(1, 10), fraction=st.floats(0, 1, exclude_max=True))
def test_waits_grow_with_failures_and_differ_by_chance(failures: int, fraction: float) -> None:
    policy = RetryPolicy()

    assert policy.pause(failures + 1, None, fraction) >= policy.pause(failures, None, fraction)
    assert policy.pause(failures, None, 0.0) < policy.pause(failures, None, 0.5)
