"""Who answers: the pods or the gateway. Layer: core, pure; imports core.*.

The one idea: whoever takes over is there first, whoever goes stays until everybody has heard. Kubernetes
tells its nodes of new endpoints within a second or so, in no order. So a gateway that is to stand in front
has its port open for a moment before requests are sent there; and one that has no business any more answers
on for a moment after the Service selects pods again, then is taken out of the endpoints, and only then closes
its port.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from agent_operator.core.children.gateway import LEAVING, Gateway, always, wanted
from agent_operator.core.observed import Observed
from agent_operator.core.reading import at, formatted, mappings, text, timestamp
from agent_operator.core.request import Request
from agent_operator.core.signals import Signals

OPENING = timedelta(seconds=2)
"""From the slice's creation until the port is certainly open."""
ANSWERING = timedelta(seconds=6)
"""How long a gateway that is not wanted any more stays among the endpoints."""
CLOSING = timedelta(seconds=12)
"""How long its port stays open."""


def plan(
    asked: Request, seen: Observed, signals: Signals, ready: int, now: datetime
) -> tuple[Gateway | None, float | None]:
    """The way to the gateway, None when there is none, and after how many seconds time alone changes it.

    `ready`: replicas behind the Service that can answer now.
    """
    live = seen.gateway_slice
    gateways = _gateways(seen, signals)
    port = seen.gateway_port or signals.free_port
    if port is None:
        return None, None
    if not wanted(asked.spec):
        return _leaving(port, seen, gateways, now)
    if not always(asked.spec):
        alone = asked.wanted == 0 or ready == 0
        return Gateway(port, gateways if alone and not asked.spec.suspend else ()), None
    created = timestamp(text(live, "metadata", "creationTimestamp"))
    opens = OPENING - (now - created) if created is not None else OPENING
    if live is None or (created is not None and opens > timedelta()):
        return Gateway(port, ()), opens.total_seconds()
    return Gateway(port, () if asked.spec.suspend else gateways, in_front=True), None


def _gateways(seen: Observed, signals: Signals) -> tuple[str, ...]:
    """The gateways that are ready; those that the slice has while nobody has looked, after a restart."""
    if signals.gateways is not None:
        return signals.gateways
    endpoints = mappings(seen.gateway_slice, "endpoints")
    return tuple(str(address) for one in endpoints for address in at(one, "addresses") or ())


def _leaving(
    port: int, seen: Observed, gateways: tuple[str, ...], now: datetime
) -> tuple[Gateway | None, float | None]:
    """A gateway without endpoints has nobody to wait for; one that answers goes step by step."""
    live = seen.gateway_slice
    noted = text(live, "metadata", "annotations", LEAVING)
    if live is None or not (noted or mappings(live, "endpoints")):
        return None, None
    since = timestamp(noted)
    gone = now - since if since is not None else timedelta()
    leaving = noted if since is not None else formatted(now)
    if gone >= CLOSING:
        return None, None
    if gone >= ANSWERING:
        return Gateway(port, (), leaving=leaving), (CLOSING - gone).total_seconds()
    return Gateway(port, gateways, leaving=leaving), (ANSWERING - gone).total_seconds()
