"""What the audit log says about one side: who wrote what, when. Layer: tooling.

The one idea: the API server's own record is the only witness, for ours and for the peers alike. Times are
those at which a request had been answered.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable

from agent_operator.shell import kinds
from tests.support.audit import Request

NAME_LENGTH = 6
"""Agents are called a00000 to a99999, so every child's name begins with its agent's."""
CHILDREN = frozenset(kind.plural for kind in kinds.CHILDREN)
PARENTS = frozenset({"agentdeployments", "peeragents"})


def agent_of(request: Request) -> str:
    """The agent that a request is about."""
    return request.name[:NAME_LENGTH]


def by(user: str, requests: Iterable[Request]) -> list[Request]:
    """The writes of one user, Leases left out."""
    return [r for r in requests if r.user == user and r.is_write and r.resource != "leases"]


def counted(writes: Iterable[Request]) -> dict[str, int]:
    """How many writes went to children, to statuses, to events and elsewhere."""
    found: Counter[str] = Counter()
    for write in writes:
        if write.resource in CHILDREN:
            found["children"] += 1
        elif write.resource in PARENTS:
            found["status" if write.subresource == "status" else "parent"] += 1
        else:
            found[write.resource] += 1
    return dict(found)


def latencies(begun: Iterable[Request], ended: Iterable[Request]) -> list[float]:
    """Seconds from each agent's request to the last one that followed from it, sorted."""
    start = {agent_of(r): r.at for r in begun}
    last: dict[str, float] = {}
    for r in ended:
        last[agent_of(r)] = max(r.at, last.get(agent_of(r), 0.0))
    return sorted(last[agent] - at for agent, at in start.items() if agent in last)


def quantile(values: list[float], share: float) -> float:
    """A quantile of sorted values."""
    return values[min(len(values) - 1, int(len(values) * share))]


def spread(values: list[float]) -> dict[str, float]:
    """p50, p99 and the largest, in seconds; nothing of nothing."""
    if not values:
        return {}
    return {
        "p50": round(statistics.median(values), 4),
        "p99": round(quantile(values, 0.99), 4),
        "max": round(values[-1], 4),
    }
