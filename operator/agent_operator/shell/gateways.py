"""Which gateways there are, and what they hold. Layer: shell; imports aiohttp, the six verbs and the monitor.

The one idea: the gateways are asked, they never write. Each is kept in one long poll that it answers when
what it holds changes, so a request that finds no replica wakes its agent within a round trip. Which gateways
exist is read from the EndpointSlices of their Service, every two seconds: it is one small list, and a gateway
that goes says so by failing its readiness before it stops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import aiohttp

from agent_operator.api.gateway import CONTROL_PORT, DEMAND_PATH, LABEL_SERVICE_NAME, Demand
from agent_operator.core.reading import at, mapping, mappings
from agent_operator.shell.kinds import ENDPOINT_SLICE
from agent_operator.shell.kube import Kube, KubeError
from agent_operator.shell.monitor import Monitor
from agent_operator.shell.snapshots import Key

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
WAIT_SECONDS = 20.0
TIMEOUT_SECONDS = 5.0
RETRY_SECONDS = 0.5
LARGEST_ANSWER = 8 * 2**20


class Gateways:
    """Follows the gateways behind one Service; run `run` while leading."""

    def __init__(
        self,
        kube: Kube,
        monitor: Monitor,
        *,
        namespace: str,
        service: str,
        new_session: Callable[[int], aiohttp.ClientSession],
        on_change: Callable[[], None],
    ) -> None:
        self._kube = kube
        self._monitor = monitor
        self._namespace = namespace
        self._service = service
        self._new_session = new_session
        self._on_change = on_change
        self._demands: dict[str, dict[Key, int]] = {}
        self._failed = ""

    async def run(self) -> None:
        """Follow until cancelled."""
        followers: dict[str, asyncio.Task[None]] = {}
        async with self._new_session(0) as session, asyncio.TaskGroup() as tasks:
            while True:
                await self._look()
                there = set(self._monitor.gateways or ())
                for address in set(followers) - there:
                    followers.pop(address).cancel()
                    self._heard(address, {})
                for address in there - set(followers):
                    followers[address] = tasks.create_task(self._follow(session, address), name="gateway")
                await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        """Read which gateways are ready. Where that fails, those known stay."""
        chosen = f"{LABEL_SERVICE_NAME}={self._service}"
        try:
            listing = await self._kube.list(ENDPOINT_SLICE, self._namespace, selector=chosen)
        except KubeError as error:
            if str(error) != self._failed:
                logger.warning("cannot read which gateways there are: %s", error)
            self._failed = str(error)
            return
        self._failed = ""
        found = {
            str(address)
            for piece in listing.objects
            for endpoint in mappings(piece, "endpoints")
            if mapping(endpoint, "conditions").get("ready") is True
            for address in at(endpoint, "addresses") or ()
        }
        addresses = tuple(sorted(found))
        if addresses != self._monitor.gateways:
            logger.info("gateways: %s", ", ".join(addresses) or "none")
            self._monitor.gateways = addresses
            self._on_change()

    async def _follow(self, session: aiohttp.ClientSession, address: str) -> None:
        """Keep one gateway in a long poll."""
        version = ""
        url = f"http://{address}:{CONTROL_PORT}{DEMAND_PATH}"
        while True:
            params = {"wait": f"{WAIT_SECONDS:g}", "since": version} if version else {}
            try:
                timeout = aiohttp.ClientTimeout(total=WAIT_SECONDS + TIMEOUT_SECONDS)
                async with session.get(url, params=params, timeout=timeout) as response:
                    demand = Demand.decode(await response.content.read(LARGEST_ANSWER))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                logger.warning("gateway %s does not answer: %s", address, error or type(error).__name__)
                demand = None
            if demand is None:
                version = ""
                self._heard(address, {})
                await asyncio.sleep(RETRY_SECONDS)
                continue
            version = demand.version
            self._heard(address, {k: a.held for name, a in demand.agents.items() if (k := _key(name))})

    def _heard(self, address: str, held: dict[Key, int]) -> None:
        """Add up what all gateways hold."""
        self._demands[address] = held
        if not held:
            del self._demands[address]
        total: dict[Key, int] = {}
        for one in self._demands.values():
            for key, number in one.items():
                total[key] = total.get(key, 0) + number
        self._monitor.demand(total)


def _key(name: str) -> Key | None:
    namespace, slash, agent = name.partition("/")
    return Key(namespace, agent) if slash else None
