"""Ports of the gateway for agents that have none yet. Layer: shell; imports the cache's protocol.

The one idea: an agent's port is derived from its name, so it is the same again after everything was lost;
where two names meet, the later takes the next free one. The EndpointSlices are the record of what is taken,
and what was just given out is remembered until it is seen there.
"""

from __future__ import annotations

import hashlib

from agent_operator.api.gateway import PORT_RANGE
from agent_operator.shell.snapshots import GatewayPort, Key, Store


class Ports:
    """Gives out ports of the gateway."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._given: dict[int, Key] = {}
        self._of: dict[Key, int] = {}

    def free(self, key: Key) -> int | None:
        """A port for this agent, the same as long as it is known; None when all are taken."""
        if key in self._of:
            return self._of[key]
        first = int.from_bytes(hashlib.sha256(str(key).encode()).digest()[:8], "big")
        for step in range(len(PORT_RANGE)):
            port = PORT_RANGE[(first + step) % len(PORT_RANGE)]
            if port not in self._given and not any(True for _ in self._store.indexed(GatewayPort(port))):
                self._given[port], self._of[key] = key, port
                return port
        return None

    def forget(self, key: Key) -> None:
        """The agent is gone."""
        if (port := self._of.pop(key, None)) is not None:
            del self._given[port]
