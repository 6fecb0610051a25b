"""Keeps the key ring in step with the mounted Secret. Layer: access, shell: reads files in a thread.

The one idea: once a second a daemon thread looks at the path's metadata, and only when they differ are the
entries read and a new ring put in the old one's place; requests read one attribute and never a file. So a
revoked key is refused within two seconds of the change of its file (the kubelet may take a minute or more to
bring a changed Secret to the node), and a file system that hangs delays the next ring, not a request.

A Secret is mounted as a folder whose `..data` link the kubelet turns to a new folder in one step; entries are
read through that folder, so a ring never mixes two versions. Names that begin with a dot are not entries. A
Secret mounted with `subPath` is never updated by the kubelet.

When the path cannot be read the last ring stays for GRACE_SECONDS, because folders are also replaced by
moving them; after that, and at once when the path is readable but holds no valid entry, every key is refused.
watchfiles and watchdog would tell of a change sooner, but inotify misses changes on network volumes.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent_runtime.api_keys import MAX_ENTRY_CHARACTERS, KeyRing, key_ring, parse_lines

log = logging.getLogger("agent_runtime.access")

POLL_SECONDS = 1.0
GRACE_SECONDS = 60.0
RACY_SECONDS = 2.0
"""A file changed this recently may change again without its time of change showing it; it is read again."""
MAX_ENTRIES = 4096
MAX_FILE_BYTES = MAX_ENTRIES * 256


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The path could not be read, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """The ring in force; `missing_since` is set (monotonic seconds) while the path cannot be read."""

    ring: KeyRing
    missing_since: float | None = None


def next_loaded(loaded: Loaded, look: KeyRing | Unreadable, now: float) -> Loaded:
    """What is in force after a look at the path."""
    if isinstance(look, KeyRing):
        return Loaded(look)
    since = now if loaded.missing_since is None else loaded.missing_since
    if now - since < GRACE_SECONDS:
        return Loaded(loaded.ring, since)
    return Loaded(KeyRing((), (look.reason,)), since)


Fingerprint = tuple[object, ...]


class KeySource:
    """The ring read from a folder or file of keys; `ring` may be read from any thread."""

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Reads the keys once. A path that cannot be read gives an empty ring: nobody is admitted."""
        self.path = path
        self._clock, self._wall_clock = clock, wall_clock
        self._fingerprint: Fingerprint | None = None
        self._loaded = Loaded(KeyRing(), -float("inf"))
        self._said: object = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.poll()

    @property
    def ring(self) -> KeyRing:
        """The ring in force."""
        return self._loaded.ring

    def start(self) -> None:
        """Polls in a daemon thread from now on."""
        self._thread = threading.Thread(target=self._run, name="api-keys", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(POLL_SECONDS * 2)

    def poll(self) -> None:
        """Looks once, and puts a new ring in force when something changed."""
        try:
            seen, newest = _fingerprint(self.path)
        except OSError as error:
            self._fingerprint = None
            self._take(Unreadable(f"{self.path} cannot be read: {error.strerror or error}"))
            return
        if seen == self._fingerprint:
            return
        # Before the entries are read: what changes meanwhile is seen as a change by the next look.
        racy = self._wall_clock() - newest < RACY_SECONDS
        self._fingerprint = None if racy else seen
        try:
            ring = read(self.path)
        except OSError as error:
            self._fingerprint = None
            self._take(Unreadable(f"{self.path} cannot be read: {error.strerror or error}"))
            return
        self._take(ring)

    def _take(self, look: KeyRing | Unreadable) -> None:
        after = next_loaded(self._loaded, look, self._clock())
        if after.ring == self._loaded.ring:
            after = Loaded(self._loaded.ring, after.missing_since)  # the same object: nothing to drop
        self._loaded = after
        self._tell(look)

    def _tell(self, look: KeyRing | Unreadable) -> None:
        """One log line per change, not per look."""
        said = (look, self._loaded.ring)
        if said == self._said:
            return
        self._said = said
        ring = self._loaded.ring
        if isinstance(look, Unreadable) and ring.entries:
            log.warning("%s; the last known keys stay valid for %.0f s", look.reason, GRACE_SECONDS)
            return
        for problem in ring.problems:
            log.error("an API key entry is ignored: %s", problem)
        if ring.entries:
            names = sorted(entry.principal.name for entry in ring.entries)
            log.info("API keys loaded", extra={"fields": {"keys": names, "ignored": len(ring.problems)}})
        else:
            log.error(
                "no valid API key in %s: every request is refused with 401. Add an entry, for example with "
                "`agent-runtime keys new`, or leave access.api_keys_path out to serve without keys.",
                self.path,
            )

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                self.poll()
            except Exception:
                log.exception("looking for changed API keys failed")


def _fingerprint(path: Path) -> tuple[Fingerprint, float]:
    """What changes when the keys do, and when it last did (Unix seconds). Raises OSError."""
    status = path.stat()
    if not stat.S_ISDIR(status.st_mode):
        return _facts(status), status.st_mtime
    data = path / "..data"
    if data.is_symlink():
        target = data.stat()
        return (str(data.readlink()), *_facts(target)), target.st_mtime
    facts: list[object] = [_facts(status)]
    newest = status.st_mtime
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith(".") or len(facts) > MAX_ENTRIES:
                continue
            try:
                found = entry.stat()
            except FileNotFoundError:
                continue  # a dangling link; `read` says so
            facts.append((entry.name, *_facts(found)))
            newest = max(newest, found.st_mtime)
    return tuple(facts), newest


def _facts(status: os.stat_result) -> Fingerprint:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def read(path: Path) -> KeyRing:
    """The ring at the path. Raises OSError when the path itself cannot be read."""
    if not path.is_dir():
        text = _text(path, MAX_FILE_BYTES)
        return key_ring(parse_lines(text)) if isinstance(text, str) else KeyRing((), (text.reason,))
    try:
        return _read_folder(path, missing_is_a_problem=False)
    except FileNotFoundError:  # the kubelet swapped the folder while it was being read
        return _read_folder(path, missing_is_a_problem=True)


def _read_folder(path: Path, *, missing_is_a_problem: bool) -> KeyRing:
    data = path / "..data"
    folder = data.resolve(strict=True) if data.is_symlink() else path
    names = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
    entries: list[tuple[str, str]] = []
    problems: list[str] = []
    if len(names) > MAX_ENTRIES:
        problems.append(f"{path} holds {len(names)} entries; those after the first {MAX_ENTRIES} are ignored")
    for name in names[:MAX_ENTRIES]:
        try:
            text = _text(folder / name, MAX_ENTRY_CHARACTERS)
        except FileNotFoundError as error:
            if not missing_is_a_problem:
                raise
            text = Unreadable(f"cannot be read: {error.strerror}")
        except OSError as error:
            text = Unreadable(f"cannot be read: {error.strerror or error}")
        if isinstance(text, str):
            entries.append((name, text))
        else:
            problems.append(f"API key '{name}': {text.reason}")
    return key_ring(entries, problems)


def _text(path: Path, limit: int) -> str | Unreadable:
    """The text of a regular file of at most `limit` bytes. Raises OSError."""
    if not stat.S_ISREG(path.stat().st_mode):
        return Unreadable("it is not a regular file")  # opening a named pipe would wait for ever
    with path.open("rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        return Unreadable(f"it is longer than {limit} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Unreadable("it is not UTF-8 text")
