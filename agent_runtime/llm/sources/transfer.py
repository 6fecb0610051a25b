"""Brings remote files onto the disk, whatever serves them. Layer: llm; imports tenacity, no client library.

The one idea: an interrupted download is the normal case. A file grows under a stable temporary name, is
continued from its last byte by the next attempt and by the next process, is compared with the digest its
server promised, and gets its real name only then; so whatever has its real name is whole.

The hub's own client gives each attempt a name of its own and deletes it on failure (huggingface_hub 2.4,
`_download_to_tmp_and_move`), with and without hf_xet: a container restarted at 90 % would begin at 0 % again,
for ever when a startup deadline ended it. Nor does it compare digests.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import logging
import os
import queue
import random
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tenacity import RetryCallState, Retrying, retry_if_exception_type, sleep_using_event

from agent_runtime.llm.sources.progress import Reporter, readable

log = logging.getLogger("agent_runtime.download")

PARALLEL = 4
"""Files received at once."""
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Digest:
    """What a file's bytes, after `prefix`, must hash to (hexadecimal)."""

    algorithm: Literal["sha1", "sha256"]
    value: str
    prefix: bytes = b""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to fetch: its name on the server, its size in bytes, where it goes, and its digest if known."""

    name: str
    size: int
    target: Path
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes of a file from `start` on; a server that ignores ranges starts at 0."""

    start: int
    chunks: Iterator[bytes]


Open = Callable[[RemoteFile, int], AbstractContextManager[Body]]
"""Requests a file from an offset on. Raises TransientError for what may go better next time."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often to try again and how long to wait, in seconds. A failure after progress counts as the
    first; `longest_asked_seconds` bounds what a server may ask for by Retry-After."""

    attempts: int = 6
    first_seconds: float = 1.0
    longest_seconds: float = 30.0
    longest_asked_seconds: float = 120.0

    def pause(self, failures: int, asked: float | None, fraction: float) -> float:
        """Seconds to wait after so many failures in a row. `fraction` in [0, 1) is random, so that replicas
        that failed together do not return together."""
        if asked is not None:
            return min(max(asked, 0.0), self.longest_asked_seconds) + fraction
        exponential: float = self.first_seconds * 2 ** min(failures - 1, 16)
        return min(self.longest_seconds, exponential) * (0.5 + 0.5 * fraction)


class TransientError(Exception):
    """A failure that may pass; the cause is chained. `retry_after` is in seconds, as the server asked."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InterruptedDownloadError(TransientError):
    """A connection ended before the file did."""


class CorruptDownloadError(Exception):
    """A file arrived whole and is not what its server said it is."""


class NoSpaceError(Exception):
    """The disk cannot hold the files."""


def patiently(
    policy: RetryPolicy,
    what: str,
    progress: Callable[[], int] = lambda: 0,
    abandoned: threading.Event | None = None,
) -> Retrying:
    """tenacity's loop around something remote; failures are counted since `progress()` last grew.

    Setting `abandoned` ends a wait early.
    """
    seen, failures = progress(), 0

    def count(state: RetryCallState) -> None:
        nonlocal seen, failures
        now = progress()
        failures = 1 if now > seen else failures + 1
        seen = now

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return policy.pause(failures, getattr(error, "retry_after", None), random.random())  # noqa: S311

    def announce(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning(
            "%s failed, trying again in %.1f s (%d of %d): %s", what, state.upcoming_sleep, failures,
            policy.attempts - 1, error,
        )  # fmt: skip

    return Retrying(
        retry=retry_if_exception_type(TransientError),
        after=count,
        wait=wait,
        stop=lambda state: failures >= policy.attempts,
        before_sleep=announce,
        sleep=sleep_using_event(abandoned or threading.Event()),
        reraise=True,
    )


def partial(file: RemoteFile) -> Path:
    """Where the file grows."""
    return file.target.with_name(f"{file.target.name}.incomplete")


def bytes_on_disk(file: RemoteFile) -> int:
    """How many bytes of the file need not be fetched again."""
    for path in (file.target, partial(file)):
        with suppress(OSError):
            size = path.stat().st_size
            if size == file.size or (path != file.target and size < file.size):
                return size
    return 0


def check_space(files: Sequence[RemoteFile], folder: Path) -> None:
    """Raises NoSpaceError when `folder`, which may not exist yet, cannot hold what is missing."""
    missing = {file.target: file.size - bytes_on_disk(file) for file in files}
    needed = sum(missing.values())
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise NoSpaceError(
            f"the download needs {needed} bytes ({readable(needed)}) and {folder} has {free} bytes "
            f"({readable(free)}) free"
        )


def fetch_all(
    files: Sequence[RemoteFile],
    open_remote: Open,
    reporter: Reporter,
    policy: RetryPolicy,
    finish: Callable[[RemoteFile], object] = lambda file: None,
) -> None:
    """Fetches every file, `PARALLEL` at a time, and calls `finish` for each; the first failure ends all.

    The threads are daemons and not an executor's, which Python joins at exit: a process told to end must not
    wait for gigabytes.
    """
    waiting: queue.SimpleQueue[RemoteFile] = queue.SimpleQueue()
    for file in sorted(files, key=lambda file: file.size, reverse=True):
        waiting.put(file)
    failures: list[BaseException] = []
    failed = threading.Event()

    def work() -> None:
        with suppress(queue.Empty):
            while not failed.is_set():
                file = waiting.get_nowait()
                try:
                    fetch(file, open_remote, reporter, policy, failed)
                    finish(file)
                except BaseException as error:  # handed to the caller's thread below
                    failures.append(error)
                    failed.set()

    threads = [
        threading.Thread(target=work, name=f"download-{number}", daemon=True)
        for number in range(min(PARALLEL, len(files)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


class AbandonedError(Exception):
    """Another file failed, so this one is not needed any more."""


def fetch(
    file: RemoteFile,
    open_remote: Open,
    reporter: Reporter,
    policy: RetryPolicy,
    abandoned: threading.Event,
) -> None:
    """Brings one file to its target. Raises TransientError when patience ends, CorruptDownloadError,
    NoSpaceError, AbandonedError, and what `open_remote` raises."""
    file.target.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(file) as handle:
        if handle is None:
            reporter.at(file.name, file.size)
            return
        growing = _Growing(file, handle, reporter, abandoned)
        inherited = growing.size
        while True:
            for attempt in patiently(policy, f"download of {file.name}", lambda: growing.size, abandoned):
                with attempt:
                    growing.receive(open_remote)
            wrong = growing.wrong()
            if wrong is None:
                break
            growing.restart()
            if not inherited:
                raise CorruptDownloadError(wrong)
            # The first half came from another process and may be what is wrong: once more, all of it.
            log.warning("%s; fetching it again from its beginning", wrong)
            inherited = 0
        partial(file).replace(file.target)


@contextmanager
def _exclusive(file: RemoteFile) -> Iterator[io.FileIO | None]:
    """The temporary file, open and locked against other processes; None when the target is already whole."""
    while True:
        if _size(file.target) == file.size:
            yield None
            return
        with partial(file).open("a+b", buffering=0) as handle:
            # A file system without locks is no reason to fail: the digest tells when two writers met.
            with _ignoring(errno.ENOLCK, errno.EOPNOTSUPP):
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _size(file.target) == file.size:
                if os.fstat(handle.fileno()).st_size == 0:
                    partial(file).unlink(missing_ok=True)
                continue
            if _is_at(handle, partial(file)):
                yield handle
                return


@contextmanager
def _ignoring(*codes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in codes:
            raise


def _is_at(handle: io.FileIO, path: Path) -> bool:
    """Whether the open file still has this name; another process may have given it the target's."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


