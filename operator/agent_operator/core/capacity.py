"""How many replicas can be placed. Layer: core, pure; imports core.*.

The one idea: two bounds with different consequences. What the cluster's devices and the namespace's quota
could ever hold is never asked for beyond; what just does not fit now is asked for as far as it is free, since
a scheduler decides better than we do, and a pending replica of ours is the proof that nothing is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from agent_operator.core.autoscale import Capacity
from agent_operator.core.drift import parse_quantity
from agent_operator.core.reading import condition, mapping, text


@dataclass(frozen=True, slots=True)
class Devices:
    """What a replica asks for: `count` of the extended resource `name`."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class Places:
    """What the nodes have and the quotas allow."""

    totals: Mapping[str, tuple[int, ...]] | None = None
    """Devices of each node, by resource name; None: the nodes may not be read."""
    quotas: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """ResourceQuotas that bound devices, by namespace."""


def devices_of(agent: Mapping[str, Any]) -> Devices | None:
    """The devices of one replica, None without any."""
    gpu = mapping(agent, "spec", "resources", "gpu")
    number = gpu.get("count", 1) if gpu else 0
    if not isinstance(number, int) or number <= 0:
        return None
    return Devices(text(gpu, "resourceName") or "nvidia.com/gpu", number)


def node_totals(nodes: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, ...]]:
    """Allocatable devices of each node that has any and takes pods, by resource name."""
    found: dict[str, list[int]] = {}
    for node in nodes:
        if mapping(node, "spec").get("unschedulable") is True:
            continue
        for name, amount in mapping(node, "status", "allocatable").items():
            if "/" in name and (number := parse_quantity(amount)) is not None and number > 0:
                found.setdefault(name, []).append(int(number))
    return {name: tuple(sorted(amounts)) for name, amounts in found.items()}


def capacity(agent: Mapping[str, Any], pods: Iterable[Mapping[str, Any]], places: Places) -> Capacity:
    """The bounds for one agent; `pods` are its own."""
    devices, totals = devices_of(agent), places.totals
    quotas = places.quotas.get(text(agent, "metadata", "namespace"), ())
    waiting = [pod for pod in pods if condition(pod, "PodScheduled").get("reason") == "Unschedulable"]
    free = 0 if waiting else None
    why = text(condition(waiting[0], "PodScheduled"), "message") if waiting else ""
    if devices is None:
        return Capacity(fits=None, free=free, why=why)
    fits: int | None = None
    if totals is not None:
        amounts = totals.get(devices.name, ())
        fits = sum(amount // devices.count for amount in amounts)
        why = why or f"the nodes have {sum(amounts)} of {devices.name}, a replica needs {devices.count}"
    for quota in quotas:
        hard, used = _quota(quota, devices.name)
        if hard is None:
            continue
        allowed, left = int(hard // devices.count), int((hard - used) // devices.count)
        if fits is None or allowed < fits:
            fits = allowed
            why = f"ResourceQuota {text(quota, 'metadata', 'name')} allows {hard} of {devices.name}"
        free = max(0, left) if free is None else min(free, max(0, left))
    return Capacity(fits=fits, free=free, why=why)


def _quota(quota: Mapping[str, Any], name: str) -> tuple[Decimal | None, Decimal]:
    """Hard bound and use of one resource's requests; extended resources are limited by their requests."""
    key = f"requests.{name}"
    hard = parse_quantity(mapping(quota, "status", "hard").get(key))
    return hard, parse_quantity(mapping(quota, "status", "used").get(key)) or Decimal(0)


def relevant_quotas(quotas: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of ResourceQuotas what `capacity` reads, and only those that bound devices."""
    return [
        {
            "metadata": {name: text(quota, "metadata", name) for name in ("name", "namespace")},
            "status": quota.get("status"),
        }
        for quota in quotas
        if any(
            str(key).startswith("requests.") and "/" in str(key) for key in mapping(quota, "status", "hard")
        )
    ]
