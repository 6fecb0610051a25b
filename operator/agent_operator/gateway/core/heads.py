"""The head of a request or an answer, as bytes. Layer: gateway core, pure.

The one idea: what concerns one connection only is taken out of a request's head before the parser sees it,
so the bytes that llhttp has checked are the very bytes that are sent on: no two readings of one head, which
is what request smuggling lives on. Offers to upgrade (h2c, WebSocket) vanish with it, as HTTP allows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_HEAD_BYTES = 64 * 1024
TIMEOUT_HEADER = b"x-request-timeout-seconds"
"""The runtime's header of the same name: what the client will wait, in seconds."""

_SPECIAL = re.compile(
    rb"\r\n(connection|keep-alive|proxy-connection|te|upgrade|http2-settings|expect|content-length|"
    rb"transfer-encoding)[ \t]*:[ \t]*([^\r\n]*)",
    re.IGNORECASE,
)
_OF_ONE_CONNECTION = re.compile(
    rb"\r\n(?:connection|keep-alive|proxy-connection|te|upgrade|http2-settings|expect)[ \t]*:[^\r\n]*",
    re.IGNORECASE,
)
_CONNECTION = re.compile(rb"\r\n(?:connection|keep-alive)[ \t]*:[^\r\n]*", re.IGNORECASE)
_ACCEPT_ENCODING = re.compile(rb"\r\naccept-encoding[ \t]*:[^\r\n]*", re.IGNORECASE)
_TIMEOUT = re.compile(rb"\r\n" + TIMEOUT_HEADER + rb"[ \t]*:[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding[ \t]*:[^\r\n]*", re.IGNORECASE)
_FRAMED = re.compile(rb"\r\n(?:content-length|transfer-encoding)[ \t]*:", re.IGNORECASE)
_RETRY_AFTER = re.compile(rb"\r\nretry-after[ \t]*:", re.IGNORECASE)
_EVENT_STREAM = re.compile(rb"\r\ncontent-type[ \t]*:[ \t]*text/event-stream", re.IGNORECASE)
_HEADER = re.compile(rb"\r\n([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)")
_KNOWN_OPTIONS = frozenset(
    {b"close", b"keep-alive", b"upgrade", b"te", b"http2-settings", b"transfer-encoding", b"content-length"}
)
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class BadHeadError(ValueError):
    """The head cannot be served; the message says why."""


@dataclass(slots=True)
class Head:
    """A request's head to be sent on. `length` is that of the body, 0 when `chunked`."""

    raw: bytes
    method: bytes
    length: int = 0
    chunked: bool = False
    close: bool = False
    """The client wants no further request on its connection, or can send none (HTTP/1.0)."""
    old: bool = False
    """HTTP/1.0: understands no chunked answer."""
    expects: bool = False
    """Waits for 100 Continue before it sends the body."""


def clean(raw: bytes) -> Head:
    """The head of a request up to and with its empty line. Whether the rest is HTTP is llhttp's to say.

    Raises:
        BadHeadError: its framing is one this gateway does not serve.
    """
    raw = raw.lstrip(b"\r\n")
    line = raw[: raw.find(b"\r\n")]
    method, _, _ = line.partition(b" ")
    version = line[-9:]
    if version not in (b" HTTP/1.1", b" HTTP/1.0"):
        raise BadHeadError("only HTTP/1.1 and HTTP/1.0 are spoken here")
    if method == b"CONNECT":
        raise BadHeadError("CONNECT is not served")
    head = Head(raw, method)
    if version == b" HTTP/1.0":
        head.old = head.close = True
    strip = False
    for name, value in _SPECIAL.findall(raw):
        name = name.lower()  # noqa: PLW2901
        if name == b"content-length":
            head.length = _length(value)
        elif name == b"transfer-encoding":
            head.chunked = True
        else:
            strip = True
            if name == b"expect":
                head.expects = value.strip().lower() == b"100-continue" and not head.old
            elif name == b"connection":
                raw = _options(head, raw, value)
    if head.old and head.chunked:
        raise BadHeadError("HTTP/1.0 has no Transfer-Encoding")
    if strip:
        raw = _OF_ONE_CONNECTION.sub(b"", raw)
    head.raw = raw
    return head


def _length(value: bytes) -> int:
    value = value.strip()
    if not value.isdigit() or len(value) > 18:
        raise BadHeadError("Content-Length is not a number")
    return int(value)


def _options(head: Head, raw: bytes, value: bytes) -> bytes:
    """Obeys a Connection header and takes out the headers it names."""
    for option in value.lower().split(b","):
        name = option.strip()
        if name == b"close":
            head.close = True
        elif name and name not in _KNOWN_OPTIONS and _TOKEN.fullmatch(name):
            raw = re.sub(rb"\r\n" + re.escape(name) + rb"[ \t]*:[^\r\n]*", b"", raw, flags=re.IGNORECASE)
    return raw


def headers_of(raw: bytes) -> dict[bytes, bytes]:
    """Header values by lower-case name; of a repeated one the last."""
    return {name.lower(): value for name, value in _HEADER.findall(raw)}


def timeout_of(raw: bytes) -> float | None:
    """Seconds the client will wait, when it says so. A value that is no positive number is the runtime's to
    refuse."""
    found = _TIMEOUT.search(raw)
    if found is None:
        return None
    try:
        seconds = float(found[1])
    except ValueError:
        return None
    return seconds if 0 < seconds < float("inf") else None


def with_timeout(raw: bytes, seconds: float) -> bytes:
    """The head with what is left of the client's time."""
    return _TIMEOUT.sub(b"\r\n%b: %.3f" % (TIMEOUT_HEADER, max(seconds, 0.001)), raw)


def without_encodings(raw: bytes) -> bytes:
    """The head without Accept-Encoding: the answer is joined on to one that began uncompressed."""
    return _ACCEPT_ENCODING.sub(b"", raw)


def is_framed(raw: bytes) -> bool:
    """Whether an answer says where it ends; else it ends with its connection."""
    return _FRAMED.search(raw) is not None


def has_retry_after(raw: bytes) -> bool:
    """Whether an answer asks to come again."""
    return _RETRY_AFTER.search(raw) is not None


def is_event_stream(raw: bytes) -> bool:
    """Whether an answer is a stream of server-sent events."""
    return _EVENT_STREAM.search(raw) is not None


def without_chunks(raw: bytes) -> bytes:
    """An answer's head for a client that knows no chunks: the body ends with the connection."""
    return _CHUNKED.sub(b"", raw)


def answer_head(raw: bytes, *, close: bool) -> bytes:
    """An answer's head with our own word on the connection."""
    raw = _CONNECTION.sub(b"", raw)
    return raw[:-2] + b"connection: close\r\n\r\n" if close else raw
