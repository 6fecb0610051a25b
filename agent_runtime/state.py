"""The runtime's life as a state machine. Layer: pure; standard library only, no clock.

The one idea: startup, readiness and liveness are three views of one state, so they can never contradict
each other; nothing else in the runtime decides what a probe answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where the runtime is in its life; DRAINING and FAILED are final."""

    STARTING = "STARTING"
    LOADING = "LOADING"
    WARMING = "WARMING"
    READY = "READY"
    DRAINING = "DRAINING"
    FAILED = "FAILED"


_NEXT: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.LOADING, State.DRAINING, State.FAILED}),
    State.LOADING: frozenset({State.WARMING, State.DRAINING, State.FAILED}),
    State.WARMING: frozenset({State.READY, State.DRAINING, State.FAILED}),
    State.READY: frozenset({State.DRAINING, State.FAILED}),
    State.DRAINING: frozenset({State.FAILED}),
    State.FAILED: frozenset(),
}


class InvalidTransitionError(Exception):
    """A move the life cycle does not have; always a defect of the runtime."""


@dataclass(frozen=True, slots=True)
class Status:
    """A state, when it began (Unix seconds) and why, in words a person reads."""

    state: State
    since: float
    reason: str
    was_ready: bool = False


@dataclass(frozen=True, slots=True)
class Activity:
    """What the engine is doing: generations running, and seconds since any of them made a token."""

    running: int
    idle_seconds: float


class Work(StrEnum):
    """The engine's forward progress in one word."""

    IDLE = "Idle"
    BUSY = "Busy"
    STALLED = "Stalled"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A probe's answer and the sentence that explains it."""

    ok: bool
    reason: str


def may(status: Status, to: State) -> bool:
    """Whether `to` may follow the present state."""
    return to in _NEXT[status.state]


def transition(status: Status, to: State, now: float, reason: str) -> Status:
    """The status after a move. Raises InvalidTransitionError for a move the life cycle does not have."""
    if not may(status, to):
        raise InvalidTransitionError(f"{status.state} cannot be followed by {to}")
    return Status(to, now, reason, was_ready=status.was_ready or to is State.READY)


def startup(status: Status) -> Verdict:
    """Startup: true from the first READY on, so that the kubelet hands over to the other two probes."""
    return Verdict(status.was_ready and status.state is not State.FAILED, status.reason)


def work(activity: Activity, stall_seconds: float) -> Work:
    """Busy with progress is busy however long it takes; busy without a single token for `stall_seconds` is
    stalled."""
    if activity.running <= 0:
        return Work.IDLE
    return Work.STALLED if activity.idle_seconds >= stall_seconds else Work.BUSY


def readiness(status: Status, activity: Activity, stall_seconds: float) -> Verdict:
    """Readiness: true only while new requests are welcome and would be answered: a request sent to a stalled
    engine dies with it."""
    if status.state is State.READY and work(activity, stall_seconds) is Work.STALLED:
        return Verdict(False, _stalled(activity, stall_seconds))
    return Verdict(status.state is State.READY, status.reason)


def liveness(status: Status, activity: Activity, stall_seconds: float) -> Verdict:
    """Liveness: forward progress. Idle and busy are alive, stalled is not."""
    if status.state is State.FAILED:
        return Verdict(False, status.reason)
    if work(activity, stall_seconds) is Work.STALLED:
        return Verdict(False, _stalled(activity, stall_seconds))
    return Verdict(True, status.reason)


def _stalled(activity: Activity, stall_seconds: float) -> str:
    return (
        f"{activity.running} request(s) running and no token for {activity.idle_seconds:.0f} s "
        f"(stall_seconds is {stall_seconds:g})"
    )
