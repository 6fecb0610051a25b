"""What is remembered of an agent's load. Layer: core, pure.

The one idea: everything is folded into slots of time when it is seen, so the memory has the same size
whether a sample comes each second or each millisecond, and whether the delay is a minute or a day.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from agent_operator.core.autoscale.model import Observation, Policy
from agent_operator.core.autoscale.signals import (
    GROUP_SECONDS,
    GROUPS,
    Bucket,
    Group,
    Signals,
    longest,
    read,
    width,
)

SLOTS = 60
"""Slots that a delay is divided into."""
SILENCE_SECONDS = 30.0
"""Without a sample for so long, nothing is known."""
LATENCY_STEP = 2.0
"""The most by which latency multiplies the ready replicas at once."""
EXACT = 1e-9
"""What floating point may add to a number that is whole."""


@dataclass(frozen=True, slots=True)
class Extreme:
    """The greatest (or least) need of one slot of a delay."""

    at: float
    """When the last of it was seen."""
    load: float
    """Requests in flight."""
    level: float
    slope: float
    """Of the trend, if there was one."""
    replicas: int
    """What queued tokens, latency or a person asked for."""


@dataclass(frozen=True, slots=True)
class Memory:
    """All that is known of an agent's load."""

    buckets: tuple[Bucket, ...] = ()
    groups: tuple[Group, ...] = ()
    peaks: tuple[Extreme, ...] = ()
    """Greatest needs over the scale-down delay."""
    floors: tuple[Extreme, ...] = ()
    """Least needs over the scale-up delay; empty if there is none."""
    signals: Signals | None = None
    """None: nothing was seen yet, or the replicas do not answer."""
    heard: float | None = None
    """When the last sample came that says something."""
    since: float | None = None
    """Since when there was no gap in the samples."""
    ready: int = 0
    by_latency: int = 0
    """Replicas that the last p95 asks for."""
    p95: float | None = None
    panic_until: float | None = None
    panic_load: float = 0.0
    asked: int | None = None
    """The number a person asked for, until the next sample."""


EMPTY = Memory()


def observe(memory: Memory, observation: Observation, policy: Policy) -> Memory:
    """The memory after one more sample. A sample older than the last one is ignored."""
    if memory.heard is not None and observation.at < memory.heard:
        return memory
    if observation.ready > 0 and observation.answered <= 0:
        return replace(memory, signals=None)
    load, tokens = _extrapolated(observation, policy)
    buckets = _with_sample(memory.buckets, observation.at, load, tokens, policy)
    groups = _grouped(memory.groups, observation.at, load)
    gap = memory.heard is None or observation.at - memory.heard > SILENCE_SECONDS
    seen = replace(
        memory,
        buckets=buckets,
        groups=groups,
        signals=read(buckets, groups, policy),
        heard=observation.at,
        since=observation.at if gap else memory.since,
        ready=observation.ready,
        by_latency=_by_latency(observation, policy),
        p95=observation.p95_seconds,
        asked=None,
    )
    return _with_needs(_with_panic(seen, policy), policy)


def requested(memory: Memory, replicas: int, at: float) -> Memory:
    """The memory after a person asked for a number of replicas at `at`.

    It holds at once. More than is needed then lasts as long as any other need, the scale-down delay;
    less than is needed lasts until the next sample.
    """
    asked = Extreme(at=at, load=0.0, level=0.0, slope=0.0, replicas=replicas)
    return replace(memory, peaks=(asked,), floors=(), asked=replicas, panic_until=None, panic_load=0.0)


def replicas_for(load: float, each: float) -> int:
    """The least number of replicas that carry a load, `each` at most."""
    return max(0, ceil(load / each - EXACT))


def _extrapolated(observation: Observation, policy: Policy) -> tuple[float, float]:
    """Requests in flight and prompt tokens that wait, with those of the replicas that did not answer.

    A replica that does not answer is taken to carry what the others do, and what it should at least: it
    may be silent because it is busy.
    """
    answered, silent = observation.answered, max(0, observation.ready - observation.answered)
    each = observation.concurrency / answered if answered > 0 else 0.0
    load = observation.concurrency + silent * max(each, policy.target_concurrency) + observation.held
    share = 1 + silent / answered if answered > 0 else 1.0
    return load, observation.queued_tokens * share


