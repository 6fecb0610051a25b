"""What is known of one pod. Layer: core, pure; imports core.reading and the contract.

The one idea: signatures match facts, not JSON. A pod's containers are read once, tolerantly, with the
last way each of them ended, whether it is running again or not: so a diagnosis does not come and go
with every attempt of a crash loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent_operator.api.names import RUNTIME_CONTAINER
from agent_operator.core.reading import at, condition, count, is_ready, mapping, mappings, text, timestamp
from agent_runtime.contract import TerminationReport


@dataclass(frozen=True, slots=True)
class Termination:
    """How a container ended."""

    exit_code: int
    signal: int
    reason: str
    message: str
    finished_at: datetime | None

    @property
    def report(self) -> TerminationReport | None:
        """What the runtime said about it, if it did."""
        return TerminationReport.decode(self.message)


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """One container of a pod."""

    name: str
    image: str
    ready: bool
    restarts: int
    endings: int
    """How often it ended: one more than the restarts until it runs again."""
    waiting_reason: str
    waiting_message: str
    termination: Termination | None
    """The last time it ended, None when it never did."""
    memory_limit: str

    @property
    def is_runtime(self) -> bool:
        """Whether it is the operator's own container."""
        return self.name == RUNTIME_CONTAINER


@dataclass(frozen=True, slots=True)
class PodFacts:
    """One pod."""

    name: str
    ready: bool
    phase: str
    reason: str
    message: str
    unscheduled: str | None
    """The scheduler's words when it found no node, None when it did or has not looked."""
    containers: tuple[ContainerFacts, ...]
    mount_error: str = ""
    """Why its volumes cannot be mounted, in the kubelet's words, "" when that is not known to be so."""


def pod_facts(pod: Mapping[str, Any], mount_errors: Mapping[str, str] | None = None) -> PodFacts:
    """The facts of a pod as the API server returned it. `mount_errors` are those of `mounts.errors`."""
    limits = {
        text(c, "name"): str(at(c, "resources", "limits", "memory") or "")
        for c in mappings(pod, "spec", "containers")
    }
    statuses = mappings(pod, "status", "containerStatuses") + mappings(pod, "status", "initContainerStatuses")
    containers = [_container(status, limits.get(text(status, "name"), "")) for status in statuses]
    scheduled = condition(pod, "PodScheduled")
    unscheduled = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    return PodFacts(
        name=text(pod, "metadata", "name"),
        ready=is_ready(pod),
        phase=text(pod, "status", "phase"),
        reason=text(pod, "status", "reason"),
        message=text(pod, "status", "message"),
        unscheduled=text(scheduled, "message") if unscheduled else None,
        containers=tuple(sorted(containers, key=lambda c: (not c.is_runtime, c.name))),
        mount_error=(mount_errors or {}).get(text(pod, "metadata", "uid"), ""),
    )


def _container(status: Mapping[str, Any], memory_limit: str) -> ContainerFacts:
    ended = mapping(status, "state", "terminated") or mapping(status, "lastState", "terminated")
    restarts, running = count(status, "restartCount"), at(status, "state", "running") is not None
    return ContainerFacts(
        name=text(status, "name"),
        image=text(status, "image"),
        ready=status.get("ready") is True,
        restarts=restarts,
        endings=restarts + (1 if ended and not running else 0),
        waiting_reason=text(status, "state", "waiting", "reason"),
        waiting_message=text(status, "state", "waiting", "message"),
        termination=_termination(ended) if ended else None,
        memory_limit=memory_limit,
    )


def _termination(ended: Mapping[str, Any]) -> Termination:
    return Termination(
        exit_code=count(ended, "exitCode"),
        signal=count(ended, "signal"),
        reason=text(ended, "reason"),
        message=text(ended, "message"),
        finished_at=timestamp(ended.get("finishedAt")),
    )
