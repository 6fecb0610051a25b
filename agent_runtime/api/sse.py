"""Server-sent events. Layer: api.

The one idea: a stream ends in exactly one of three ways (complete, an error event, or a client that left),
and whichever it is the answer is closed. Starlette's StreamingResponse would do for the first.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent_runtime.api import errors
from agent_runtime.api.disconnect import ClientGoneError

log = logging.getLogger("agent_runtime.api")

DONE = b"data: [DONE]\n\n"
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode(data: dict[str, Any]) -> bytes:
    """A JSON object as bytes, compact."""
    return _encode(data).encode()


def event(data: dict[str, Any], name: str | None = None) -> bytes:
    """One event, with its name when it has one."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + encode(data) + b"\n\n"


class EventStream(Response):
    """Sends `events` (each already encoded) and then `last`; calls `close` whatever happens.

    `on_error` is told the error that is sent inside the stream, after its status, as `encode_error` has it.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[bytes],
        close: Callable[[], None],
        on_error: Callable[[errors.ApiError], None],
        last: bytes = DONE,
        encode_error: Callable[[errors.ApiError], bytes] = lambda error: event(error.body()),
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._close, self._last = events, close, last
        self._on_error, self._encode_error = on_error, encode_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the stream to its end."""
        try:
            await self._stream(send)
        except (ClientGoneError, OSError):
            log.info("client disconnected while its answer was streamed")
        finally:
            self._close()

    async def _stream(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

        async def body(data: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        try:
            async with aclosing(self._events) as events:  # type: ignore[type-var]
                async for data in events:
                    await body(data)
            if self._last:
                await body(self._last)
        except errors.ApiError as error:
            self._on_error(error)
            await body(self._encode_error(error))
        except (asyncio.CancelledError, OSError, ClientGoneError):
            raise
        except Exception:
            log.exception("a stream failed")
            failure = errors.internal()
            self._on_error(failure)
            await body(self._encode_error(failure))
        await body(b"", more=False)
