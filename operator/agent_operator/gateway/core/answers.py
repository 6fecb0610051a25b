"""What the gateway itself says to clients. Layer: gateway core, pure.

The one idea: the runtime's shape of an error, `{"error": {"message", "type", "param", "code"}}`, which is
OpenAI's, so a client cannot tell who refused it and need not. One constructor per error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus

from agent_runtime.api_keys import WORDS

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Problem:
    """An error for a client."""

    status: int
    code: str
    message: str
    kind: str = "invalid_request_error"
    retry_after: int | None = None
    challenge: bool = False
    """Say that a bearer key is expected."""

    def body(self) -> bytes:
        """JSON."""
        error = {"message": self.message, "type": self.kind, "param": None, "code": self.code}
        return json.dumps({"error": error}, separators=(",", ":")).encode()

    def response(self, *, close: bool, with_body: bool = True) -> bytes:
        """The whole HTTP answer; `with_body` False for HEAD."""
        body = self.body()
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
        ]
        if self.retry_after is not None:
            lines.append(f"retry-after: {self.retry_after}")
        if self.challenge:
            lines.append("www-authenticate: Bearer")
        if close:
            lines.append("connection: close")
        return "\r\n".join([*lines, "", ""]).encode() + (body if with_body else b"")

    def event(self) -> bytes:
        """As an event of a stream that has begun."""
        return b"data: " + self.body() + b"\n\n"


def malformed(detail: str) -> Problem:
    """What came is not a request."""
    return Problem(400, "bad_request", f"This is not a request this server understands: {detail}.")


def head_too_large(limit: int) -> Problem:
    """A request's head has no end."""
    return Problem(431, "headers_too_large", f"The request's head exceeds {limit} bytes.")


def too_slow(seconds: float) -> Problem:
    """The rest of a request did not come."""
    return Problem(
        408, "request_timeout", f"The request was not complete after {seconds:g} s.", kind="timeout_error"
    )


def unauthorized(code: str) -> Problem:
    """The caller is not known; `code` is one of api_keys.Denied."""
    return Problem(401, code, WORDS[code], challenge=True)


def _unavailable(code: str, message: str, retry_after: int) -> Problem:
    return Problem(503, code, message, "service_unavailable_error", retry_after)


def keys_unreadable(retry_after: int) -> Problem:
    """Who may call is not known at the moment."""
    return _unavailable(
        "api_keys_unavailable",
        f"The API keys of this agent cannot be read at the moment. Retry after {retry_after} s.",
        retry_after,
    )


def hold_full(bound: str, retry_after: int) -> Problem:
    """No replica, and no more requests can wait for one; `bound` is what is full: requests or bytes."""
    return _unavailable(
        "hold_queue_full",
        f"The agent is being started, and no more {bound} can wait for it. Retry after {retry_after} s.",
        retry_after,
    )


def hold_expired(seconds: float, retry_after: int) -> Problem:
    """The agent did not start in time."""
    return _unavailable(
        "agent_not_ready",
        f"The agent was not ready after {seconds:.0f} s. Retry after {retry_after} s.",
        retry_after,
    )


def stopping() -> Problem:
    """This gateway ends; another one takes the next attempt."""
    return _unavailable("gateway_stopping", "This gateway is being replaced. Retry now.", 1)


def unknown_agent(retry_after: int) -> Problem:
    """The agent behind this port is gone."""
    return _unavailable("agent_gone", "No agent is served here any more.", retry_after)


def upstream_closed() -> Problem:
    """A replica ended the connection before it answered. The request may have run, so it was not repeated."""
    return Problem(
        502, "upstream_closed",
        "The agent's replica closed the connection before it answered; the request may have been processed.",
        "server_error",
    )  # fmt: skip


def upstream_malformed() -> Problem:
    """A replica answered with something that is not HTTP."""
    return Problem(502, "upstream_malformed", "The agent's replica sent no valid answer.", "server_error")


def stream_head(*, old: bool, close: bool) -> bytes:
    """The head of an answer that begins before there is a replica; `old`: HTTP/1.0, which knows no chunks."""
    lines = [
        "HTTP/1.1 200 OK",
        "content-type: text/event-stream; charset=utf-8",
        "cache-control: no-cache",
        "x-accel-buffering: no",
    ]
    if not old:
        lines.append("transfer-encoding: chunked")
    if old or close:
        lines.append("connection: close")
    return "\r\n".join([*lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; `data` must not be empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def comment(text: str) -> bytes:
    """A server-sent comment: keeps the connection alive, and clients skip it."""
    return b": " + text.encode() + b"\n\n"


def as_event(body: bytes) -> bytes:
    """A replica's JSON answer, error or not, as an event of a stream that has begun."""
    try:
        text = json.dumps(json.loads(body), separators=(",", ":")).encode()
    except ValueError:
        return upstream_malformed().event()
    return b"data: " + text + b"\n\n"
