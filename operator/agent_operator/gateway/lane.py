"""One agent's requests: held, released, passed on, given up. Layer: gateway; imports the core.

The one idea: a request is in one of three places, the queue, a replica or nowhere, and every way from one to
another is a method here. While pods are ready and nobody waits, a request passes in one call without a task.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from agent_operator.api.gateway import AgentDemand, Route
from agent_operator.gateway.admission import Admission, Keys
from agent_operator.gateway.client import ClientConnection
from agent_operator.gateway.core import answers, choice, heads, prefix
from agent_operator.gateway.core.answers import Problem
from agent_operator.gateway.core.hold import HoldQueue
from agent_operator.gateway.core.slices import PodFacts
from agent_operator.gateway.core.wake import COMMENT_SECONDS, SCHEDULING, Wakes
from agent_operator.gateway.held_stream import HeldStream
from agent_operator.gateway.replicas import Pod, Replicas
from agent_operator.gateway.request import Request

logger = logging.getLogger(__name__)

TRIES = 3
"""Pods a request is offered to when they decline it."""
TICK_SECONDS = 0.5
SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""Methods that may be sent twice (RFC 9110, 9.2.1)."""


class Lane:
    """The gateway's part of one agent. Lives on the event loop."""

    def __init__(
        self,
        route: Route,
        *,
        keys: Keys,
        on_held: Callable[[str, int], None] = lambda agent, held: None,
        on_wait: Callable[[str, float], None] = lambda agent, seconds: None,
    ) -> None:
        """`on_held` is told whenever the number of held requests changed, `on_wait` how long one waited."""
        self.route = route
        self.clients: set[ClientConnection] = set()
        self.replicas = Replicas(self, self._on_ready)
        self.progress = SCHEDULING
        """How far the start is, for streams that wait."""
        self.in_flight = 0
        self.passed = 0
        """Requests given to replicas, ever."""
        self.stopping = False
        self.outcomes: Counter[str] = Counter()
        """Ends of holds (released, expired, cancelled) and refusals."""
        self.upstream_errors: Counter[str] = Counter()
        self.queue: HoldQueue[Request] = HoldQueue(route.max_held_requests, route.max_held_bytes)
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self._wakes = Wakes()
        self._on_held, self._on_wait = on_held, on_wait
        self._admission = Admission(keys, admit=self._hold, refuse=self._refuse, spawn=self._spawn)
        self._tasks: set[asyncio.Task[None]] = set()
        self._tending: asyncio.Task[None] | None = None
        self._closed: Callable[[], Problem] | None = None

    # ------------------------------------------------------------------ what the slices say

    def update(self, route: Route, pods: Iterable[PodFacts]) -> None:
        """The route and the pods as they are now."""
        self.route = route
        self.queue.max_requests, self.queue.max_bytes = route.max_held_requests, route.max_held_bytes
        self.replicas.update(pods)
        if not self.replicas.starting:
            self.progress = SCHEDULING

    def _on_ready(self) -> None:
        self._wakes.end(self.now())
        self.pump()

    # ------------------------------------------------------------------ in

    def submit(self, request: Request) -> None:
        """A request has arrived: its head, and perhaps its body."""
        if self._closed is not None:
            self._refuse(request, self._closed())
        elif self.replicas.ready and not self.queue:
            self._pass(request)
        else:
            self._admission.ask(request, self.route, self.retry_after())

    def grew(self, request: Request, more: int) -> None:
        """More of the body of a request came that no replica has."""
        if request.gathering:
            if request.complete or request.buffered > prefix.PARSED_BYTES:
                request.gathering = False
                self.submit(request)
        elif request.head.chunked and request in self.queue and not self.queue.grow(request, more):
            self.withdraw(request)
            self._refuse(request, answers.hold_full("bytes", self.retry_after()))

    def holds(self, request: Request) -> bool:
        """Whether a request waits in the queue, where its size is accounted for."""
        return request.gathering or request in self.queue

    def _pass(self, request: Request) -> None:
        if len(self.replicas.ready) == 1 or self.route.mode != "Always":
            self._send(request, self.replicas.ready[0] if len(self.replicas.ready) == 1 else self._least())
            return
        if not request.complete and request.buffered <= prefix.PARSED_BYTES:
            request.gathering = True
            request.client.continue_body()
            return
        key = prefix.affinity_key(_joined(request.body)) if request.buffered else None
        pod = choice.affine(self.replicas.ready, key) if key is not None else None
        self._send(request, pod or self._least())

    def _least(self) -> Pod:
        pod = choice.least_loaded(self.replicas.ready)
        assert pod is not None  # noqa: S101 - only called while pods are ready
        return pod

    # ------------------------------------------------------------------ hold

    def _hold(self, request: Request) -> None:
        """Admitted: into the line, unless in the meantime there is none."""
        if self._closed is not None:
            self._refuse(request, self._closed())
            return
        if self.replicas.ready and not self.queue:
            self._pass(request)
            return
        now = self.now()
        self._set_deadline(request, now)
        full = self.queue.offer(request, request.size(), now, request.deadline)
        if full is not None:
            self._refuse(request, answers.hold_full(full, self.retry_after()))
            return
        request.held = True
        self._waits(request)
        if self.replicas.ready:
            self.pump()

    def _set_deadline(self, request: Request, now: float) -> None:
        named = request.patience = heads.timeout_of(request.head.raw)
        seconds = self.route.hold_seconds if named is None else min(named, self.route.hold_seconds)
        request.since, request.deadline = now, now + seconds

    def _waits(self, request: Request) -> None:
        if not any(pod.facts.ready for pod in self.replicas):
            self._wakes.begin(self.now())
        request.client.continue_body()
        self._changed()
        if self._tending is None:
            self._tending = self._spawn(self._tend())

    async def _tend(self) -> None:
        """While anybody waits: deadlines, and words for streams."""
        try:
            while self.queue:
                now = self.now()
                for request in self.queue.expire(now):
                    self._expired(request, now)
                for request in self.queue:
                    self._comfort(request, now)
                due = self.queue.next_deadline()
                pause = TICK_SECONDS if due is None else min(TICK_SECONDS, due - now)
                await asyncio.sleep(max(pause, 0.001))
        finally:
            self._tending = None

    def _expired(self, request: Request, now: float) -> None:
        self.outcomes["expired"] += 1
        self._on_wait(self.route.key, now - request.since)
        self._changed()
        self._refuse(request, answers.hold_expired(now - request.since, self.retry_after()), counted=False)

    def _comfort(self, request: Request, now: float) -> None:
        if request.joined is not None:
            request.joined.tell(self.progress, now)
        elif request.complete and not request.begun and now - request.since >= COMMENT_SECONDS:
            if request.streams is None:
                request.streams = prefix.wants_stream(_joined(request.body))
            if request.streams:
                HeldStream(request, self.progress, now)

    def pump(self) -> None:
        """Release who waited longest, as far as ready pods have room."""
        released = False
        while self.queue:
            pod = choice.least_loaded(self.replicas.ready, below=self.route.capacity_per_replica)
            if pod is None:
                break
            request = self.queue.take()
            assert request is not None  # noqa: S101 - the queue was not empty
            released = True
            self._release(request, pod)
        if released:
            self._changed()

    def _release(self, request: Request, pod: Pod) -> None:
        now = self.now()
        self.outcomes["released"] += 1
        self._on_wait(self.route.key, now - request.since)
        raw = request.head.raw
        if request.patience is not None:
            raw = heads.with_timeout(raw, request.patience - (now - request.since))
        request.head.raw = heads.without_encodings(raw) if request.joined is not None else raw
        self._send(request, pod)

    # ------------------------------------------------------------------ out

    def _send(self, request: Request, pod: Pod) -> None:
        request.pod = pod
        pod.in_flight += 1
        pod.served += 1
        self.in_flight += 1
        self.passed += 1
        while pod.idle:
            connection = pod.idle.pop()
            if not connection.transport.is_closing():
                connection.start(request)
                return
        self._spawn(self._connect(request, pod))

    async def _connect(self, request: Request, pod: Pod) -> None:
        try:
            connection = await pod.connect()
        except OSError:
            self._unreachable(request, pod)
            return
        if request.gone or request.pod is not pod:
            pod.keep(connection)
        else:
            connection.start(request)

    def _unreachable(self, request: Request, pod: Pod) -> None:
        """Nothing was sent: the request may go anywhere else."""
        self.upstream_errors["connect"] += 1
        self.replicas.rest(pod)
        self._leave(request)
        if not request.gone:
            request.tried = (*request.tried, pod)
            self._elsewhere(request)

    def _elsewhere(self, request: Request) -> None:
        pod = choice.least_loaded(other for other in self.replicas.ready if other not in request.tried)
        if pod is not None:
            self._send(request, pod)
            return
        if self._closed is not None:
            self._refuse(request, self._closed())
            return
        request.tried = ()
        if not request.held:
            self._set_deadline(request, self.now())
            request.held = True
            self.queue.total += 1
        self.queue.put_back(request, request.size(), request.since, request.deadline)
        self._waits(request)

    def declined(self, request: Request, status: int) -> bool:
        """A pod answered 429 or 503 and asked to come later: whether the request goes elsewhere instead.

        Who was held waits on: with other gateways beside us, we may have released more than the pod takes.
        """
        pod = request.pod
        if not request.repeatable or pod is None or len(request.tried) + 1 >= TRIES:
            return False
        tried = (*request.tried, pod)
        nowhere = all(other in tried for other in self.replicas.ready)
        if nowhere and not request.held:
            return False
        self.upstream_errors["declined"] += 1
        if nowhere or status == 503:
            self.replicas.rest(pod)
        request.tried = tried
        self._leave(request)
        self._elsewhere(request)
        return True

    def answered(self, request: Request) -> None:
        """A replica's answer has been passed on to its last byte."""
        request.gone = True
        self._leave(request)
        request.client.answered(request)
        if self.queue:
            self.pump()

    def lost(self, request: Request, *, unanswered: bool, reused: bool) -> None:
        """A replica's connection ended before its answer did."""
        if unanswered and reused and request.repeatable and request.head.method in SAFE:
            self._leave(request)
            self._elsewhere(request)
            return
        self.failed(request, answers.upstream_closed())

    def failed(self, request: Request, problem: Problem) -> None:
        """A replica did not answer as it should; the request is not repeated."""
        request.gone = True
        self._leave(request)
        request.client.refuse(request, problem)
        self.pump()

    def cancelled(self, request: Request) -> None:
        """The client has gone."""
        if request.gone:
            return
        if request in self.queue:
            self.outcomes["cancelled"] += 1
            self._on_wait(self.route.key, self.now() - request.since)
        self.withdraw(request)
        self.pump()

    def withdraw(self, request: Request) -> None:
        """Nothing more is to be done for a request, wherever it is."""
        request.gone = True
        request.gathering = False
        if self.queue.remove(request):
            self._changed()
        if request.backend is not None:
            request.backend.abort()
        self._leave(request)
        request.body.clear()

    def _leave(self, request: Request) -> None:
        """The request is no pod's any more."""
        if request.pod is not None:
            request.pod.in_flight -= 1
            self.in_flight -= 1
            request.pod = None

    def _refuse(self, request: Request, problem: Problem, *, counted: bool = True) -> None:
        request.gone = True
        if counted:
            self.outcomes["unauthorized" if problem.status == 401 else "refused"] += 1
        request.client.refuse(request, problem)
        request.body.clear()

    # ------------------------------------------------------------------ around

    def retry_after(self) -> int:
        """Whole seconds after which a refused client should come again."""
        return self._wakes.retry_after(self.now())

    def demand(self) -> AgentDemand:
        """What the operator is told."""
        oldest = self.queue.oldest()
        return AgentDemand(
            held=len(self.queue),
            held_bytes=self.queue.size,
            oldest_seconds=0.0 if oldest is None else round(self.now() - oldest, 3),
            in_flight=self.in_flight,
            held_total=self.queue.total,
        )

    def close(self, problem: Callable[[], Problem]) -> None:
        """Refuse whoever waits and whoever still comes; what replicas have goes on."""
        self._closed = problem
        while (request := self.queue.take()) is not None:
            self._refuse(request, problem())
        self._changed()
        for client in list(self.clients):
            client.close_if_idle()

    def abort(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()
        for client in list(self.clients):
            client.transport.abort()
        self.replicas.abort()

    def sweep(self, idle_before: float) -> None:
        """Give up on clients that do not move, and on connections to pods that nobody used since."""
        for client in list(self.clients):
            client.sweep()
        self.replicas.close_idle(idle_before)

    def _changed(self) -> None:
        if not self.queue:
            self._wakes.drop()
        self._on_held(self.route.key, len(self.queue))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a request failed in the gateway itself", exc_info=error)


def _joined(parts: list[bytes]) -> bytes:
    return parts[0] if len(parts) == 1 else b"".join(parts)