class _Growing:
    """A temporary file and the digest of what it holds."""

    def __init__(
        self, file: RemoteFile, handle: io.FileIO, reporter: Reporter, abandoned: threading.Event
    ) -> None:
        self._file, self._handle = file, handle
        self._reporter, self._abandoned = reporter, abandoned
        self._hash = _started(file.digest)
        self.size = os.fstat(handle.fileno()).st_size
        if self.size > file.size:
            self.restart()
            return
        if self._hash is not None:
            handle.seek(0)
            while block := handle.read(_READ_BYTES):
                self._hash.update(block)
        reporter.at(file.name, self.size)

    def restart(self) -> None:
        """Empties it."""
        self._handle.truncate(0)
        self._hash = _started(self._file.digest)
        self.size = 0
        self._reporter.at(self._file.name, 0)

    def receive(self, open_remote: Open) -> None:
        """Appends what is missing."""
        if self.size == self._file.size:
            return
        self._stop_if_abandoned()
        with open_remote(self._file, self.size) as body:
            if body.start not in (0, self.size):
                raise CorruptDownloadError(
                    f"{self._file.name}: bytes from {self.size} on were asked for and those from "
                    f"{body.start} on came"
                )
            if body.start != self.size:
                self.restart()
            for chunk in body.chunks:
                self._stop_if_abandoned()
                self._append(chunk)
        if self.size < self._file.size:
            raise InterruptedDownloadError(
                f"the connection ended after {self.size} of {self._file.size} bytes of {self._file.name}"
            )

    def wrong(self) -> str | None:
        """Why the whole file is not what the server promised, or None."""
        digest = self._file.digest
        if digest is None or self._hash is None or self._hash.hexdigest() == digest.value:
            return None
        return (
            f"{self._file.name} has all its {self.size} bytes, but their {digest.algorithm} is "
            f"{self._hash.hexdigest()} and should be {digest.value}"
        )

    def _stop_if_abandoned(self) -> None:
        if self._abandoned.is_set():
            raise AbandonedError(self._file.name)

    def _append(self, chunk: bytes) -> None:
        if self.size + len(chunk) > self._file.size:
            raise CorruptDownloadError(
                f"{self._file.name} should have {self._file.size} bytes and the server sent more"
            )
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[self._handle.write(rest) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise NoSpaceError(
                f"the disk of {self._file.target.parent} is full after {self.size} of {self._file.size} "
                f"bytes of {self._file.name}"
            ) from error
        if self._hash is not None:
            self._hash.update(chunk)
        self.size += len(chunk)
        self._reporter.at(self._file.name, self.size)


def _started(digest: Digest | None) -> hashlib._Hash | None:
    if digest is None:
        return None
    return hashlib.new(digest.algorithm, digest.prefix, usedforsecurity=False)