def _with_sample(
    buckets: tuple[Bucket, ...], at: float, load: float, tokens: float, policy: Policy
) -> tuple[Bucket, ...]:
    """The sample added to its slot; slots older than the longest window dropped."""
    slot, count = int(at // width(policy)), 0
    if buckets and buckets[-1].slot == slot:
        last = buckets[-1]
        count, buckets = last.samples, buckets[:-1]
        load = (last.load * count + load) / (count + 1)
        tokens = (last.tokens * count + tokens) / (count + 1)
    oldest = slot - ceil(longest(policy) / width(policy))
    if buckets and buckets[0].slot <= oldest:
        buckets = tuple(bucket for bucket in buckets if bucket.slot > oldest)
    return (*buckets, Bucket(slot=slot, samples=count + 1, load=load, tokens=tokens))


def _grouped(groups: tuple[Group, ...], at: float, load: float) -> tuple[Group, ...]:
    """The sample added to its group; the last GROUPS closed ones are kept beside it."""
    slot = int(at // GROUP_SECONDS)
    kept = tuple(group for group in groups if slot - GROUPS <= group.slot < slot)
    samples, total, squares = 1, load, load * load
    if groups and groups[-1].slot == slot:
        last = groups[-1]
        samples, total, squares = last.samples + 1, last.total + total, last.squares + squares
    return (*kept, Group(slot=slot, samples=samples, total=total, squares=squares))


def _by_latency(observation: Observation, policy: Policy) -> int:
    """Replicas that the latency asks for; 0 where more replicas would not help.

    With few requests at each replica, what is slow is not the load.
    """
    target, p95 = policy.target_p95_seconds, observation.p95_seconds
    if target is None or p95 is None or p95 <= target * (1 + policy.tolerance) or observation.answered <= 0:
        return 0
    if observation.concurrency / observation.answered < policy.target_concurrency / 2:
        return 0
    return ceil(observation.ready * min(p95 / target, LATENCY_STEP) - EXACT)


def _with_panic(memory: Memory, policy: Policy) -> Memory:
    """Panic begins, or goes on, when a multiple of the ready replicas is needed."""
    signals, at = memory.signals, memory.heard
    if signals is None or at is None:
        return memory
    load = max(signals.fast, signals.busy)
    lasting = memory.panic_until is not None and at <= memory.panic_until
    greatest = max(load, memory.panic_load) if lasting else load
    if load >= policy.panic_threshold * max(1, memory.ready) * policy.target_concurrency:
        return replace(memory, panic_until=at + policy.stable_seconds, panic_load=greatest)
    if lasting:
        return replace(memory, panic_load=greatest)
    return replace(memory, panic_until=None, panic_load=0.0)


def _with_needs(memory: Memory, policy: Policy) -> Memory:
    """The need of this moment folded into the greatest and least of their slots."""
    signals, at = memory.signals, memory.heard
    if signals is None or at is None:
        return memory
    tokens = policy.target_queued_tokens
    by_tokens = replicas_for(signals.tokens, tokens) if tokens else 0
    rising = signals.slope > 0
    need = Extreme(
        at=at,
        load=max(signals.fast, signals.busy),
        level=signals.level if rising else 0.0,
        slope=signals.slope,
        replicas=max(by_tokens, memory.by_latency),
    )
    return replace(
        memory,
        peaks=_folded(memory.peaks, need, policy.scale_down_delay_seconds, greatest=True),
        floors=_folded(memory.floors, need, policy.scale_up_delay_seconds, greatest=False)
        if policy.scale_up_delay_seconds > 0
        else (),
    )


def _folded(
    extremes: tuple[Extreme, ...], need: Extreme, delay: float, *, greatest: bool
) -> tuple[Extreme, ...]:
    """The extremes of the last `delay` seconds with this need among them, one a slot."""
    wide = max(1.0, delay / SLOTS)
    kept = tuple(one for one in extremes if one.at + delay >= need.at)
    if not kept or kept[-1].at // wide != need.at // wide:
        return (*kept, need)
    last, pick = kept[-1], max if greatest else min
    merged = Extreme(
        at=need.at,
        load=pick(last.load, need.load),
        level=pick(last.level, need.level),
        slope=pick(last.slope, need.slope),
        replicas=pick(last.replicas, need.replicas),
    )
    return (*kept[:-1], merged)
