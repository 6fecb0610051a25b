"""The way between one operator process and the API server, and what can go wrong on it. Layer: tests.

The one idea: a request that has left lives on without its sender. It lands after a while, and its answer
needs a while to come back; a process can die, be cut off or lose its lease at every moment between the two.
Like the real adapter it asks the fence before a write leaves; a write that takes longer is given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from agent_operator.shell.kinds import Kind, kind_of
from agent_operator.shell.kube import (
    ConflictError,
    ForbiddenError,
    InternalError,
    InvalidError,
    KubeError,
    Listing,
    Object,
    UnavailableError,
)
from tests.fakes.kube import WRITES, FakeApiServer, FakeKube

T = TypeVar("T")

PATIENCE_SECONDS = 15.0
"""How long a process waits for an answer."""
SLOW_SECONDS = 14.5

ERRORS: dict[str, Callable[[], KubeError]] = {
    "409": lambda: ConflictError("Operation cannot be fulfilled: please apply your changes again", 409),
    "403": lambda: ForbiddenError("exceeded quota: pods", 403),
    "422": lambda: InvalidError("spec: Invalid value", 422),
    "429": lambda: UnavailableError("too many requests", 429),
    "500": lambda: InternalError("failed calling webhook", 500),
    "timeout": lambda: UnavailableError("no answer in time"),
}


class FencedError(KubeError):
    """The lease is not certainly ours, so the write was not sent."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request on its way."""

    wire: Wire
    verb: str
    kind: Kind
    name: str
    body: Object | None
    decided_at: float
    """When the decision was made that it belongs to."""
    sent_at: float
    seconds: float
    """How long it may take to land."""

    @property
    def writes(self) -> bool:
        """Whether it may change something that is not a Lease."""
        return self.verb in WRITES and self.kind.kind != "Lease"


@dataclass(slots=True)
class Fault:
    """The next `times` requests whose verb starts with `verb` fail; with `landed` after they took effect."""

    verb: str
    error: str
    landed: bool
    times: int


_REQUEST: ContextVar[Request] = ContextVar("request")


class Wire(FakeKube):
    """The six verbs as one process speaks them. `sent` and `landed` hear of every request."""

    def __init__(
        self,
        server: FakeApiServer,
        *,
        owner: str,
        seconds: Callable[[], float],
        sent: Callable[[Request], None],
        landed: Callable[[Request, KubeError | None], None],
    ) -> None:
        super().__init__(server)
        self.owner = owner
        self.fence: Callable[[], float] | None = None
        self.decided_at = 0.0
        self.dead = False
        self.cut_until = 0.0
        self.lease_cut_until = 0.0
        self.slow_until = 0.0
        """Until then every write is on its way for SLOW_SECONDS."""
        self.faults: list[Fault] = []
        self.in_flight: set[asyncio.Task[Any]] = set()
        self.past: dict[Kind, list[Listing]] = {}
        """What the next lists of a kind answer instead of the present."""
        self._seconds = seconds
        self._sent = sent
        self._landed = landed

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        return await self._send("get", kind, name, None, lambda: FakeKube.get(self, kind, namespace, name))

    async def list(
        self, kind: Kind, namespace: str | None = None, *, selector: str = "", fields: str = ""
    ) -> Listing:
        present = await self._send(
            "list", kind, "", None,
            lambda: FakeKube.list(self, kind, namespace, selector=selector, fields=fields),
        )  # fmt: skip
        past = self.past.get(kind)
        return past.pop() if past else present

    async def create(self, obj: Object) -> Object:
        name = obj["metadata"]["name"]
        return await self._send("create", kind_of(obj), name, obj, lambda: FakeKube.create(self, obj))

    async def replace(self, obj: Object) -> Object:
        name = obj["metadata"]["name"]
        return await self._send("replace", kind_of(obj), name, obj, lambda: FakeKube.replace(self, obj))

    async def apply(self, obj: Object, *, subresource: str = "", force: bool = True) -> Object:
        verb = f"apply/{subresource}" if subresource else "apply"
        return await self._send(
            verb, kind_of(obj), obj["metadata"]["name"], obj,
            lambda: FakeKube.apply(self, obj, subresource=subresource, force=force),
        )  # fmt: skip

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> Object | None:
        return await self._send(
            "delete", kind, name, None, lambda: FakeKube.delete(self, kind, namespace, name, uid=uid)
        )

    async def _send(
        self, verb: str, kind: Kind, name: str, body: Object | None, act: Callable[[], Awaitable[T]]
    ) -> T:
        granted = float("inf")
        if self.fence is not None and verb in WRITES and kind.kind != "Lease":
            granted = self.fence()
            if granted <= 0:
                raise FencedError("not sent: the lease is not certainly ours")
        now = asyncio.get_running_loop().time()
        request = Request(
            self, verb, kind, name, body, self.decided_at, now, min(0.8 * granted, PATIENCE_SECONDS)
        )
        self._sent(request)
        if self.dead:
            await asyncio.Event().wait()  # whoever asks is about to be cancelled
        task = asyncio.ensure_future(self._carry(request, act))
        self.in_flight.add(task)
        task.add_done_callback(self._arrived)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await asyncio.shield(task)
        except TimeoutError:
            raise ERRORS["timeout"]() from None

    async def _carry(self, request: Request, act: Callable[[], Awaitable[T]]) -> T:
        _REQUEST.set(request)
        fault = self._fault(request)
        if fault is not None and not fault.landed:
            await asyncio.sleep(self._seconds())
            raise ERRORS[fault.error]()
        try:
            answer = await act()
        except KubeError as error:
            self.server.acting = None
            self._landed(request, error)
            raise
        self.server.acting = None
        self._landed(request, None)
        await asyncio.sleep(self._seconds())
        if fault is not None or self._is_cut():
            raise ERRORS["timeout"]()
        return answer

    async def _travel(self, verb: str, kind: Kind, name: str) -> None:
        request = _REQUEST.get()
        slow = request.writes and request.sent_at < self.slow_until
        wait = SLOW_SECONDS if slow else self._seconds()
        await asyncio.sleep(min(wait, request.seconds))
        if kind.kind == "Lease" and asyncio.get_running_loop().time() < self.lease_cut_until:
            raise ERRORS["timeout"]()
        if self._is_cut() or wait > request.seconds:
            raise ERRORS["timeout"]()
        self.server.log.append((verb, kind.kind, name))
        self.server.acting = request

    def _is_cut(self) -> bool:
        return asyncio.get_running_loop().time() < self.cut_until

    def _fault(self, request: Request) -> Fault | None:
        for fault in self.faults:
            if request.verb.startswith(fault.verb) and request.kind.kind not in ("Lease", "Event"):
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                return fault
        return None

    def _arrived(self, task: asyncio.Task[Any]) -> None:
        self.in_flight.discard(task)
        if not task.cancelled():
            task.exception()  # its sender may be gone: then nobody else looks at it
