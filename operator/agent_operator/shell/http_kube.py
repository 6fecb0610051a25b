"""The six verbs over HTTP. Layer: shell; imports aiohttp and the connection.

The one idea: JSON in, JSON out, one typed error per kind of refusal. A request the server turned away
(429, 503) or whose connection broke is tried again a few times with jitter, but only if repeating it is
safe; a create is repeated only when the server said it did nothing.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from agent_operator.shell.connection import Connection
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
    return _BY_STATUS.get(status, UnavailableError)(message or f"HTTP {status}", status)


class HttpKube:
    """Kube over a Connection. Safe for concurrent use; connections are bounded by the Connection."""

    def __init__(self, connection: Connection, *, jitter: Callable[[], float] = random.random) -> None:
        self._connection = connection
        self._jitter = jitter

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        return await self._request("GET", kind.path(namespace, name))

    async def list(
        self, kind: Kind, namespace: str | None = None, *, selector: str = "", fields: str = ""
    ) -> Listing:
        chosen = {"labelSelector": selector, "fieldSelector": fields}
        params = {"limit": str(PAGE_SIZE)} | {name: value for name, value in chosen.items() if value}
        objects: list[Object] = []
        version = ""
        while True:
            page = await self._request("GET", kind.path(namespace), params=params)
            version = version or page["metadata"].get("resourceVersion", "")
            # Items of built-in kinds come without type information.
            named = {"apiVersion": kind.api_version, "kind": kind.kind}
            objects.extend(named | obj for obj in page.get("items") or ())
            token = page["metadata"].get("continue")
            if not token:
                return Listing(objects, version)
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
        headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if data else {})
        for attempt in range(1, ATTEMPTS + 1):
            wait: float | None = None
            try:
                async with self._connection.session.request(
                    method, self._connection.url(path), params=params, data=data, headers=headers
                ) as response:
                    answer = await response.read()
                    if response.status < 300:
                        return json.loads(answer)
                    failure = error_from(response.status, answer)
                    if response.status in _TURNED_AWAY or (response.status in _UNSURE and repeatable):
                        wait = self._delay(attempt, response.headers.get("Retry-After"))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = UnavailableError(f"{method} {path}: {type(error).__name__}: {error}")
                if repeatable and not isinstance(error, TimeoutError):
                    wait = self._delay(attempt, None)
            except ValueError as error:
                raise UnavailableError(f"{method} {path}: the answer is not JSON: {error}") from error
            if wait is None or attempt == ATTEMPTS:
                raise failure
            await asyncio.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _delay(self, attempt: int, retry_after: str | None) -> float:
        backoff = min(FIRST_DELAY_SECONDS * 2 ** (attempt - 1), LONGEST_DELAY_SECONDS)
        asked = float(retry_after) if retry_after and retry_after.isdigit() else 0.0
        # Never earlier than asked; the jitter keeps a fleet from coming back in one wave.
        return min(max(backoff, asked), 30.0) * (1 + 0.5 * self._jitter())
