"""A network that can be cut and mended: a TCP proxy on loopback. Layer: tests.

The one idea: a cut network refuses nothing and closes nothing, it is silent. What was sent meanwhile is not
lost: TCP repeats it, so it arrives once the network is mended, even from a process that has ended, unless
the sender discarded it (its end of the connection was reset).
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import Self

CHUNK = 65536


class Network:
    """The way from `url` to a TCP server, both for every connection there is and every new one."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._passes = threading.Event()
        self._passes.set()

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._passes.set()

    def cut(self) -> None:
        """From now on nothing passes in either direction."""
        self._passes.clear()

    def mend(self) -> None:
        """What waits passes, and everything after it."""
        self._passes.set()

    def _wait(self, source: socket.socket) -> None:
        """Until there is something to take and it may pass; nothing is taken before.

        Raises:
            OSError: the sender has reset the connection, so what it sent is not repeated any more.
        """
        select.select([source], [], [])
        self._passes.wait()
        if number := source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, "the connection was reset")

    def _accept(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the listener was closed
            while True:
                self._wait(self._listener)
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for source, drain in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=(source, drain), daemon=True).start()

    def _carry(self, source: socket.socket, drain: socket.socket) -> None:
        try:
            while True:
                self._wait(source)
                data = source.recv(CHUNK)
                if not data:
                    break
                drain.sendall(data)
            drain.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, drain):  # reset, so the other side is told
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
