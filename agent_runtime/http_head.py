"""Bounds what a client may send before its request's body. Layer: app; uvicorn.

The one idea: a head that never ends is memory that never ends. uvicorn bounds heads in its h11 protocol; its
httptools protocol, which takes a fraction of the time, has no such bound, so it gets one here.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 2**10
"""As in uvicorn's h11 protocol; one that comes whole in one read of the socket (256 KiB) may be larger."""


class BoundedHeadProtocol(HttpToolsProtocol):
    """HTTP/1.1 by httptools; a longer head is answered 400 and the connection closed."""

    _in_head, _head_bytes, _heads = True, 0, 0

    def data_received(self, data: bytes) -> None:
        """Bytes from the client; a whole request, head and body, may come at once."""
        within, heads = self._in_head, self._heads
        super().data_received(data)
        if within and self._in_head and heads == self._heads:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response(f"The request's head exceeds {MAX_HEAD_BYTES} bytes.")

    def on_headers_complete(self) -> None:
        """The head is over."""
        self._in_head, self._head_bytes = False, 0
        self._heads += 1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next head may begin."""
        self._in_head = True
        super().on_message_complete()
