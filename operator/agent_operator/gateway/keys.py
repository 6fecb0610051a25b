"""API keys from Secrets, read when somebody knocks. Layer: gateway; imports the shell and agent_runtime's
parser of keys.

The one idea: a Secret is read by name when a request must be held, and remembered for a few seconds; it is
never listed or watched, so the gateway's right is `get` and its memory holds hashes only. While the API
server does not answer, the keys last read stay valid for a minute, as in the runtime.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time
from collections.abc import Callable
from typing import Any

from agent_operator.gateway.core.heads import headers_of
from agent_operator.shell.kinds import Kind
from agent_operator.shell.kube import KubeError, NotFoundError, Object
from agent_runtime.api_keys import Denied, KeyRing, key_ring, presented_key, verify

logger = logging.getLogger(__name__)

SECRET = Kind("v1", "Secret", "secrets")
"""Here and not in the table of kinds: the operator itself has no business with Secrets."""
FRESH_SECONDS = 10.0
GRACE_SECONDS = 60.0

Name = tuple[str, str]


class SecretKeys:
    """The rings of all agents that have keys."""

    def __init__(
        self,
        read: Callable[[Kind, str, str], Any],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`read` is Kube.get."""
        self._read, self._clock, self._wall_clock = read, clock, wall_clock
        self._known: dict[Name, tuple[float, KeyRing]] = {}
        self._reading: dict[Name, asyncio.Task[KeyRing | None]] = {}

    def cached(self, namespace: str, secret: str) -> KeyRing | None:
        """The ring if it was read in the last FRESH_SECONDS."""
        known = self._known.get((namespace, secret))
        return known[1] if known and self._clock() - known[0] < FRESH_SECONDS else None

    async def ring(self, namespace: str, secret: str) -> KeyRing | None:
        """The ring, read if need be, once for all who ask; None when it cannot be read."""
        name = (namespace, secret)
        reading = self._reading.get(name)
        if reading is None:
            reading = self._reading[name] = asyncio.create_task(self._fetch(name))
            reading.add_done_callback(lambda _: self._reading.pop(name, None))
        return await asyncio.shield(reading)

    def judge(self, ring: KeyRing, raw: bytes) -> Denied | None:
        """Why the key in a request's head is not accepted, None if it is."""
        found = verify(ring, presented_key(headers_of(raw)), self._wall_clock())
        return found if isinstance(found, Denied) else None

    async def _fetch(self, name: Name) -> KeyRing | None:
        try:
            ring = ring_of(await self._read(SECRET, *name))
        except NotFoundError:
            ring = KeyRing()
            logger.warning("the Secret %s/%s does not exist: every request is refused with 401", *name)
        except KubeError as error:
            known = self._known.get(name)
            logger.warning("the Secret %s/%s cannot be read: %s", *name, error)
            return known[1] if known and self._clock() - known[0] < GRACE_SECONDS else None
        self._known[name] = (self._clock(), ring)
        return ring


def ring_of(secret: Object) -> KeyRing:
    """The ring in a Secret, its entries in the order of their names as in the runtime's folder."""
    entries: list[tuple[str, str]] = []
    problems: list[str] = []
    for name, value in sorted((secret.get("data") or {}).items()):
        try:
            entries.append((name, base64.b64decode(value, validate=True).decode()))
        except (binascii.Error, UnicodeDecodeError):
            problems.append(f"API key '{name}': it is not UTF-8 text")
    return key_ring(entries, problems)
