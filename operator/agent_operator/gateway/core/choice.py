"""Which pod gets a request. Layer: gateway core, pure.

The one idea: least load decides, unless a request has a prefix some pod has likely computed before; then that
pod, found by rendezvous hashing, as long as its load stays within BOUND of the mean (consistent hashing with
bounded loads), else the next in that prefix's own order. All gateways rank alike, since nothing but the key
and the pods' names goes into a rank; a pod that comes or goes moves only the prefixes it owns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Protocol, TypeVar

BOUND = 1.25

_MASK = (1 << 64) - 1


class Choosable(Protocol):
    """What is known of a pod."""

    seed: int
    """64 bits of its identity; see `seed_of`."""
    in_flight: int
    """Requests of our own that it is answering."""
    others: int
    """Requests it had from elsewhere when it was last asked."""
    served: int
    """Requests it was ever given by us: among equals, whoever had fewest is next."""


P = TypeVar("P", bound=Choosable)


def seed_of(name: str) -> int:
    """64 bits that stand for a pod in every gateway."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest())


def least_loaded(pods: Iterable[P], below: int | None = None) -> P | None:
    """The pod with the least to do; with `below`, only one that has less than that."""
    best: P | None = None
    least = served = 0
    for pod in pods:
        load = pod.in_flight + pod.others
        if below is not None and load >= below:
            continue
        if best is None or load < least or (load == least and pod.served < served):
            best, least, served = pod, load, pod.served
    return best


def affine(pods: Sequence[P], key: int) -> P | None:
    """The first pod in the key's own order that is within the bound; None without any pod."""
    if not pods:
        return None
    total = sum(pod.in_flight + pod.others for pod in pods) + 1
    limit = math.ceil(BOUND * total / len(pods))
    best: P | None = None
    highest = -1
    for pod in pods:
        if pod.in_flight + pod.others + 1 > limit:
            continue
        rank = _rank(key, pod.seed)
        if rank > highest:
            best, highest = pod, rank
    return best


def _rank(key: int, seed: int) -> int:
    """A well mixed 64-bit number of the pair (the finaliser of splitmix64)."""
    mixed = (key ^ seed) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)
