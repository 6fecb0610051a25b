"""Where log lines go, without anybody waiting for a disk. Layer: observability; standard library only.

The one idea: a line is formatted by the thread that wrote it (only it knows the request) and written by
another one, with a bounded queue between them that drops and counts rather than blocks: a slow disk, or a
container runtime that does not empty the pipe of standard output, must not hold up the event loop, and with
it every request and probe.

Commands that print an answer and end (`agent-runtime chat`), and whatever runs before the configuration is
read, write directly instead: nothing there can be held up, and no line can be lost with the process.
"""

from __future__ import annotations

import copy
import io
import logging
import queue
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

QUEUE_LINES = 10_000
FLUSH_SECONDS = 2.0
"""How long the end of the process, or a crash's last line, waits for the disk."""


class LogPathError(ValueError):
    """The configured log file cannot be written: what, where, and how to mend it."""

    def __init__(self, path: str, error: OSError) -> None:
        self.message = f"runtime.logging.path: cannot write {path}: {error.strerror or error}."
        self.remedy = (
            "Choose a path on a writable volume (a container's root file system usually is not), or leave it "
            "out to log to standard output only."
        )
        super().__init__(f"{self.message} {self.remedy}")


lost: Counter[str] = Counter()
"""Lines that were not written, by reason: `queue_full` or `write_failed`. Read by the metrics."""


class QueuedOutput(QueueHandler):
    """Formats in the caller's thread and hands the line to a thread that writes it to `targets`."""

    def __init__(self, targets: Sequence[logging.StreamHandler[Any]], size: int = QUEUE_LINES) -> None:
        self._lines: queue.Queue[Any] = queue.Queue(size)
        super().__init__(self._lines)
        self.targets = tuple(targets)
        self._listener = _Writer(self._lines, *self.targets)
        self._listener.start()

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """The record as its finished line, detached from everything the caller may change."""
        line = copy.copy(record)
        line.msg, line.args = self.format(record), None
        line.exc_info = line.exc_text = line.stack_info = None
        return line

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queues the line, or drops and counts it when the writer is that far behind."""
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            lost["queue_full"] += 1

    def flush(self) -> None:
        """Waits until everything queued before is written, at most FLUSH_SECONDS."""
        self._written()

    def close(self) -> None:
        """Writes what is queued and ends the thread; a writer stuck in a write is left behind."""
        if self._written():
            self._listener.stop()
        else:
            for target in self.targets:
                target.stream = None  # its flush and close at exit would wait for the stuck write
        for target in self.targets:
            with suppress(OSError):  # what a full disk did not take was counted when it was written
                target.close()
        super().close()

    def _written(self) -> bool:
        done = threading.Event()
        try:
            self._lines.put(done, timeout=FLUSH_SECONDS)
        except queue.Full:
            return False
        return done.wait(FLUSH_SECONDS)


class _Writer(QueueListener):
    """Writes lines; answers an Event in the queue by setting it."""

    def handle(self, record: Any) -> None:
        if isinstance(record, threading.Event):
            record.set()
        else:
            super().handle(record)


class _NoLock:
    """Stands where `logging` wants a lock and one thread needs none."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


class _Stream(logging.StreamHandler[Any]):
    """A stream whose failures are counted, not printed into another one."""

    def __init__(self, stream: TextIO) -> None:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # half a surrogate pair costs no line
        super().__init__(stream)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not _count_failed_write():
            super().handleError(record)


class _WriterStream(_Stream):
    """The same, used by the writer's thread alone: without the lock that a stuck write would hold at exit."""

    def createLock(self) -> None:  # noqa: N802 - logging's name
        self.lock = _NoLock()  # type: ignore[assignment]


class _WriterFile(RotatingFileHandler):
    """A rotated file for the writer's thread; a full disk costs lines and is counted, never a request."""

    def createLock(self) -> None:  # noqa: N802 - logging's name
        self.lock = _NoLock()  # type: ignore[assignment]

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not _count_failed_write():
            super().handleError(record)


def _count_failed_write() -> bool:
    """Whether the present exception is one of writing (a full disk, a closed stream) and now counted; a call
    of the logger with wrong arguments is not, and is printed as `logging` prints it."""
    if isinstance(sys.exception(), OSError | ValueError):
        lost["write_failed"] += 1
        return True
    return False


def direct_output(stream: TextIO) -> logging.Handler:
    """Lines to a stream, written by the thread that logs."""
    return _Stream(stream)


def queued_output(stream: TextIO, path: str | None, max_bytes: int, backups: int) -> QueuedOutput:
    """Lines to a stream and, when there is a path, to a file as well.

    The file is renamed to `path.1` at `max_bytes`, and `backups` of those are kept; its folder is made.
    Raises LogPathError when it cannot be written.
    """
    targets: list[logging.StreamHandler[Any]] = [_WriterStream(stream)]
    if path is not None:
        targets.append(_file(path, max_bytes, backups))
    return QueuedOutput(targets)


def _file(path: str, max_bytes: int, backups: int) -> _WriterFile:
    file = Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return _WriterFile(
            file,
            maxBytes=max_bytes,
            backupCount=backups,
            encoding="utf-8",
            errors="backslashreplace",
        )
    except OSError as error:
        raise LogPathError(path, error) from error
