"""Admits requests by key, rate and concurrency. Layer: access; lives on the event loop.

The one idea: every decision is a pure function of `keys` and `limits`; here is only the memory between two
requests (one Usage per key name) and the clock. A key rotated under the same name keeps its usage, so new
keys give no new allowance. Limits are per replica.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.types import Scope

from agent_runtime.access import limits
from agent_runtime.access.reload import KeySource
from agent_runtime.api import errors
from agent_runtime.api_keys import Denied, KeyRing, Principal, presented_key, verify
from agent_runtime.contract import AccessConfig


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may go on, and the rate-limit headers of its answer."""

    principal: Principal
    headers: dict[str, str]


class Gate:
    """Who may call. Call it on the event loop only."""

    def __init__(
        self,
        source: KeySource,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.source = source
        self._clock, self._wall_clock = clock, wall_clock
        self._usage: dict[str, limits.Usage] = {}
        self._ring: KeyRing | None = None

    def recognise(self, headers: Mapping[bytes, bytes]) -> Principal:
        """Whose key a request carries. Raises ApiError 401."""
        ring = self.source.ring
        if ring is not self._ring:
            self._ring = ring
            self._forget_strangers(ring)
        found = verify(ring, presented_key(headers), self._wall_clock())
        if isinstance(found, Denied):
            raise errors.unauthorized(found.code)
        return found

    def enter(self, headers: Mapping[bytes, bytes]) -> Admitted:
        """Admits a request; `leave` must follow once it was answered. Raises ApiError 401 or 429."""
        principal = self.recognise(headers)
        now = self._clock()
        usage, refused = limits.admit(self._used(principal), principal.limits, now)
        shown = limits.rate_headers(usage, principal.limits, now)
        if refused is not None:
            raise errors.rate_limited(
                principal.name, refused.what, refused.limit, limits.retry_after(refused), shown
            )
        self._usage[principal.name] = usage
        return Admitted(principal, shown)

    def leave(self, principal: Principal) -> None:
        """The request that `enter` admitted has ended."""
        self._usage[principal.name] = limits.release(self._used(principal))

    def charge(self, principal: Principal | None, tokens: int) -> None:
        """Counts tokens read and generated against the key's tokens per minute."""
        if principal is not None:
            used = self._used(principal)
            self._usage[principal.name] = limits.charge(used, principal.limits, tokens, self._clock())

    def charge_owner(self, owner: str | None, tokens: int) -> None:
        """`charge` for work that went on after its request: `owner` is the name of the key that began it."""
        for entry in self.source.ring.entries:
            if entry.principal.name == owner:
                self.charge(entry.principal, tokens)

    def _used(self, principal: Principal) -> limits.Usage:
        return self._usage.get(principal.name, limits.Usage())

    def _forget_strangers(self, ring: KeyRing) -> None:
        names = {entry.principal.name for entry in ring.entries}
        for name in [name for name in self._usage if name not in names and not self._usage[name].running]:
            del self._usage[name]


def open_gate(config: AccessConfig) -> Gate | None:
    """The gate of a configuration, watching its keys; None when no keys are configured: anybody may call."""
    if config.api_keys_path is None:
        return None
    source = KeySource(Path(config.api_keys_path))
    source.start()
    return Gate(source)


def principal_of(scope: Scope) -> Principal | None:
    """Who sent a request; None where no keys are configured."""
    found: Principal | None = scope.get("state", {}).get("principal")
    return found


def require_model(principal: Principal | None, model: str) -> None:
    """Raises ApiError 403 when the key was not given the model."""
    if principal is not None and not principal.may_use_model(model):
        raise errors.permission_denied(principal.name, "model", model)


def require_tool(principal: Principal | None, tool: str) -> None:
    """Raises ApiError 403 when the key was not given the tool."""
    if principal is not None and not principal.may_use_tool(tool):
        raise errors.permission_denied(principal.name, "tool", tool)
