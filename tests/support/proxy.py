"""A TCP proxy on loopback that cuts connections. Layer: tests."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self
from urllib.parse import urlsplit


class CuttingProxy:
    """Forwards to a server; the first `times` connections that carry more than `cut_after` bytes of answers
    are closed there. Shorter answers pass."""

    def __init__(self, target: str, cut_after: int, times: int) -> None:
        place = urlsplit(target)
        self._target = (place.hostname or "", place.port or 0)
        self._cut_after, self.cuts_left = cut_after, times
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError), server, client:
            while data := server.recv(65536):
                passed += len(data)
                if passed > self._cut_after and self._may_cut():
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(data)

    def _may_cut(self) -> bool:
        with self._lock:
            if not self.cuts_left:
                return False
            self.cuts_left -= 1
            return True
