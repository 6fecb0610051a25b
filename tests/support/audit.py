"""Counts API writes from the API server's audit log: who wrote what, since when.

Layer: tests. The log is the only witness that does not depend on the code under test.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

OPERATOR = "system:serviceaccount:agent-operator-system:agent-operator"
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


def audit_log() -> Path:
    """The embedded cluster's audit log; elsewhere AUDIT_LOG names it."""
    state = Path(os.environ.get("LOCAL_CLUSTER_DIR", "/var/lib/agent-operator-cluster"))
    return Path(os.environ.get("AUDIT_LOG", state / "logs" / "audit.log"))


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

    def writes(self, user: str = OPERATOR, namespace: str | None = None) -> Counter[str]:
        """Successful writes by `user`, as {"verb resource[/subresource] name": count}; Leases left out."""
        found: Counter[str] = Counter()
        for line in self.lines():
            event = json.loads(line)
            reference = event.get("objectRef", {})
            if event["stage"] != "ResponseComplete" or event["verb"] not in WRITES:
                continue
            if event["user"]["username"] != user or reference.get("resource") in {
                "leases",
                "selfsubjectaccessreviews",
            }:
                continue
            if namespace and reference.get("namespace") != namespace:
                continue
            if event.get("responseStatus", {}).get("code", 0) >= 400:
                continue
            resource = "/".join(filter(None, (reference.get("resource"), reference.get("subresource"))))
            found[f"{event['verb']} {resource} {reference.get('name', '')}"] += 1
        return found
