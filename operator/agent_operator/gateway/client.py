"""Connections from clients. Layer: gateway; imports httptools and the core.

The one idea: one request at a time per connection. Its head is read whole, cleaned and checked by llhttp; a
body of known length is counted, not parsed; a chunked one is unpacked by llhttp and packed again, so nothing
that a replica could read otherwise gets through. What comes meanwhile (pipelining) waits in a bounded buffer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import httptools

from agent_operator.gateway.core import answers, heads
from agent_operator.gateway.core.answers import Problem
from agent_operator.gateway.request import Request

if TYPE_CHECKING:
    from agent_operator.gateway.lane import Lane

PIPELINED_BYTES = 64 * 1024
UNSENT_BYTES = 64 * 1024
"""How much of a body is read while a replica is being connected to."""
LINGER_SECONDS = 2.0
"""How long a refused client's body is still read, so that it sees the answer and not a reset connection."""
SWEEP_SECONDS = 15.0
IDLE_SWEEPS = 5
"""A connection without a request that is quiet for so many sweeps is closed."""
SLOW_SWEEPS = 4
"""A request that makes no progress for so many sweeps is given up."""

_BACKEND, _UNSENT, _PIPELINE = 1, 2, 4


class _Silent:
    """llhttp has nothing to tell: the head is read by us, the body counted."""


