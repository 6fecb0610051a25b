"""The six verbs over HTTP. Layer: shell; imports aiohttp and the connection.

The one idea: JSON in, JSON out, one typed error per kind of refusal. A request the server turned away
(429, 503) or whose connection broke is tried again a few times with jitter, but only if repeating it is
safe; a create is repeated only when the server said it did nothing. Every single attempt of a write asks
the fence at the moment its bytes would leave, and tells the server how long it may work on it, so that no
write outlives the lease it was decided under.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from agent_operator.shell.connection import CONNECT_TIMEOUT_SECONDS, REQUEST_TIMEOUT_SECONDS, Connection
from agent_operator.shell.kinds import Kind, kind_of
from agent_operator.shell.kube import (
    FIELD_MANAGER,
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InternalError,
    InvalidError,
    KubeError,
    Listing,
    NotFoundError,
    Object,
    UnavailableError,
)

ATTEMPTS = 4
FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0
PAGE_SIZE = 500

FENCED_SHARE = 0.8
"""Of the time until others may write, this share is for the server; the rest is for the way there."""

_DISCARD_WHEN_CLOSED = struct.pack("ii", 1, 0)

Fence = Callable[[], float]
"""Seconds that a write sent now may take before somebody else may write; 0: it must not be sent."""

_TURNED_AWAY = frozenset({429, 503})
_UNSURE = frozenset({502, 504})
_BY_STATUS: Mapping[int, type[KubeError]] = {
    400: InvalidError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    405: InvalidError,
    409: ConflictError,
    413: InvalidError,
    415: InvalidError,
    422: InvalidError,
    500: InternalError,
}

_NEVER_TYPED = ("failed to create typed patch object", "failed to convert new object")
"""How the API server words, as if it were its own fault, that a field is unknown or of another type."""


class FencedError(KubeError):
    """The lease is not certainly ours for as long as the write may take, so it was not sent."""


def error_from(status: int, body: bytes) -> KubeError:
    """The typed error of an answer: its HTTP status and, if it is one, its metav1.Status body."""
    reason, message = "", body[:300].decode(errors="replace")
    try:
        parsed = json.loads(body)
        reason, message = parsed.get("reason") or "", parsed.get("message") or message
    except (ValueError, AttributeError):
        pass  # a proxy in between may answer in HTML
    if reason == "AlreadyExists":
        return AlreadyExistsError(message, status)
    if status == 500 and message.startswith(_NEVER_TYPED):
        return InvalidError(message, status)
    return _BY_STATUS.get(status, UnavailableError)(message or f"HTTP {status}", status)


class _Body(aiohttp.BytesPayload):
    """The body of a write. Asks the fence when a connection stands and the bytes would leave.

    Not before: waiting for a connection takes time, and so does being stopped and continued meanwhile. The
    headers alone, should they have left, are no request.
    """

    def __init__(self, data: bytes, content_type: str, fence: Fence | None, seconds: float) -> None:
        super().__init__(data, content_type=content_type)
        self._fence = fence
        self._seconds = seconds

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        if self._fence is not None:
            on_the_way = self._fence() - self._seconds
            if on_the_way <= 0:
                raise _fenced()
            _never_deliver_late(writer, on_the_way)
        await super().write_with_length(writer, content_length)


class HttpKube:
    """Kube over a Connection. Safe for concurrent use; connections are bounded by the Connection.

    Writes are sent only while `fence` grants them time; without one they may always be sent.

    Raises:
        FencedError: by every writing verb, when the fence grants no time (any more).
    """

    def __init__(
        self,
        connection: Connection,
        *,
        fence: Fence | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._connection = connection
        self._fence = fence
        self._jitter = jitter

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        return await self._request("GET", kind.path(namespace, name))

    async def list(
        self, kind: Kind, namespace: str | None = None, *, selector: str = "", fields: str = ""
    ) -> Listing:
        objects: list[Object] = []
        version = ""
        async for page in self.pages(kind, namespace, selector=selector, fields=fields):
            objects += page.objects
            version = page.resource_version
        return Listing(objects, version)

    async def pages(
        self, kind: Kind, namespace: str | None = None, *, selector: str = "", fields: str = ""
    ) -> AsyncIterator[Listing]:
        chosen = {"labelSelector": selector, "fieldSelector": fields}
        params = {"limit": str(PAGE_SIZE)} | {name: value for name, value in chosen.items() if value}
        # Items of built-in kinds come without type information.
        named = {"apiVersion": kind.api_version, "kind": kind.kind}
        version = ""
        while True:
            page = await self._request("GET", kind.path(namespace), params=params)
            version = version or page["metadata"].get("resourceVersion", "")
            yield Listing([named | obj for obj in page.get("items") or ()], version)
            token = page["metadata"].get("continue")
            if not token:
                return
            params = params | {"continue": token}

    async def create(self, obj: Object) -> Object:
        path = kind_of(obj).path(obj["metadata"]["namespace"])
        return await self._request(
            "POST", path, params={"fieldManager": FIELD_MANAGER}, body=obj, repeatable=False
        )

    async def replace(self, obj: Object) -> Object:
        meta = obj["metadata"]
        path = kind_of(obj).path(meta["namespace"], meta["name"])
        return await self._request("PUT", path, params={"fieldManager": FIELD_MANAGER}, body=obj)

    async def apply(self, obj: Object, *, subresource: str = "", force: bool = True) -> Object:
        meta = obj["metadata"]
        return await self._request(
            "PATCH",
            kind_of(obj).path(meta["namespace"], meta["name"], subresource),
            params={"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"},
            body=obj,
            content_type="application/apply-patch+yaml",  # JSON is YAML
        )

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> Object | None:
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        answer = await self._request("DELETE", kind.path(namespace, name), body=body)
        return None if answer.get("kind") == "Status" else answer

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        repeatable: bool = True,
    ) -> Any:
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        for attempt in range(1, ATTEMPTS + 1):
            wait: float | None = None
            try:
                status, headers, answer = await self._attempt(method, path, params or {}, data, content_type)
                if status < 300:
                    return json.loads(answer)
                failure = error_from(status, answer)
                if status in _TURNED_AWAY or (status in _UNSURE and repeatable):
                    wait = self._delay(attempt, headers.get("Retry-After"))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if isinstance(error.__cause__, FencedError):
                    raise error.__cause__ from None
                failure = UnavailableError(f"{method} {path}: {type(error).__name__}: {error}")
                if repeatable and not isinstance(error, TimeoutError):
                    wait = self._delay(attempt, None)
            except ValueError as error:
                raise UnavailableError(f"{method} {path}: the answer is not JSON: {error}") from error
            if wait is None or attempt == ATTEMPTS:
                raise failure
            await asyncio.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _attempt(
        self, method: str, path: str, params: Mapping[str, str], data: bytes | None, content_type: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send once; returns status, headers and body of the answer."""
        limit = REQUEST_TIMEOUT_SECONDS
        body: _Body | None = None
        if data is not None:
            fence = self._fence
            if fence is not None:
                if (granted := fence()) <= 0:
                    raise _fenced()
                limit = min(limit, FENCED_SHARE * granted)
                params = {**params, "timeout": f"{limit:.3f}s"}
            body = _Body(data, content_type, fence, limit)
        async with self._connection.session.request(
            method,
            self._connection.url(path),
            params=params,
            data=body,
            headers={"Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=limit, sock_connect=CONNECT_TIMEOUT_SECONDS),
        ) as response:
            return response.status, response.headers, await response.read()

    def _delay(self, attempt: int, retry_after: str | None) -> float:
        backoff = min(FIRST_DELAY_SECONDS * 2 ** (attempt - 1), LONGEST_DELAY_SECONDS)
        asked = float(retry_after) if retry_after and retry_after.isdigit() else 0.0
        # Never earlier than asked; the jitter keeps a fleet from coming back in one wave.
        return min(max(backoff, asked), 30.0) * (1 + 0.5 * self._jitter())


def _never_deliver_late(writer: AbstractStreamWriter, seconds: float) -> None:
    """Have the kernel drop what it could not deliver: after so many seconds, and when the socket is closed.

    It goes on sending for minutes otherwise, even after the process has ended, so a write could arrive
    after the network was mended and somebody else leads.
    """
    transport = getattr(writer, "transport", None)
    connected = transport.get_extra_info("socket") if transport is not None else None
    if connected is None:
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DISCARD_WHEN_CLOSED)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(seconds * 1000)))


def _fenced() -> FencedError:
    return FencedError("not sent: the lease is not certainly ours for as long as this write may take")
