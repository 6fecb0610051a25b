"""A simulated agent: one queue, replicas with slots, cold starts, drains, impatient clients. Layer: tooling.

The one idea: events in order of time (arrivals, completions, replicas that become ready, ticks of the
autoscaler); everything random was drawn before, so every autoscaler sees the same requests.

The data path is kind to all: one queue for all replicas, as a gateway or Knative's activator has it, and no
request is lost by a drain. A request is lost if the queue is full when it comes, or if it waited longer
than its client does. A replica costs from the moment it is asked for until it has drained.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

ARRIVAL, COMPLETION, READY, TICK = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Machine:
    """What one replica can do, and what surrounds it. Seconds."""

    slots: int = 8
    """Requests that a replica runs at the same time."""
    cold_start: float = 60.0
    """From asking for a replica until it serves."""
    queue_per_replica: int = 64
    """Requests that may wait, for each ready replica (and for one, if there is none)."""
    patience: float = 60.0
    """How long a client waits for its request to begin."""
    max_replicas: int = 40


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests: when each comes and how long a replica works on it. Those before `begin` only warm up."""

    name: str
    arrivals: list[float]
    services: list[float]
    seconds: float
    min_replicas: int = 1
    """0: scaling to zero is allowed, to those who can."""
    begin: float = 0.0
    initial: int = 1
    """Replicas that are ready at the begin."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What an autoscaler may see at one moment."""

    at: float
    running: int
    waiting: int
    ready: int
    replicas: int
    """Ready and starting ones: what was asked for."""


class Autoscaler(Protocol):
    """Decides the number of replicas."""

    tick: float
    """Seconds between two looks."""

    def look(self, sight: Sight) -> int:
        """The number of replicas wanted now."""


@dataclass(slots=True)
class Replica:
    ready: bool = False
    draining: bool = False
    running: int = 0


@dataclass(slots=True)
class Outcome:
    """What became of a trace."""

    waits: list[float] = field(default_factory=list)
    """Seconds until a request began; the client's patience for those that were lost."""
    refused: int = 0
    gave_up: int = 0
    replica_seconds: float = 0.0
    changes: list[tuple[float, int]] = field(default_factory=list)
    """When the number asked for was changed, and by how much."""
    line: list[tuple[float, int, int]] = field(default_factory=list)
    """Time, replicas that cost, requests running and waiting: at every look."""

    @property
    def lost(self) -> int:
        return self.refused + self.gave_up

    def wait(self, quantile: float) -> float:
        """A quantile of the seconds until a request began."""
        if not self.waits:
            return 0.0
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]

    def flaps(self, within: float = 300.0) -> int:
        """Changes of direction within so many seconds of the change before."""
        pairs = zip(self.changes, self.changes[1:], strict=False)
        return sum(1 for (t0, by0), (t1, by1) in pairs if by0 * by1 < 0 and t1 - t0 <= within)


class Simulation:
    """One trace under one autoscaler."""

    def __init__(self, trace: Trace, autoscaler: Autoscaler, machine: Machine) -> None:
        self.trace, self.autoscaler, self.machine = trace, autoscaler, machine
        self.outcome = Outcome()
        self.replicas = [Replica(ready=True) for _ in range(trace.initial)]
        self.queue: deque[tuple[float, float]] = deque()
        self.running = 0
        self.now = 0.0
        self._events: list[tuple[float, int, int, Replica | None]] = []
        self._order = 0

    def run(self) -> Outcome:
        """Until the trace has ended; what still waits then is served or lost as it would be."""
        self._at(0.0, TICK)
        arrivals, services = self.trace.arrivals, self.trace.services
        upcoming, warm = 0, False
        while True:
            arrival = arrivals[upcoming] if upcoming < len(arrivals) else float("inf")
            event = self._events[0][0] if self._events else float("inf")
            if min(arrival, event) > self.trace.seconds:
                break
            if arrival <= event:
                if not warm and arrival >= self.trace.begin:
                    warm = True
                    self._pass_to(self.trace.begin)
                    self.outcome = Outcome()
                self._pass_to(arrival)
                self._arrive(services[upcoming])
                upcoming += 1
            else:
                at, kind, _, replica = heapq.heappop(self._events)
                self._pass_to(at)
                self._happen(kind, replica)
        self._pass_to(self.trace.seconds)
        self.outcome.waits += [self.now - came for came, _ in self.queue]
        return self.outcome

    def _at(self, at: float, kind: int, replica: Replica | None = None) -> None:
        self._order += 1
        heapq.heappush(self._events, (at, kind, self._order, replica))

    def _pass_to(self, at: float) -> None:
        self.outcome.replica_seconds += (at - self.now) * len(self.replicas)
        self.now = at

    def _arrive(self, service: float) -> None:
        self._lose_impatient()
        ready = sum(1 for replica in self.replicas if replica.ready and not replica.draining)
        if len(self.queue) >= self.machine.queue_per_replica * max(1, ready):
            self.outcome.refused += 1
            self.outcome.waits.append(self.machine.patience)
            return
        self.queue.append((self.now, service))
        self._dispatch()

    def _happen(self, kind: int, replica: Replica | None) -> None:
        if kind == TICK:
            self._look()
            return
        if replica is None:
            raise AssertionError("an event without its replica")
        if kind == READY:
            replica.ready = True
        else:
            replica.running -= 1
            self.running -= 1
            if replica.draining and replica.running == 0:
                self.replicas.remove(replica)
        self._dispatch()

    def _lose_impatient(self) -> None:
        while self.queue and self.now - self.queue[0][0] > self.machine.patience:
            self.queue.popleft()
            self.outcome.gave_up += 1
            self.outcome.waits.append(self.machine.patience)

    def _dispatch(self) -> None:
        """The oldest requests to the replicas with the fewest."""
        self._lose_impatient()
        while self.queue:
            free = [
                replica
                for replica in self.replicas
                if replica.ready and not replica.draining and replica.running < self.machine.slots
            ]
            if not free:
                return
            replica = min(free, key=lambda one: one.running)
            came, service = self.queue.popleft()
            self.outcome.waits.append(self.now - came)
            replica.running += 1
            self.running += 1
            self._at(self.now + service, COMPLETION, replica)

    def _look(self) -> None:
        self._lose_impatient()
        live = [replica for replica in self.replicas if not replica.draining]
        sight = Sight(
            at=self.now,
            running=self.running,
            waiting=len(self.queue),
            ready=sum(1 for replica in live if replica.ready),
            replicas=len(live),
        )
        wanted = min(self.machine.max_replicas, self.autoscaler.look(sight))
        if wanted != len(live):
            self.outcome.changes.append((self.now, wanted - len(live)))
        for _ in range(wanted - len(live)):
            replica = Replica()
            self.replicas.append(replica)
            self._at(self.now + self.machine.cold_start, READY, replica)
        # Kubernetes removes what is not ready first; then those with the fewest requests go
        for replica in sorted(live, key=lambda one: (one.ready, one.running))[: max(0, len(live) - wanted)]:
            replica.draining = True
            if replica.running == 0:
                self.replicas.remove(replica)
        self.outcome.line.append((self.now, len(self.replicas), sight.running + sight.waiting))
        self._at(self.now + self.autoscaler.tick, TICK)