class _Chunks:
    """What llhttp says of a chunked body."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.done = False
        self.more = False
        """Another request came right behind."""

    def on_message_begin(self) -> None:
        self.more = self.done

    def on_body(self, data: bytes) -> None:
        self.parts.append(data)

    def on_message_complete(self) -> None:
        self.done = True


_SILENT = _Silent()


class ClientConnection(asyncio.Protocol):
    """One connection at an agent's port."""

    transport: asyncio.Transport

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self.request: Request | None = None
        self.close_after = False
        """No further request is served on this connection."""
        self.blocked = False
        """As much as may wait to be sent to the client does."""
        self._parser = httptools.HttpRequestParser(_SILENT)
        self._chunks: _Chunks | None = None
        self._remaining = 0
        self._buffer = b""
        self._paused = 0
        self._discarding = self._lost = False
        self._touched = True
        self._sweeps = self._head_sweeps = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._lane.clients.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._lane.clients.discard(self)
        self._buffer = b""
        request, self.request = self.request, None
        if request is not None:
            self._lane.cancelled(request)

    def write(self, data: bytes) -> None:
        """A part of an answer."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._touched = True
        if self._discarding:
            self._discard(len(data))
        elif self.request is None:
            self._read_head(self._buffer + data if self._buffer else data)
        elif self._chunks is not None and not self._chunks.done:
            self._read_chunks(self.request, data)
        elif self._remaining:
            self._read_body(self.request, data)
        else:
            self._buffer += data
            if len(self._buffer) > PIPELINED_BYTES:
                self._pause(_PIPELINE)

    def _read_head(self, data: bytes) -> None:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._buffer = data
            if len(data) > heads.MAX_HEAD_BYTES:
                self._reject(answers.head_too_large(heads.MAX_HEAD_BYTES))
            return
        end += 4
        self._buffer = b""
        self._head_sweeps = 0
        try:
            head = heads.clean(data[:end])
            if head.chunked:
                self._chunks = _Chunks()
                self._parser = httptools.HttpRequestParser(self._chunks)
            self._parser.feed_data(head.raw)
        except heads.BadHeadError as error:
            self._reject(answers.malformed(str(error)))
            return
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._reject(answers.malformed(str(error)))
            return
        request = self.request = Request(self, head)
        self._remaining = head.length
        rest = data[end:]
        if head.chunked:
            if rest:
                self._read_chunks(request, rest)
        elif not head.length:
            request.complete = True
            self._buffer = rest
        elif rest:
            self._read_body(request, rest)
        if self.request is request:
            self._lane.submit(request)

    def _read_body(self, request: Request, data: bytes) -> None:
        if len(data) > self._remaining:
            self._buffer = data[self._remaining :]
            data = data[: self._remaining]
        self._remaining -= len(data)
        self._parser.feed_data(data)
        request.complete = not self._remaining
        self._deliver(request, data)

    def _read_chunks(self, request: Request, data: bytes) -> None:
        chunks = self._chunks
        assert chunks is not None  # noqa: S101 - the caller looked
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not chunks.done:
                self._lane.withdraw(request)
                self.request = None
                if request.begun:
                    self.transport.abort()
                else:
                    self._reject(answers.malformed(str(error)))
                return
            chunks.more = True
        if chunks.more:
            # A request behind a chunked one was read in the same breath; closing makes the client repeat it.
            self.close_after = True
        framed = b"".join(map(answers.chunk, chunks.parts))
        chunks.parts.clear()
        if chunks.done:
            framed += answers.LAST_CHUNK
            self._parser = httptools.HttpRequestParser(_SILENT)
            request.complete = True
        if framed:
            self._deliver(request, framed)

    def _deliver(self, request: Request, data: bytes) -> None:
        request.take(data)
        if request.backend is not None:
            return
        self._lane.grew(request, len(data))
        waiting = self.request is request and not request.complete and not self._lane.holds(request)
        if waiting and request.buffered > UNSENT_BYTES:
            self._pause(_UNSENT)

    def _discard(self, count: int) -> None:
        self._remaining -= count
        if self._remaining <= 0 and self._chunks is None:
            self.transport.close()

    def continue_body(self) -> None:
        """The request is wanted: the client may send its body."""
        request = self.request
        if request is None:
            return
        if request.head.expects:
            request.head.expects = False
            if not request.complete:
                self.write(answers.CONTINUE)
        if self._paused & _UNSENT:
            self._resume(_UNSENT)

    def answered(self, request: Request) -> None:
        """The answer has been written to its last byte; on to the next request."""
        if self.request is not request:
            return
        self.request = None
        self._chunks = None if request.complete else self._chunks
        if not request.complete:
            self._linger()
        elif self.close_after or request.head.close:
            self.transport.close()
        else:
            self._resume(_PIPELINE | _UNSENT | _BACKEND)
            if self._buffer:
                asyncio.get_running_loop().call_soon(self._next)

    def refuse(self, request: Request, problem: Problem) -> None:
        """Answer a request with an error: as an event where a stream has begun."""
        if self.request is not request:
            return
        if request.joined is not None:
            request.joined.write(problem.event())
            request.joined.end()
        elif request.begun:
            self.transport.abort()  # a part of another answer is out: only the end can tell
            return
        else:
            self.close_after = self.close_after or not request.complete or self._lane.stopping
            close = self.close_after or request.head.close
            self.write(problem.response(close=close, with_body=request.head.method != b"HEAD"))
        self.answered(request)

    def sweep(self) -> None:
        """Called every SWEEP_SECONDS: gives up on what does not move."""
        quiet = not self._touched
        self._touched = False
        self._sweeps = self._sweeps + 1 if quiet else 0
        request = self.request
        if request is None:
            self._head_sweeps = self._head_sweeps + 1 if self._buffer else 0
            if self._sweeps >= IDLE_SWEEPS or self._head_sweeps >= SLOW_SWEEPS:
                self.transport.close()
        elif not request.complete and not self._paused and self._sweeps >= SLOW_SWEEPS:
            self._lane.withdraw(request)
            self.refuse(request, answers.too_slow(SLOW_SWEEPS * SWEEP_SECONDS))

    def close_if_idle(self) -> None:
        """End a connection that has no request; another ends with its answer."""
        if self.request is None:
            self.transport.close()
        else:
            self.close_after = True

    def pause(self, *, for_backend: bool) -> None:
        """Read no more of the body for now."""
        self._pause(_BACKEND if for_backend else _UNSENT)

    def resume(self, *, for_backend: bool) -> None:
        """Read on."""
        self._resume(_BACKEND if for_backend else _UNSENT)

    def pause_writing(self) -> None:
        """The client reads slowly: so do we from the replica."""
        self.blocked = True
        if self.request is not None and self.request.backend is not None:
            self.request.backend.pause_reading()

    def resume_writing(self) -> None:
        self.blocked = False
        if self.request is not None and self.request.backend is not None:
            self.request.backend.resume_reading()

    def _next(self) -> None:
        if self.request is None and not self._lost and self._buffer:
            self._read_head(self._buffer)

    def _reject(self, problem: Problem) -> None:
        """An error outside of any request: nothing behind it can be trusted."""
        self._buffer = b""
        self.write(problem.response(close=True))
        self._remaining = 0
        self._linger()

    def _linger(self) -> None:
        self._discarding = True
        self._resume(_PIPELINE | _UNSENT | _BACKEND)
        if not self.transport.is_closing():
            self.transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self.transport.abort)

    def _pause(self, why: int) -> None:
        if not self._paused and not self.transport.is_closing():
            self.transport.pause_reading()
        self._paused |= why

    def _resume(self, why: int) -> None:
        if self._paused:
            self._paused &= ~why
            if not self._paused and not self.transport.is_closing():
                self.transport.resume_reading()
