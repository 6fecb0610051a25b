"""What two operators wrote, in the order the API server saw it. Layer: tests.

The one idea: only the audit log can tell that two never acted at once; it knows nothing of leases.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from tests.support.audit import WRITES, audit_log

NOT_ACTING = frozenset({"leases", "selfsubjectaccessreviews", "selfsubjectrulesreviews"})


class Write(NamedTuple):
    """One request to change something, accepted or not; times are seconds of the API server's clock."""

    received: float
    ended: float
    code: int
    what: str


class Trail:
    """The writes of ServiceAccounts since it was made, across a rotation of the log."""

    def __init__(self) -> None:
        self._path = audit_log()
        stat = self._path.stat()
        self._inode, self._offset = stat.st_ino, stat.st_size
        self._lines: list[bytes] = []

    def writes(self, user: str) -> list[Write]:
        """Everything `user` asked the API server to change, Leases apart, as it arrived."""
        self._read()
        found = []
        for line in self._lines:
            if user.encode() not in line:
                continue
            event = json.loads(line)
            reference = event.get("objectRef", {})
            if event["user"]["username"] != user or event["stage"] != "ResponseComplete":
                continue
            if event["verb"] not in WRITES or reference.get("resource") in NOT_ACTING:
                continue
            what = f"{event['verb']} {reference.get('resource')} {reference.get('name', '')}"
            code = event.get("responseStatus", {}).get("code", 0)
            received, ended = _seconds(event["requestReceivedTimestamp"]), _seconds(event["stageTimestamp"])
            found.append(Write(received, ended, code, what))
        return sorted(found)

    def _read(self) -> None:
        """Take what is new: the rest of the file we were in, then, if there is a newer one, that as well."""
        while True:
            newest = self._path.stat().st_ino
            with self._file().open("rb") as log:
                log.seek(self._offset)
                lines = log.readlines()
            whole = [line for line in lines if line.endswith(b"\n")]
            self._offset += sum(map(len, whole))
            self._lines += [line for line in whole if b"system:serviceaccount:" in line]
            if newest == self._inode:
                return
            self._inode, self._offset = newest, 0

    def _file(self) -> Path:
        """The file we are in; rotation renames it beside the log."""
        beside = self._path.parent.glob(f"{self._path.stem}*")
        return next(path for path in (self._path, *beside) if path.stat().st_ino == self._inode)


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
