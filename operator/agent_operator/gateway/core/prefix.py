"""What of a request's body the gateway looks at. Layer: gateway core, pure.

The one idea: two questions only. Will the answer be a stream? Which earlier requests does this one share a
beginning with? JSON is parsed when a cheap look says that it is worth it and the body is small enough not to
stop the loop; a larger body is judged by its bytes, which is right whenever a client writes its fields in
one order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

PREFIX_BYTES = 4096
"""How much of a beginning is compared."""
PARSED_BYTES = 64 * 1024
STREAM_PARSED_BYTES = 1024 * 1024
OWNERS = ("session", "session_id", "conversation", "prompt_cache_key", "user")
"""Fields by which a client says itself what belongs together; the first that is there counts."""

_STREAM = re.compile(rb'(?<!\\)"stream"\s*:\s*true')


def wants_stream(body: bytes) -> bool:
    """Whether a request asks for server-sent events."""
    if _STREAM.search(body) is None:
        return False
    if len(body) > STREAM_PARSED_BYTES:
        return True
    fields = _fields(body)
    return fields is not None and fields.get("stream") is True


def affinity_key(body: bytes) -> int | None:
    """64 bits that requests with the same beginning share; None where there is nothing to share."""
    if not body:
        return None
    if len(body) > PARSED_BYTES:
        return _key(body[:PREFIX_BYTES])
    fields = _fields(body)
    if fields is None:
        return None
    model = str(fields.get("model", ""))
    for owner in OWNERS:
        value = fields.get(owner)
        if isinstance(value, str) and value:
            return _key(f"{model}\0{owner}\0{value}".encode("utf-8", "surrogatepass"))
    beginning = _beginning(fields)
    if not beginning:
        return None
    return _key(f"{model}\0{beginning}".encode("utf-8", "surrogatepass")[:PREFIX_BYTES])


def _beginning(fields: dict[str, Any]) -> str:
    """The messages up to the first of the user's, or the prompt: what does not change from turn to turn."""
    messages = fields.get("messages")
    if isinstance(messages, list):
        return "\0".join(_text(message) for message in _opening(messages))
    for name in ("prompt", "input"):
        value = fields.get(name)
        if isinstance(value, str):
            return value[:PREFIX_BYTES]
        if isinstance(value, list) and value:
            return json.dumps(value[:1])[:PREFIX_BYTES]
    return ""


def _opening(messages: Sequence[Any]) -> list[Any]:
    for number, message in enumerate(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return list(messages[: number + 1])
    return list(messages[:1])


def _text(message: Any) -> str:
    content = message.get("content") if isinstance(message, dict) else message
    return (content if isinstance(content, str) else json.dumps(content))[:PREFIX_BYTES]


def _fields(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _key(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest())
