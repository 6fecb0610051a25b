"""A stream that begins before there is a replica. Layer: gateway; imports the core.

The one idea: the client gets its 200 and comments while the agent starts, and the replica's events are then
joined on. From that moment an error can only be an event, as in OpenAI's API.
"""

from __future__ import annotations

from agent_operator.gateway.core import answers
from agent_operator.gateway.core.wake import comment_due
from agent_operator.gateway.request import Request


class HeldStream:
    """The client's side of one stream."""

    __slots__ = ("_last", "_request", "_told_at")

    def __init__(self, request: Request, text: str, now: float) -> None:
        """Sends the head and the first comment."""
        self._request = request
        self._last, self._told_at = text, now
        request.joined, request.begun = self, True
        head = answers.stream_head(old=request.head.old, close=request.head.close)
        request.client.write(head + self._framed(answers.comment(text)))

    def tell(self, text: str, now: float) -> None:
        """A comment, unless one was sent lately."""
        if comment_due(text, self._last, now - self._told_at):
            self._last, self._told_at = text, now
            self.write(answers.comment(text))

    def write(self, data: bytes) -> None:
        """Events, or a part of one."""
        if data:
            self._request.client.write(self._framed(data))

    def end(self) -> None:
        """The stream is over."""
        if not self._request.head.old:
            self._request.client.write(answers.LAST_CHUNK)

    def _framed(self, data: bytes) -> bytes:
        return data if self._request.head.old else answers.chunk(data)
