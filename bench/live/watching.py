"""When things happened on the real node, to the millisecond. Layer: tooling; imports the kubectl driver.

The one idea: what Kubernetes writes down has whole seconds. The creation of a pod is taken from the API
server's audit log, whose times are in microseconds and of our own clock: the cluster is this machine.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from local_cluster.paths import Paths
from tests.support.kubectl import Kubectl, wait_for

AUDIT_LAG_SECONDS = 5.0


class Audit:
    """What was written to the API server since this object was made."""

    def __init__(self) -> None:
        self._path = Paths.from_environment().audit_log
        self._offset = self._path.stat().st_size

    def pods_created(self, namespace: str, number: int, timeout: float = AUDIT_LAG_SECONDS) -> list[float]:
        """Unix seconds at which the first `number` pods of the namespace were stored."""

        def look() -> list[float] | None:
            found = self._created(namespace)
            return found[:number] if len(found) >= number else None

        return wait_for(f"{number} pods in the audit log", look, timeout)

    def _created(self, namespace: str) -> list[float]:
        times = []
        with self._path.open("rb") as log:
            log.seek(self._offset)
            for line in log:
                if b'"resource":"pods"' in line and b'"verb":"create"' in line and line.endswith(b"\n"):
                    event = json.loads(line)
                    what = event["objectRef"]
                    made = event.get("responseStatus", {}).get("code") == 201
                    if made and what.get("namespace") == namespace and "subresource" not in what:
                        times.append(datetime.fromisoformat(event["stageTimestamp"]).timestamp())
        return sorted(times)


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent of a benchmark in a namespace of its own."""

    kubectl: Kubectl
    name: str

    @property
    def selector(self) -> str:
        """Of its pods."""
        return f"agentoperator.dev/agent={self.name}"

    def pods(self) -> list[dict[str, Any]]:
        """Those that are not on their way out."""
        found = self.kubectl.list("pods", self.selector)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def desired(self) -> int:
        """What the autoscaler wants."""
        status = (self.kubectl.get("agd", self.name) or {}).get("status", {})
        return int(status.get("scaling", {}).get("desired", -1))

    def asleep(self) -> bool:
        """Nothing runs, nothing ends, and the gateway is there for the next request."""
        slices = self.kubectl.get("endpointslice", f"{self.name}-gateway") or {}
        return (
            self.kubectl.condition(self.name).get("reason") == "ScaledToZero"
            and bool(slices.get("endpoints"))
            and not self.kubectl.list("pods", self.selector)
        )

    def wait_asleep(self, timeout: float = 120) -> None:
        """Wait until it is, and until the node's proxy has heard of it."""
        wait_for(f"{self.name} to sleep", self.asleep, timeout, lambda: self.kubectl.explain(self.name))
        time.sleep(0.5)
