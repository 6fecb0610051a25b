"""Connections to replicas. Layer: gateway; imports httptools and the core.

The one idea: an answer is parsed only to know where it ends; the bytes the client gets are the bytes that
came. Only a stream that was begun before (`HeldStream`) and an HTTP/1.0 client need the body by itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import httptools

from agent_operator.gateway.core import answers, heads
from agent_operator.gateway.request import REPLAY_BYTES, Request

if TYPE_CHECKING:
    from agent_operator.gateway.replicas import Pod

JOINED_ERROR_BYTES = 64 * 1024
"""How much of an error is kept to be sent as an event."""
WRITE_AT_ONCE = 64 * 1024


class _Bodies:
    """What llhttp calls when the body is wanted by itself."""

    def __init__(self, connection: BackendConnection) -> None:
        self._connection = connection
        self.on_message_begin = connection.on_message_begin
        self.on_headers_complete = connection.on_headers_complete
        self.on_message_complete = connection.on_message_complete

    def on_body(self, data: bytes) -> None:
        self._connection.parts.append(data)


class BackendConnection(asyncio.Protocol):
    """One connection to a pod: idle, or with one request."""

    transport: asyncio.Transport

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.request: Request | None = None
        self.parser = httptools.HttpResponseParser(self)
        self.parts: list[bytes] = []
        self.idle_since = 0.0
        self._uses = 0
        self._head = b""
        self._begun = self._done = self._keep = False
        self._messages = 0
        self._framed = True
        self._by_body = False
        """The client gets the body in a framing of ours, not the bytes that came."""
        self._error: list[bytes] | None = None
        """The body of an answer that becomes one event."""

    @property
    def reused(self) -> bool:
        """Whether it had a request before this one."""
        return self._uses > 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.pod.connections.add(self)

    def start(self, request: Request) -> None:
        """Send a request and whatever has come of its body."""
        self._uses += 1
        self.request = request
        request.backend = self
        self._begun = self._done = False
        self._head = b""
        self._messages = 0
        self._error = None
        by_body = request.joined is not None or request.head.old
        if by_body or self._by_body:
            self.parser = httptools.HttpResponseParser(_Bodies(self) if by_body else self)
            self._by_body = by_body
        if request.client.blocked:
            self.transport.pause_reading()
        request.client.continue_body()
        raw = request.head.raw
        if not request.body:
            self.transport.write(raw)
        elif request.buffered <= WRITE_AT_ONCE:
            self.transport.write(b"".join((raw, *request.body)))
        else:
            self.transport.writelines([raw, *request.body])
            if request.buffered > REPLAY_BYTES:
                request.body.clear()

    def write(self, data: bytes) -> None:
        """More of the request's body."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def pause_reading(self) -> None:
        """The client reads slowly."""
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """The client has caught up."""
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # What llhttp says.
    def on_message_begin(self) -> None:
        self._messages += 1

    def on_headers_complete(self) -> None:
        self._keep = self.parser.should_keep_alive()

    def on_message_complete(self) -> None:
        self._done = True

    def data_received(self, data: bytes) -> None:
        request = self.request
        if request is None:
            self.transport.abort()  # nobody asked
            return
        try:
            if self._begun:
                self.parser.feed_data(data)
                if not self._by_body:
                    request.client.write(data)
            elif not self._begin(request, data):
                return
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._malformed(request)
            return
        if self._by_body and self.parts:
            self._forward_parts(request)
        if self._done:
            self._finish(request)

    def _begin(self, request: Request, data: bytes) -> bool:
        """Read the head of the answer; False while it is not complete, or when it was taken elsewhere."""
        data = self._head + data
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                self._head = data
                if len(data) > heads.MAX_HEAD_BYTES:
                    self._malformed(request)
                return False
            if data[9:10] != b"1":
                break
            # 1xx: the client was told to continue already.
            self.parser.feed_data(data[:end])
            self._done, self._messages = False, 0
            data = data[end:]
        self._head = b""
        bare = request.head.method == b"HEAD"
        self.parser.feed_data(data[:end] if bare else data)
        status, raw = self.parser.get_status_code(), data[:end]
        if status in (429, 503) and heads.has_retry_after(raw) and self.pod.owner.declined(request, status):
            self._let_go(reusable=self._keep and self._done and self._messages == 1 and not bare)
            return False
        self._begun = True
        self._framed = bare or self._done or heads.is_framed(raw)
        if bare:
            self._done, self._keep, data = True, False, raw
        self._send_head(request, status, raw, data)
        return True

    def _send_head(self, request: Request, status: int, raw: bytes, data: bytes) -> None:
        """Tell the client; `data` begins with the head `raw`."""
        request.begun = True
        if request.joined is not None:
            if status != 200 or not heads.is_event_stream(raw):
                self._error = []
            return
        client = request.client
        client.close_after = (
            client.close_after
            or request.head.close
            or self.pod.owner.stopping
            or not self._framed
            or (self._done and not request.complete)
        )
        if request.head.old:
            client.write(heads.answer_head(heads.without_chunks(raw), close=True))
        elif client.close_after or not self._keep:
            client.write(heads.answer_head(raw, close=client.close_after) + data[len(raw) :])
        else:
            client.write(data)

    def _forward_parts(self, request: Request) -> None:
        data = b"".join(self.parts)
        self.parts.clear()
        if request.joined is None:
            request.client.write(data)
        elif self._error is None:
            request.joined.write(data)
        elif sum(map(len, self._error)) < JOINED_ERROR_BYTES:
            self._error.append(data)

    def _finish(self, request: Request) -> None:
        if request.joined is not None:
            if self._error is not None:
                request.joined.write(answers.as_event(b"".join(self._error)))
            request.joined.end()
        reusable = self._keep and self._messages == 1 and request.complete
        if self._messages > 1:
            request.client.close_after = True
        self._let_go(reusable=reusable)
        self.pod.owner.answered(request)

    def _let_go(self, *, reusable: bool) -> None:
        """The request is no longer this connection's."""
        if self.request is not None:
            if self.request.backend is self:
                self.request.backend = None
            self.request = None
        self.parts.clear()
        if reusable and not self.transport.is_closing():
            self.resume_reading()
            self.pod.keep(self)
        elif self._done:
            self.transport.close()
        else:
            self.transport.abort()

    def abort(self) -> None:
        """The client has gone: the replica notices and stops its work."""
        self._let_go(reusable=False)

    def _malformed(self, request: Request) -> None:
        self.pod.owner.upstream_errors["malformed"] += 1
        self._let_go(reusable=False)
        self.pod.owner.failed(request, answers.upstream_malformed())

    def connection_lost(self, exc: Exception | None) -> None:
        self.pod.connections.discard(self)
        if self in self.pod.idle:
            self.pod.idle.remove(self)
        request = self.request
        if request is None:
            return
        self.request = request.backend = None
        if self._begun and not self._framed and exc is None:
            self._done = True
            if request.joined is not None:
                request.joined.end()
            self.pod.owner.answered(request)
            return
        self.pod.owner.upstream_errors["closed"] += 1
        self.pod.owner.lost(request, unanswered=not self._begun and not self._head, reused=self.reused)

    def pause_writing(self) -> None:
        """The replica takes the body slowly: so does the client's connection."""
        if self.request is not None:
            self.request.client.pause(for_backend=True)

    def resume_writing(self) -> None:
        if self.request is not None:
            self.request.client.resume(for_backend=True)
