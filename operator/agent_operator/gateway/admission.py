"""Who may wait. Layer: gateway; imports the core and agent_runtime's keys.

The one idea: holding costs memory and wakes an agent, which costs money, so nobody without a key gets that
far; whoever finds a ready pod is judged by the pod.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from agent_operator.api.gateway import Route
from agent_operator.gateway.core import answers
from agent_operator.gateway.core.answers import Problem
from agent_operator.gateway.request import Request
from agent_runtime.api_keys import Denied, KeyRing

KEYS_RETRY_SECONDS = 5


class Keys(Protocol):
    """Who may call an agent that has API keys."""

    def cached(self, namespace: str, secret: str) -> KeyRing | None:
        """The ring as read lately, if it was."""

    async def ring(self, namespace: str, secret: str) -> KeyRing | None:
        """The ring; None when it cannot be read at the moment."""

    def judge(self, ring: KeyRing, raw: bytes) -> Denied | None:
        """Why the key in a request's head is not accepted."""


class Admission:
    """Judges requests, at once when the keys are known, else when they have been read."""

    def __init__(
        self,
        keys: Keys,
        *,
        admit: Callable[[Request], None],
        refuse: Callable[[Request, Problem], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._keys, self._admit, self._refuse, self._spawn = keys, admit, refuse, spawn
        self._reading = 0

    def ask(self, request: Request, route: Route, retry_after: int) -> None:
        """Admit a request or refuse it, now or later."""
        if route.api_keys_secret is None:
            self._admit(request)
            return
        ring = self._keys.cached(route.namespace, route.api_keys_secret)
        if ring is not None:
            self._judge(request, ring)
        elif self._reading >= route.max_held_requests:
            self._refuse(request, answers.hold_full("requests", retry_after))
        else:
            self._spawn(self._read(request, route.namespace, route.api_keys_secret))

    async def _read(self, request: Request, namespace: str, secret: str) -> None:
        self._reading += 1
        try:
            ring = await self._keys.ring(namespace, secret)
        finally:
            self._reading -= 1
        if request.gone:
            return
        if ring is None:
            self._refuse(request, answers.keys_unreadable(KEYS_RETRY_SECONDS))
        else:
            self._judge(request, ring)

    def _judge(self, request: Request, ring: KeyRing) -> None:
        denied = self._keys.judge(ring, request.head.raw)
        if denied is None:
            self._admit(request)
        else:
            self._refuse(request, answers.unauthorized(denied.code))
