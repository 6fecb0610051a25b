"""Notices that a client has left. Layer: api; asyncio.

The one idea: a connection that closes is work that nobody wants, streamed or not, waiting or generating.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from starlette.types import Receive


class ClientGoneError(Exception):
    """The client closed the connection before it had its answer."""


async def until_disconnect(receive: Receive, work: Any) -> Any:
    """The result of a coroutine, which is cancelled when the client goes away first (ClientGoneError)."""
    job, gone = asyncio.ensure_future(work), asyncio.ensure_future(disconnected(receive))
    try:
        await asyncio.wait({job, gone}, return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            return job.result()
        raise ClientGoneError
    finally:
        for task in (job, gone):
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


async def disconnected(receive: Receive) -> None:
    """Returns once the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
