"""Server-sent events. Layer: api.

The one idea: a stream ends in exactly one of three ways (complete with `[DONE]`, an error event, or a client
that left), and whichever it is the generation is told. Starlette's StreamingResponse would do for the first.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent_runtime.api import errors
from agent_runtime.api.service import Answer, ClientGoneError, until_disconnect

log = logging.getLogger("agent_runtime.api")

DONE = b"data: [DONE]\n\n"


def event(data: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


class EventStream(Response):
    """Sends `chunks` as events, then `[DONE]`; cancels `answer` when the client leaves."""

    media_type = "text/event-stream"

    def __init__(self, answer: Answer, chunks: AsyncIterator[dict[str, Any]]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._answer, self._chunks = answer, chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the stream to its end."""
        try:
            await until_disconnect(receive, self._stream(send))
        except ClientGoneError:
            log.info("client disconnected while its answer was streamed")
        finally:
            self._answer.cancel()

    async def _stream(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

        async def body(data: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        try:
            async with aclosing(self._chunks) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    await body(event(chunk))
            await body(DONE)
        except errors.ApiError as error:
            self._answer.refused(error.code)
            await body(event(error.body()))
        except (asyncio.CancelledError, OSError):
            raise
        except Exception:
            log.exception("a stream failed")
            self._answer.refused("internal_error")
            await body(event(errors.internal().body()))
        await body(b"", more=False)
