"""Which replica goes when there is one too many. Layer: core, pure; imports core.signals.

The one idea: the ReplicaSet controller chooses, but it asks the annotation pod-deletion-cost first, so the
replica with no live turn gets the lowest cost before the number is lowered. What the chosen one still has, it
finishes: it drains before it ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent_operator.core.plan import Apply
from agent_operator.core.reading import is_ready, text
from agent_operator.core.signals import Signals

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
FIRST = "-1000"
"""Cost of what is to go."""
ORDINARY = "0"


def deletion_costs(
    pods: Iterable[Mapping[str, Any]], signals: Signals, live_replicas: int, wanted: int
) -> list[Apply]:
    """The annotations to write before the number of replicas of one revision is lowered.

    Pods that are not ready go first anyway. None when all go, or none, or nothing is known of any.
    """
    surplus = live_replicas - wanted
    if surplus <= 0 or wanted == 0 or not signals.samples:
        return []
    ready = [pod for pod in pods if is_ready(pod)]
    surplus -= live_replicas - len(ready)
    ranked = sorted(ready, key=lambda pod: (_live(pod, signals), _name(pod)))
    chosen = {_name(pod) for pod in ranked[: max(surplus, 0)]}
    writes = []
    for pod in ranked:
        cost = text(pod, "metadata", "annotations", DELETION_COST) or ORDINARY
        wanted_cost = FIRST if _name(pod) in chosen else ORDINARY
        if cost != wanted_cost:
            writes.append(_annotate(pod, wanted_cost, signals))
    return writes


def _annotate(pod: Mapping[str, Any], cost: str, signals: Signals) -> Apply:
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": _name(pod),
            "namespace": text(pod, "metadata", "namespace"),
            "annotations": {DELETION_COST: cost},
        },
    }
    lives = _live(pod, signals)
    why = f"to go first, with {lives} live requests and runs" if cost == FIRST else "another one is to go"
    return Apply(body, text(pod, "metadata", "uid"), why)


def _live(pod: Mapping[str, Any], signals: Signals) -> int:
    """Unknown counts as busy: only who says that it is idle is chosen for it."""
    sample = signals.samples.get(_name(pod))
    return sample.live if sample is not None else 1_000_000


def _name(pod: Mapping[str, Any]) -> str:
    return text(pod, "metadata", "name")
