"""Knows when the last request has left. Layer: request path; asyncio only.

The one idea: at SIGTERM the requests in flight are a count that must reach zero within a bound; uvicorn's
own shutdown closes the listener first, so that nobody could be told to come back, which is why the
count is ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class InFlight:
    """Requests being answered. Use on one event loop only."""

    def __init__(self) -> None:
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def count(self) -> int:
        """Requests being answered now."""
        return self._count

    @contextmanager
    def request(self) -> Iterator[None]:
        """Counts one request from its first byte to its last."""
        self._count += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._count -= 1
            if self._count == 0:
                self._idle.set()

    async def wait_idle(self, seconds: float) -> bool:
        """True once nothing is in flight; False when that took longer than `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return self._count == 0
        return True
