"""The number of replicas, from what is remembered. Layer: core, pure.

The one idea: every signal proposes a number and the greatest wins. More is asked for at once; fewer only
when the whole delay before now would have been content with fewer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from agent_operator.core.autoscale import schedule
from agent_operator.core.autoscale.memory import SILENCE_SECONDS, Extreme, Memory, replicas_for
from agent_operator.core.autoscale.model import Capacity, Limit, Policy, Recommendation
from agent_operator.core.autoscale.signals import Signals

LOOKAHEAD_SECONDS = 600.0
"""The farthest that a trend is followed."""
GROWTH = 2.0
"""The most by which a trend multiplies the load of now."""
SURE_MEAN = 1.5
"""Standard errors by which the mean has to be above what the replicas carry."""
_MISSING: Limit = "SignalsMissing"


@dataclass(frozen=True, slots=True)
class _Proposal:
    replicas: int
    why: str


def recommend(  # noqa: PLR0917
    memory: Memory,
    policy: Policy,
    current: int,
    capacity: Capacity,
    lead_seconds: float,
    now: datetime,
) -> Recommendation:
    """How many replicas to ask for.

    `current` is the number asked for now, `lead_seconds` what a new replica needs until it serves (0:
    unknown), `now` an aware time.
    """
    at = now.timestamp()
    signals = memory.signals
    panic = memory.panic_until is not None and at <= memory.panic_until
    limit: Limit = ""
    again: float | None = None
    if memory.asked is not None:
        found = _Proposal(memory.asked, f"{_replicas(memory.asked)} asked for by hand")
        again = policy.scale_down_delay_seconds
    elif signals is None or memory.heard is None or at - memory.heard > SILENCE_SECONDS:
        found, limit = (
            _Proposal(current, f"no answer from the replicas; the number stays at {current}"),
            _MISSING,
        )
    else:
        need = max(_proposals(memory, signals, policy, current, lead_seconds, panic=panic), key=_rank)
        if need.replicas > current:
            found, again = _delayed_rise(need, memory, policy, current, at, panic=panic)
        else:
            found, again = _delayed_fall(need, memory, policy, current, lead_seconds, at, panic=panic)
    number, why, limit = _bounded(found, limit, policy, capacity, current, now)
    edge = schedule.next_edge(policy.windows, now)
    waits = [again] if again is not None else []
    waits += [(edge - now).total_seconds()] if edge is not None else []
    soonest = max(0.0, min(waits)) if waits else None
    return Recommendation(number, why, limit, panic, soonest)


def _rank(proposal: _Proposal) -> int:
    return proposal.replicas


def _proposals(
    memory: Memory, signals: Signals, policy: Policy, current: int, lead: float, *, panic: bool
) -> Iterator[_Proposal]:
    """What each signal asks for; the first of the greatest is the reason."""
    each = policy.target_concurrency
    window = f"over the last {policy.stable_seconds:g} s"
    in_flight = "held" if memory.ready == 0 and signals.latest > 0 else "in flight"
    if memory.ready == 0 and signals.latest > 0:
        # Nobody answers: what is held is there until somebody does, so it is no noise.
        yield _carried(signals.latest, f"{_count(signals.latest)} held now", each, policy, current)
    yield _carried(
        signals.mean,
        f"{_count(signals.mean)} {in_flight} {window}",
        each,
        policy,
        current,
        noise=signals.noise,
    )
    if signals.fast > signals.mean:
        text = f"{_count(signals.fast)} {in_flight} now, {signals.mean:.3g} {window}"
        yield _carried(signals.fast, text, each, policy, current)
    if panic:
        text = f"{_count(memory.panic_load)} in flight at the height of a burst"
        yield _carried(memory.panic_load, text, each, policy, current)
    ahead = _forecast(signals.level, signals.slope, lead, signals.mean)
    if ahead > signals.mean and not _backlog(memory, signals, policy):
        text = f"{_count(ahead)} in flight expected in {lead:.0f} s, when a new replica would serve"
        yield _carried(ahead, text, each, policy, current, noise=signals.noise)
    if policy.target_queued_tokens:
        text = f"{signals.tokens:.0f} prompt tokens waiting"
        yield _carried(signals.tokens, text, policy.target_queued_tokens, policy, current)
    if memory.by_latency and memory.p95 is not None:
        text = f"p95 is {memory.p95:.3g} s, {policy.target_p95_seconds:g} s is wanted, {memory.ready} ready"
        yield _Proposal(memory.by_latency, f"{text}: {_replicas(memory.by_latency)}")


def _carried(
    load: float, text: str, each: float, policy: Policy, current: int, *, noise: float = 0.0
) -> _Proposal:
    """The replicas that a load needs; what the current ones carry within the tolerance needs no more.

    What chance adds to the mean of a small load is tolerated, too: it is gone before a new replica serves.
    """
    need = replicas_for(load, each)
    carried = current * each
    if need > current > 0 and load <= carried + max(carried * policy.tolerance, SURE_MEAN * noise):
        return _Proposal(current, f"{text}, {each:g} for each replica: {current} carry it within tolerance")
    return _Proposal(need, f"{text}, {each:g} for each replica: {_replicas(need)}")


def _forecast(level: float, slope: float, lead: float, mean: float) -> float:
    """The load when a replica that is asked for now will serve; 0 without a rise."""
    if slope <= 0 or lead <= 0:
        return 0.0
    return min(level + slope * min(lead, LOOKAHEAD_SECONDS), GROWTH * max(level, mean))


def _backlog(memory: Memory, signals: Signals, policy: Policy) -> bool:
    """Whether requests pile up before too few ready replicas: that rise is no trend of the demand."""
    return signals.fast > policy.panic_threshold * max(1, memory.ready) * policy.target_concurrency


def _delayed_rise(
    need: _Proposal, memory: Memory, policy: Policy, current: int, at: float, *, panic: bool
) -> tuple[_Proposal, float | None]:
    """The need, as far as it lasted for the scale-up delay. From zero and in panic there is no delay."""
    delay = policy.scale_up_delay_seconds
    if delay <= 0 or current == 0 or panic:
        return need, policy.scale_down_delay_seconds
    recent = [one for one in memory.floors if one.at + delay >= at]
    least = min((_need_of(one, policy, 0.0) for one in recent), default=0)
    since = memory.since if memory.since is not None else at
    if at - since >= delay and least > current:
        return _Proposal(min(need.replicas, least), need.why), policy.scale_down_delay_seconds
    why = f"{need.why}, if it lasts for {delay:g} s; {current} until then"
    return _Proposal(current, why), max(0.0, delay - (at - since)) or delay


def _delayed_fall(  # noqa: PLR0917
    need: _Proposal, memory: Memory, policy: Policy, current: int, lead: float, at: float, *, panic: bool
) -> tuple[_Proposal, float | None]:
    """The need, but no less than what the last scale-down delay needed; nothing less in panic."""
    delay = policy.scale_down_delay_seconds
    if need.replicas == current:
        return need, None
    if panic and memory.panic_until is not None:
        why = f"{need.why}; {current} are kept while the burst lasts"
        return _Proposal(current, why), memory.panic_until - at
    seen = at - (memory.since if memory.since is not None else at)
    if seen < delay:
        why = f"{need.why}; {current} are kept until {delay:g} s were observed, {seen:.0f} s so far"
        return _Proposal(current, why), delay - seen
    recent = [one for one in memory.peaks if one.at + delay >= at]
    kept = max((_need_of(one, policy, lead) for one in recent), default=0)
    if kept <= need.replicas:
        return need, None
    blocking = [one.at for one in recent if _need_of(one, policy, lead) >= min(kept, current)]
    number = min(kept, current)
    why = f"{need.why}; {number} are kept, the last {delay:g} s needed {_replicas(kept)}"
    return _Proposal(number, why), max(blocking) + delay - at


def _need_of(one: Extreme, policy: Policy, lead: float) -> int:
    load = max(one.load, _forecast(one.level, one.slope, lead, one.load))
    return max(replicas_for(load, policy.target_concurrency), one.replicas)


def _bounded(  # noqa: PLR0917
    found: _Proposal, limit: Limit, policy: Policy, capacity: Capacity, current: int, now: datetime
) -> tuple[int, str, Limit]:
    """The number within what the policy, the schedules and the cluster allow, why, and what limits it."""
    number, why = found.replicas, found.why
    scheduled, window = schedule.minimum(policy.windows, now)
    if number < scheduled and scheduled > policy.min_replicas:
        number, limit, why = scheduled, limit or "Schedule", f"{why}; schedule {window} keeps {scheduled}"
    if number < policy.min_replicas:
        number, limit = policy.min_replicas, limit or "MinReplicas"
        why += f"; minReplicas is {number}"
    if number > policy.max_replicas:
        number, limit = policy.max_replicas, limit or "MaxReplicas"
        why += f"; maxReplicas is {number}"
    because = f": {capacity.why}" if capacity.why else ""
    if capacity.fits is not None and number > capacity.fits:
        number, limit = max(0, capacity.fits), "Capacity"
        why += f"; no more than {number} fit in the cluster{because}"
    if capacity.free is not None and number > current + max(0, capacity.free):
        number, limit = current + max(0, capacity.free), "Capacity"
        why += f"; {max(0, capacity.free)} more can be placed now{because}"
    return number, why, limit


def _replicas(number: int) -> str:
    return "1 replica" if number == 1 else f"{number} replicas"


def _count(load: float) -> str:
    return "1 request" if load == 1 else f"{load:.3g} requests"
