"""How far a download is. Layer: llm, light; standard library only.

The one idea: one frozen record says everything; the log shows it at most every five seconds and whoever
serves /stats gets it as often as is worth looking at. tqdm and the hub's own bars draw on a terminal a pod
does not have, and count bytes without saying of which file.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

log = logging.getLogger("agent_runtime.download")

LOG_SECONDS = 5.0
"""Shortest time between two lines of the log about one download."""
REPORT_SECONDS = 0.5
"""Shortest time between two records handed to `on_download`."""


@dataclass(frozen=True, slots=True)
class FileProgress:
    """One file: its name, and its bytes on disk and in all."""

    name: str
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class Download:
    """A download at one moment. `bytes_done` includes what an earlier, interrupted run left on disk;
    `bytes_per_second` is the mean of what this run received over its `seconds`."""

    repository: str
    files: tuple[FileProgress, ...]
    bytes_done: int
    bytes_total: int
    bytes_per_second: float
    seconds: float


OnDownload = Callable[[Download], None]


def snapshot(
    repository: str, sizes: Mapping[str, int], done: Mapping[str, int], at_start: int, seconds: float
) -> Download:
    """The record for these sizes and bytes on disk, by file; `at_start` bytes were there before."""
    files = tuple(FileProgress(name, done.get(name, 0), size) for name, size in sizes.items())
    received = max(0, sum(file.bytes_done for file in files) - at_start)
    return Download(
        repository=repository,
        files=files,
        bytes_done=sum(file.bytes_done for file in files),
        bytes_total=sum(sizes.values()),
        bytes_per_second=received / seconds if seconds > 0 else 0.0,
        seconds=seconds,
    )


class Reporter:
    """Tells the log and `on_download` how far a download is; called from every thread that receives."""

    def __init__(
        self,
        repository: str,
        sizes: Mapping[str, int],
        on_disk: Mapping[str, int],
        on_download: OnDownload | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repository, self._sizes = repository, dict(sizes)
        self._done = dict(on_disk)
        self._at_start = sum(on_disk.values())
        self._on_download, self._clock = on_download, clock
        self._started = self._logged = self._reported = clock()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Says what is about to happen, if anything is."""
        now = self._now()
        if now.bytes_done < now.bytes_total:
            self._log("downloading", now)
        self._report(now)

    def at(self, name: str, bytes_done: int) -> None:
        """This file now has so many bytes on disk."""
        with self._lock:
            self._done[name] = bytes_done
            now = self._clock()
            due_log = now - self._logged >= LOG_SECONDS
            due_report = now - self._reported >= REPORT_SECONDS
            self._logged = now if due_log else self._logged
            self._reported = now if due_report else self._reported
        if due_log:
            self._log("downloading", self._now())
        if due_report:
            self._report(self._now())

    def end(self) -> None:
        """Everything is there."""
        now = self._now()
        self._log("downloaded" if now.bytes_done > self._at_start else "found on disk", now)
        self._report(now)

    def _now(self) -> Download:
        with self._lock:
            seconds = self._clock() - self._started
            return snapshot(self._repository, self._sizes, self._done, self._at_start, seconds)

    def _report(self, download: Download) -> None:
        if self._on_download is not None:
            self._on_download(download)

    @staticmethod
    def _log(what: str, download: Download) -> None:
        log.info(
            "%s %s: %s of %s, %s/s", what, download.repository, readable(download.bytes_done),
            readable(download.bytes_total), readable(download.bytes_per_second),
            extra={"fields": {
                "repository": download.repository, "bytes_done": download.bytes_done,
                "bytes_total": download.bytes_total, "seconds": round(download.seconds, 3),
                "bytes_per_second": round(download.bytes_per_second),
                "files": {file.name: [file.bytes_done, file.bytes_total] for file in download.files},
            }},
        )  # fmt: skip


def readable(count: float) -> str:
    """Bytes for people, in decimal units as disks and networks are sold: `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
