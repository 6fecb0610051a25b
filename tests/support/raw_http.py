"""HTTP/1.1 by hand over a socket, for clients that no library would be. Layer: tests.

The one idea: h11 reads the answers, so nothing about them is taken on trust; what is sent is any bytes at any
moment, and a client can leave in the middle of it.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import h11

DEADLINE = 120.0
"""Seconds after which `exchange` gives up; nothing is measured against it."""
JSON = {"Content-Type": "application/json"}


def post(path: str, body: Any, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole POST request; a body that is not bytes is written as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Host": "test", **JSON, "Content-Length": str(len(data)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + data


@dataclass
class Answer:
    """What came back. `whole` is false when the connection ended before the answer did."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of an error in OpenAI's shape; fails when the body is not one."""
        error = self.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        assert error["message"] and error["type"], error
        code: str | None = error["code"]
        return code


class Connection:
    """One connection. Answers are read in order. `narrow`: the network holds about 100 kB for a client that
    does not read, where loopback would hold megabytes."""

    def __init__(self, url: str, *, narrow: bool = False) -> None:
        self._address = urlsplit(url)
        self._narrow = narrow
        self._parser = h11.Connection(h11.CLIENT)

    async def __aenter__(self) -> Self:
        made = socket.socket()
        if self._narrow:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (self._address.hostname, self._address.port))
        limit = 1024 if self._narrow else 2**16
        self.reader, self.writer = await asyncio.open_connection(sock=made, limit=limit)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def abort(self) -> None:
        """Leave at once, whatever is under way."""
        self.writer.transport.abort()

    async def send(self, data: bytes) -> None:
        """Bytes as they are. A server that has hung up is no error here: its answer tells."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            return

    async def answer(self, method: str = "POST", chunk: int = 2**16) -> Answer:
        """The next answer; `method` is what was asked with, as HEAD's answers have no body."""
        if self._parser.our_state is not h11.IDLE:
            self._parser.start_next_cycle()
        self._parser.send(h11.Request(method=method, target="/", headers=[("Host", "test")]))
        self._parser.send(h11.EndOfMessage())
        found = Answer()
        while True:
            event = self._parser.next_event()
            if event is h11.NEED_DATA:
                self._parser.receive_data(await self._read(chunk))
            elif isinstance(event, h11.Response):
                found.status = event.status_code
                found.headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                found.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.whole = True
                return found
            elif isinstance(event, h11.ConnectionClosed):
                return found

    async def _read(self, size: int) -> bytes:
        try:
            return await self.reader.read(size)
        except ConnectionError:
            return b""


async def exchange(url: str, data: bytes, method: str = "POST") -> Answer:
    """The answer to these bytes, on a connection of their own."""
    async with asyncio.timeout(DEADLINE), Connection(url) as connection:
        await connection.send(data)
        try:
            return await connection.answer(method)
        except h11.RemoteProtocolError:  # the connection ended inside the answer, or before it
            return Answer()
