"""Leader election over a Lease. Layer: controller; imports the six verbs.

The one idea: client-go's algorithm. A candidate trusts no clock but its own: it measures how long it has
itself seen the lease unchanged, so skewed clocks cannot make two leaders. The leader gives up well before
others may take over (renew deadline < lease duration). A standby looks often and wakes up exactly when the
lease it has seen expires, so handing over takes one look and taking over one lease. Why hand-written: the
LeaseLock of the installed client cannot create its Lease, and kopf's peering elects nobody.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent_operator.shell.kinds import LEASE
from agent_operator.shell.kube import ConflictError, Kube, KubeError, NotFoundError, Object

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_SECONDS = 5.0
JITTER = 1.2
LOOKS_PER_RETRY = 3
RESOLUTION_SECONDS = 0.001


class LeadershipLostError(Exception):
    """The lease could not be renewed in time; whatever needs it must stop now."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. Others may take over `lease` after the last renewal; we stop `renew` after it."""

    lease: float = 15.0
    renew: float = 10.0
    retry: float = 2.0

    def __post_init__(self) -> None:
        if not (0 < self.retry * JITTER < self.renew < self.lease):
            raise ValueError("retry * 1.2 < renew < lease must hold")


def machine_clock() -> float:
    """Seconds that nobody can set and that go on while the machine sleeps, unlike the loop's clock.

    A leader on a machine that slept through its lease must see that when it wakes up.
    """
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class LeaderElector:
    """One candidate. `clock` measures time, by default the running loop's; `now` only goes into the Lease."""

    def __init__(
        self,
        kube: Kube,
        *,
        namespace: str,
        name: str,
        identity: str,
        timing: Timing | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = lambda: asyncio.get_running_loop().time(),
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self.identity = identity
        self._timing = timing or Timing()
        self._now = now
        self._jitter = jitter
        self._clock = clock
        self._seen: Object | None = None
        self._seen_at = 0.0
        self._renewed_at: float | None = None

    def leads(self) -> bool:
        """Whether the lease is certainly ours at this moment."""
        return self._remaining() > RESOLUTION_SECONDS

    def write_seconds(self) -> float:
        """How long a write that starts now may take: until others may write. 0 when we do not lead.

        While we lead this is never less than the time between the renew deadline and the lease's end.
        """
        return self._remaining() + self._timing.lease - self._timing.renew if self.leads() else 0.0

    async def acquire(self) -> None:
        """Wait until we lead. Survives any failure of the API server."""
        logger.info("waiting for lease %s/%s as %s", self._namespace, self._name, self.identity)
        while True:
            if await self._try("acquire"):
                break
            await asyncio.sleep(self._until_next_look())
        logger.info("leading: lease %s/%s is ours", self._namespace, self._name)

    async def hold(self) -> None:
        """Renew for ever.

        Raises:
            LeadershipLostError: no renewal succeeded within the renew deadline, or somebody else leads.
        """
        while True:
            await asyncio.sleep(min(self._timing.retry, max(self._remaining(), RESOLUTION_SECONDS)))
            await self._try("renew", within=self._remaining())
            if self._seen is not None and _holder(self._seen) != self.identity:
                self._renewed_at = None
                raise LeadershipLostError(f"the lease is held by {_holder(self._seen) or 'nobody'}")
            if not self.leads():
                self._renewed_at = None
                raise LeadershipLostError(f"not renewed for {self._timing.renew:g} s")

    def _remaining(self) -> float:
        """Seconds until the renew deadline."""
        renewed_at = self._renewed_at if self._renewed_at is not None else float("-inf")
        return renewed_at + self._timing.renew - self._clock()

    def _until_next_look(self) -> float:
        """Seconds a candidate waits: not past the end of the lease it respects, which may be given back
        before. Looking is one small read. A free lease that could not be taken is tried less often.
        """
        chance = 1 + (JITTER - 1) * self._jitter()
        expires_in = self._respected_for()
        if expires_in <= 0:
            return self._timing.retry * chance
        return min(expires_in, self._timing.retry / LOOKS_PER_RETRY / chance)

    async def release(self) -> None:
        """Give the lease back if it is ours, so a standby need not wait for it to expire."""
        if not self.leads() or self._seen is None:
            return
        self._renewed_at = None
        lease = self._lease(self._seen)
        lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                await self._kube.replace(lease)
            logger.info("released lease %s/%s", self._namespace, self._name)
        except (KubeError, TimeoutError) as error:
            logger.warning("the lease could not be released: %s", error)

    async def _try(self, verb: str, within: float = REQUEST_TIMEOUT_SECONDS) -> bool:
        """One attempt; False if it did not succeed, for whatever reason."""
        try:
            async with asyncio.timeout(max(0.0, min(within, REQUEST_TIMEOUT_SECONDS))):
                return await self._acquire_or_renew()
        except ConflictError:
            logger.info("could not %s the lease: somebody else was faster", verb)
        except (KubeError, TimeoutError) as error:
            logger.warning("could not %s the lease: %s", verb, str(error) or "no answer in time")
        return False

    async def _acquire_or_renew(self) -> bool:
        started = self._clock()
        # While leading, the last written version is tried first: one request instead of two. It fails
        # if somebody touched the lease or an answer got lost; then the lease is read.
        if self._seen is not None and self.leads():
            try:
                self._won(await self._kube.replace(self._lease(self._seen)), started)
                return True
            except (ConflictError, NotFoundError):
                pass
        try:
            lease = await self._kube.get(LEASE, self._namespace, self._name)
        except NotFoundError:
            self._won(await self._kube.create(self._lease(None)), started)
            return True
        self._observe(lease)
        if self._respected_for() > 0:
            return False
        self._won(await self._kube.replace(self._lease(lease)), started)
        return True

    def _respected_for(self) -> float:
        """Seconds for which the lease as we saw it last keeps us from taking it; 0 or less: it is free.

        How long somebody else's lease is respected is its own word, but never less than ours.
        """
        if self._seen is None or _holder(self._seen) in ("", self.identity):
            return 0.0
        expiry = max(float(_spec(self._seen).get("leaseDurationSeconds") or 0), self._timing.lease)
        return self._seen_at + expiry - self._clock()

    def _won(self, lease: Object, started: float) -> None:
        self._seen, self._seen_at = lease, self._clock()
        # Counted from before the request: others may count from the moment it was stored.
        self._renewed_at = started

    def _observe(self, lease: Object) -> None:
        if self._seen is None or _version(lease) != _version(self._seen):
            self._seen, self._seen_at = lease, self._clock()

    def _lease(self, previous: Object | None) -> Object:
        """The Lease to write, as renewal or take-over of `previous`."""
        now = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old: dict[str, Any] = _spec(previous) if previous else {}
        mine = old.get("holderIdentity") == self.identity
        transitions = int(old.get("leaseTransitions") or 0)
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": round(self._timing.lease),
            "acquireTime": old.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": transitions if mine or not previous else transitions + 1,
        }
        metadata = {"name": self._name, "namespace": self._namespace}
        if previous:
            metadata = {k: v for k, v in previous["metadata"].items() if k != "managedFields"}
        return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}


def _holder(lease: Object) -> str:
    return _spec(lease).get("holderIdentity") or ""


def _spec(lease: Object) -> dict[str, Any]:
    return dict(lease.get("spec") or {})


def _version(lease: Object) -> str:
    return str(lease["metadata"].get("resourceVersion", ""))
