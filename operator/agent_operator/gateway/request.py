"""One request on its way through. Layer: gateway; imports the core.

The one idea: everything a request is at this moment, in one object that client, lane and replica share, so
there is one answer to "who has it": the queue, a replica, or nobody any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_operator.gateway.core.heads import Head

if TYPE_CHECKING:
    from agent_operator.gateway.backend import BackendConnection
    from agent_operator.gateway.client import ClientConnection
    from agent_operator.gateway.held_stream import HeldStream
    from agent_operator.gateway.replicas import Pod

REPLAY_BYTES = 1024 * 1024
"""Bodies up to this size are kept until a replica has begun to answer, in case it declines."""


class Request:
    """A request from its head to its last byte."""

    __slots__ = (
        "backend", "begun", "body", "buffered", "client", "complete", "deadline", "gathering", "gone", "head",
        "held", "joined", "patience", "pod", "since", "streams", "tried",
    )  # fmt: skip

    def __init__(self, client: ClientConnection, head: Head) -> None:
        self.client = client
        self.head = head
        self.body: list[bytes] = []
        """What came of the body and is still needed, framed as it is to be sent."""
        self.buffered = 0
        self.complete = False
        """The whole body has come."""
        self.pod: Pod | None = None
        self.backend: BackendConnection | None = None
        self.tried: tuple[Pod, ...] = ()
        """Pods that would not have it."""
        self.begun = False
        """The client has been sent a part of an answer."""
        self.gone = False
        """The client has left, or was answered: nothing more is to be done."""
        self.gathering = False
        """Waits for more of its body, which decides where it goes."""
        self.held = False
        """It waited for a replica, now or earlier."""
        self.since = self.deadline = 0.0
        self.patience: float | None = None
        """Seconds the client said it would wait, from `since`."""
        self.streams: bool | None = None
        """Whether it asks for server-sent events; None: nobody has looked."""
        self.joined: HeldStream | None = None
        """The stream that was begun before there was a replica."""

    def take(self, data: bytes) -> None:
        """More of the body: straight to the replica when there is one."""
        if self.backend is not None:
            self.backend.write(data)
        if self.backend is None or self._kept(len(data)):
            self.body.append(data)
        else:
            self.body.clear()
        self.buffered += len(data)

    def _kept(self, more: int) -> bool:
        return (bool(self.body) or not self.buffered) and self.buffered + more <= REPLAY_BYTES

    @property
    def repeatable(self) -> bool:
        """Whether all of it is still here to be sent to another pod."""
        untouched = self.joined is not None or not self.begun
        return self.complete and untouched and (bool(self.body) or not self.buffered)

    def size(self) -> int:
        """Bytes it takes to hold."""
        return len(self.head.raw) + max(self.head.length, self.buffered)
