"""A circuit breaker as a pure state machine. Layer: llm.remote, pure; standard library only.

The one idea: a remote that is down makes every request wait for its own time-out and keeps the remote from
coming back; after enough failures nobody calls it for a while, then one probe does, and its fate decides.
pybreaker is the library for this, but its asynchronous support is written for Tornado and it reads the clock
itself; here the state is a value, and time and chance are arguments.

    closed --(failures in the window)--> open --(cool-down over)--> half-open --(probe answers)--> closed
                                          ^                            |
                                          +-----(probe fails)----------+
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Phase(StrEnum):
    """Whether calls go through (closed), none does (open), or one does to find out (half-open)."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Outcome(StrEnum):
    """What a finished call says of the remote: a refusal is an answer; a cancelled call says nothing."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Policy:
    """When to open and for how long; times in seconds.

    The circuit opens when, of the `window` youngest outcomes not older than `window_seconds`, at least
    `failures` and at least half are failures: the count alone would open it on a busy day with one failure
    in a thousand. The n-th cool-down in a row is `cool_down * 2**(n-1)`, at most `longest_cool_down`, times
    a random factor of 0.8 to 1.2 so that replicas do not probe together.
    """

    failures: int = 5
    window: int = 20
    window_seconds: float = 30.0
    cool_down: float = 5.0
    longest_cool_down: float = 60.0


@dataclass(frozen=True, slots=True)
class Circuit:
    """The state. `outcomes` are (time, failed), oldest first; `opened` counts openings since the remote last
    answered; `epoch` counts probes, so that calls begun before the last one are told from later ones."""

    phase: Phase = Phase.CLOSED
    outcomes: tuple[tuple[float, bool], ...] = ()
    until: float = 0.0
    opened: int = 0
    epoch: int = 0
    probing: bool = False


@dataclass(frozen=True, slots=True)
class Ticket:
    """Permission for one call; its outcome is recorded with it, exactly once. A probe is recorded twice:
    when it begins to answer and when it ends."""

    epoch: int
    probe: bool


def admit(circuit: Circuit, now: float) -> tuple[Circuit, Ticket | None]:
    """The state after asking for a call at `now`, and the permission, or None for a refusal."""
    if circuit.phase is Phase.CLOSED:
        return circuit, Ticket(circuit.epoch, probe=False)
    if circuit.phase is Phase.OPEN and now >= circuit.until:
        circuit = replace(circuit, phase=Phase.HALF_OPEN, probing=False)
    if circuit.phase is Phase.HALF_OPEN and not circuit.probing:
        circuit = replace(circuit, probing=True, epoch=circuit.epoch + 1)
        return circuit, Ticket(circuit.epoch, probe=True)
    return circuit, None


def retry_after(circuit: Circuit, now: float) -> float:
    """Seconds until a refused call is worth repeating: the cool-down that is left, or, while a probe runs,
    one."""
    return max(0.0, circuit.until - now) if circuit.phase is Phase.OPEN else 1.0


def record(
    circuit: Circuit, policy: Policy, ticket: Ticket, outcome: Outcome, *, now: float, jitter: float
) -> Circuit:
    """The state after a call ended. `jitter` is uniform in [0, 1). Calls begun before the state last changed
    say nothing about it and are ignored."""
    if ticket.epoch != circuit.epoch or circuit.phase is Phase.OPEN:
        return circuit
    if circuit.phase is Phase.HALF_OPEN:
        return _probed(circuit, policy, outcome, now, jitter)
    if outcome is Outcome.UNKNOWN:
        return circuit
    recent = [item for item in circuit.outcomes if now - item[0] <= policy.window_seconds]
    outcomes = (*recent, (now, outcome is Outcome.FAILURE))[-policy.window :]
    failed = sum(bad for _, bad in outcomes)
    if outcome is Outcome.FAILURE and failed >= policy.failures and 2 * failed >= len(outcomes):
        return _open(circuit, policy, now, jitter)
    return replace(circuit, outcomes=outcomes)


def _probed(circuit: Circuit, policy: Policy, outcome: Outcome, now: float, jitter: float) -> Circuit:
    """The probe's fate; one that was cancelled makes room for another."""
    if outcome is Outcome.SUCCESS:
        return Circuit(epoch=circuit.epoch)
    if outcome is Outcome.FAILURE:
        return _open(circuit, policy, now, jitter)
    return replace(circuit, probing=False)


def _open(circuit: Circuit, policy: Policy, now: float, jitter: float) -> Circuit:
    # min() of the exponent too: 2**opened must not grow without bound while a remote is away for days.
    seconds = min(policy.longest_cool_down, policy.cool_down * 2.0 ** min(circuit.opened, 30))
    return Circuit(
        phase=Phase.OPEN,
        until=now + seconds * (0.8 + 0.4 * jitter),
        opened=circuit.opened + 1,
        epoch=circuit.epoch,
    )
