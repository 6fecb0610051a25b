"""Counts API writes from the API server's audit log: who wrote what, since when.

Layer: tests. The log is the only witness that does not depend on the code under test.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

OPERATOR = "system:serviceaccount:agent-operator-system:agent-operator"
NOT_COUNTED = frozenset({"leases", "selfsubjectaccessreviews"})
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


def audit_log() -> Path:
    """The embedded cluster's audit log; elsewhere AUDIT_LOG names it."""
    state = Path(os.environ.get("LOCAL_CLUSTER_DIR", "/var/lib/agent-operator-cluster"))
    return Path(os.environ.get("AUDIT_LOG", state / "logs" / "audit.log"))


@dataclass(frozen=True, slots=True)
class Request:
    """One request that succeeded. `at`: when it had been answered, in seconds since 1970."""

    at: float
    user: str
    verb: str
    namespace: str
    resource: str
    subresource: str
    name: str

    @property
    def is_write(self) -> bool:
        return self.verb in WRITES


class AuditMark:
    """A position in the audit log; `writes()` tells what was written after it."""

    def __init__(self) -> None:
        self.path = audit_log()
        stat = self.path.stat()
        self.inode, self.offset = stat.st_ino, stat.st_size

    def lines(self) -> Iterator[str]:
        """The lines written after the mark."""
        if self.path.stat().st_ino == self.inode:
            with self.path.open() as log:
                log.seek(self.offset)
                # The last line may be half written.
                yield from (line for line in log if line.endswith("\n"))
            return
        raise AssertionError("the audit log was rotated during the measurement: take a new mark")

    def requests(self, namespace: str | None = None) -> Iterator[Request]:
        """Every request that succeeded after the mark, in the order of the log."""
        needle = f'"namespace":"{namespace}"' if namespace else ""
        for line in self.lines():
            if needle not in line:
                continue
            event = json.loads(line)
            reference = event.get("objectRef", {})
            if event["stage"] != "ResponseComplete" or event.get("responseStatus", {}).get("code", 0) >= 400:
                continue
            if namespace and reference.get("namespace") != namespace:
                continue
            yield Request(
                at=datetime.fromisoformat(event["stageTimestamp"]).timestamp(),
                user=event["user"]["username"],
                verb=event["verb"],
                namespace=reference.get("namespace", ""),
                resource=reference.get("resource", ""),
                subresource=reference.get("subresource", ""),
                name=reference.get("name", ""),
            )

    def writes(self, user: str = OPERATOR, namespace: str | None = None) -> Counter[str]:
        """Successful writes by `user`, as {"verb resource[/subresource] name": count}; Leases left out."""
        found: Counter[str] = Counter()
        for request in self.requests(namespace):
            if request.user == user and request.is_write and request.resource not in NOT_COUNTED:
                resource = "/".join(filter(None, (request.resource, request.subresource)))
                found[f"{request.verb} {resource} {request.name}"] += 1
        return found
