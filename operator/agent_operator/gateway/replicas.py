"""An agent's pods and the connections to them. Layer: gateway; imports the core.

The one idea: `ready` is at every moment the list of pods that may be given a request: what the slices call
ready, and what said so itself before they did, without those that refused a moment ago. A pod that goes
keeps the requests it has.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from agent_operator.gateway.backend import BackendConnection
from agent_operator.gateway.core.answers import Problem
from agent_operator.gateway.core.choice import seed_of
from agent_operator.gateway.core.slices import PodFacts
from agent_operator.gateway.request import Request

CONNECT_SECONDS = 2.0
REST_SECONDS = 1.0
"""How long a pod that refused is left alone."""
IDLE_CONNECTIONS = 64
"""Per pod."""

Place = tuple[str, str, int]
"""A pod's name, address and port: another of them is another pod."""


class Owner(Protocol):
    """Whose requests a pod answers."""

    stopping: bool
    upstream_errors: Counter[str]

    def answered(self, request: Request) -> None:
        """The answer was passed on to its last byte."""

    def declined(self, request: Request, status: int) -> bool:
        """The pod asks to come later; True when the request goes elsewhere."""

    def lost(self, request: Request, *, unanswered: bool, reused: bool) -> None:
        """The connection ended before the answer did."""

    def failed(self, request: Request, problem: Problem) -> None:
        """The answer is none."""


class Pod:
    """One pod and the connections to it."""

    __slots__ = (
        "connections", "facts", "idle", "in_flight", "others", "owner", "resting", "seed", "served",
        "vouched",
    )  # fmt: skip

    def __init__(self, owner: Owner, facts: PodFacts) -> None:
        self.owner = owner
        self.facts = facts
        self.seed = seed_of(facts.name)
        self.in_flight = self.others = self.served = 0
        self.resting = False
        """It refused a connection or a request a moment ago."""
        self.vouched = False
        """It said that it is ready, and the slices do not yet."""
        self.idle: list[BackendConnection] = []
        self.connections: set[BackendConnection] = set()

    async def connect(self) -> BackendConnection:
        """A new connection.

        Raises:
            OSError: the pod does not take it, in CONNECT_SECONDS.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            _, connection = await loop.create_connection(
                lambda: BackendConnection(self), self.facts.host, self.facts.port
            )
        return connection

    def keep(self, connection: BackendConnection) -> None:
        """A connection has no request; it waits for the next, or closes."""
        if self.facts.ready and len(self.idle) < IDLE_CONNECTIONS:
            connection.idle_since = asyncio.get_running_loop().time()
            self.idle.append(connection)
        else:
            connection.transport.close()

    def close_idle(self, before: float = float("inf")) -> None:
        """Close the connections that have been idle since before this time."""
        stale = [connection for connection in self.idle if connection.idle_since < before]
        self.idle = [connection for connection in self.idle if connection.idle_since >= before]
        for connection in stale:
            connection.transport.close()


class Replicas:
    """The pods of one agent."""

    def __init__(self, owner: Owner, on_ready: Callable[[], None]) -> None:
        """`on_ready` is called whenever `ready` may have gained a pod."""
        self.ready: list[Pod] = []
        self.starting: tuple[PodFacts, ...] = ()
        """Pods on their way."""
        self._owner, self._on_ready = owner, on_ready
        self._pods: dict[Place, Pod] = {}

    def __iter__(self) -> Iterator[Pod]:
        return iter(self._pods.values())

    def update(self, pods: Iterable[PodFacts]) -> None:
        """The pods as they are now."""
        seen = {(fact.name, fact.host, fact.port): fact for fact in pods}
        for place in [place for place in self._pods if place not in seen]:
            gone = self._pods.pop(place)
            gone.facts = PodFacts(*place, ready=False, terminating=True)
            gone.close_idle()
        for place, fact in seen.items():
            pod = self._pods.setdefault(place, Pod(self._owner, fact))
            pod.facts = fact
            if fact.ready or fact.terminating:
                pod.vouched = False
            if not fact.ready:
                pod.close_idle()
        self.starting = tuple(fact for fact in seen.values() if not fact.ready and not fact.terminating)
        self._recount()

    def vouch(self, fact: PodFacts) -> None:
        """A pod that is starting says that it is ready."""
        pod = self._pods.get((fact.name, fact.host, fact.port))
        if pod is not None and not pod.facts.ready and not pod.facts.terminating:
            pod.vouched = True
            self._recount()

    def rest(self, pod: Pod) -> None:
        """Leave a pod alone for a moment."""
        if pod.resting:
            return
        pod.resting, pod.vouched = True, False
        self.ready = [other for other in self.ready if other is not pod]

        def recovered() -> None:
            pod.resting = False
            self._recount()

        asyncio.get_running_loop().call_later(REST_SECONDS, recovered)

    def close_idle(self, before: float) -> None:
        """Close connections that nobody used since."""
        for pod in self._pods.values():
            pod.close_idle(before)

    def abort(self) -> None:
        """End every connection."""
        for pod in self._pods.values():
            for connection in list(pod.connections):
                connection.transport.abort()

    def _recount(self) -> None:
        self.ready = [
            pod for pod in self._pods.values() if (pod.facts.ready or pod.vouched) and not pod.resting
        ]
        if self.ready:
            self._on_ready()
