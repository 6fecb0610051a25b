"""The autoscalers that are compared: ours, a model of the HPA, a model of Knative's KPA. Layer: tooling.

The one idea: the peers are modelled from their documentation and sources, with their defaults, and where the
model must choose it chooses in their favour.

HPA v2 (kubernetes.io, Horizontal Pod Autoscaling; pkg/controller/podautoscaler): a look each 15 s; no change
within 10 % of the target; up by 100 % or 4 pods in 15 s, whichever is more; down to the greatest number of
the last 300 s; pods that are not ready count as idle when more are wanted; no scaling to zero. The metric is
what a Prometheus adapter gives: scraped each 15 s and one scrape old (in practice 15 to 60 s).

KPA (knative.dev, KPA-specific settings; knative/serving pkg/autoscaler/scaling/autoscaler.go and the
config-autoscaler defaults): a look each 2 s; means over 60 s and, in panic, 6 s; panic begins when twice the
ready pods are needed (and at the start, if it finds more than one) and ends 60 s after that was last so, and
is never scaled down in; at most halved in one look; to zero 30 s (the grace period) after nothing was seen
for a whole window. The target is 70 % of the slots; ours and the HPA are given the same target.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, floor

from agent_operator.core.autoscale import EMPTY, Capacity, Observation, Policy, observe, recommend
from bench.scaling.agent import Autoscaler, Machine, Sight, Trace

TARGET_SHARE = 0.7
EPOCH = 1_700_000_000.0


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison."""

    name: str
    title: str
    make: Callable[[Trace, Machine], Autoscaler]


class Ours:
    """The operator's decision, fed one sample a second."""

    tick = 1.0

    def __init__(self, policy: Policy, lead: float) -> None:
        self.policy, self.lead = policy, lead
        self.memory = EMPTY

    def look(self, sight: Sight) -> int:
        """Observes and recommends. Nothing is known to be ready: what waits is held by the gateway."""
        at = EPOCH + sight.at
        seen = Observation(
            at=at,
            concurrency=sight.running + (sight.waiting if sight.ready else 0),
            held=0 if sight.ready else sight.waiting,
            queued_tokens=0,
            p95_seconds=None,
            ready=sight.ready,
            answered=sight.ready,
        )
        self.memory = observe(self.memory, seen, self.policy)
        now = datetime.fromtimestamp(at, UTC)
        return recommend(self.memory, self.policy, sight.replicas, Capacity(), self.lead, now).desired


class Hpa:
    """A model of the Horizontal Pod Autoscaler, autoscaling/v2."""

    tick = 15.0
    tolerance = 0.1
    stabilization = 300.0
    delay = 1
    """Scrapes that the metric is old."""

    def __init__(self, target: float, min_replicas: int, max_replicas: int) -> None:
        self.target, self.least, self.most = target, max(1, min_replicas), max_replicas
        self._scrapes: deque[float] = deque(maxlen=self.delay + 1)
        self._recommended: deque[tuple[float, int]] = deque()

    def look(self, sight: Sight) -> int:
        """One sync. A controller that begins takes the number it finds as its first recommendation."""
        if not self._recommended:
            self._recommended.append((sight.at, sight.replicas))
        self._scrapes.append(float(sight.running + sight.waiting))
        bounded = min(self.most, max(self.least, self._proposed(self._scrapes[0], sight)))
        self._recommended.append((sight.at, bounded))
        while self._recommended[0][0] < sight.at - self.stabilization:
            self._recommended.popleft()
        current = sight.replicas
        if bounded > current:
            return min(bounded, max(2 * current, current + 4))
        return min(current, max(number for _, number in self._recommended))

    def _proposed(self, load: float, sight: Sight) -> int:
        if sight.ready == 0:
            return sight.replicas
        ratio = load / sight.ready / self.target
        if ratio > 1 and sight.replicas > sight.ready:
            ratio = load / sight.replicas / self.target
            if ratio < 1 + self.tolerance:
                return sight.replicas
            return ceil(load / self.target)
        if abs(ratio - 1) <= self.tolerance:
            return sight.replicas
        return ceil(ratio * sight.ready)


class Kpa:
    """A model of the Knative Pod Autoscaler."""

    tick = 1.0
    look_seconds = 2.0
    stable, panic = 60, 6
    panic_threshold = 2.0
    grace = 30.0

    def __init__(self, target: float, min_replicas: int, max_replicas: int) -> None:
        self.target, self.least, self.most = target, min_replicas, max_replicas
        self._seconds: deque[float] = deque(maxlen=self.stable)
        self._panicked: float | None = None
        self._greatest = 0
        self._idle_since: float | None = None

    def look(self, sight: Sight) -> int:
        """One sample each second, a decision each two; at zero the activator wakes it at once."""
        if not self._seconds and sight.ready > 1:
            self._panicked, self._greatest = sight.at, sight.ready
        self._seconds.append(float(sight.running + sight.waiting))
        woken = sight.replicas == 0 and sight.waiting > 0
        if not woken and sight.at % self.look_seconds >= self.tick:
            return sight.replicas
        wanted = self._wanted(sight.at, max(1, sight.ready))
        wanted = min(self.most, max(self.least, wanted))
        if wanted > 0:
            self._idle_since = None
            return wanted
        if self._idle_since is None:
            self._idle_since = sight.at
        if sight.at - self._idle_since < self.grace:
            return min(1, sight.replicas)
        return 0

    def _wanted(self, at: float, ready: int) -> int:
        seconds = list(self._seconds)
        lowest = floor(ready / 2)
        recent = seconds[-self.panic :]
        needed = ceil(sum(recent) / len(recent) / self.target)
        calm = max(lowest, ceil(sum(seconds) / len(seconds) / self.target))
        hasty = max(lowest, needed)
        if needed / ready >= self.panic_threshold:
            self._panicked = at
        elif self._panicked is not None and self._panicked + self.stable < at:
            self._panicked, self._greatest = None, 0
        if self._panicked is None:
            return calm
        self._greatest = max(self._greatest, calm, hasty)
        return self._greatest


def _ours(scale_down_delay: float) -> Callable[[Trace, Machine], Autoscaler]:
    def make(trace: Trace, machine: Machine) -> Autoscaler:
        policy = Policy(
            min_replicas=trace.min_replicas,
            max_replicas=machine.max_replicas,
            target_concurrency=TARGET_SHARE * machine.slots,
            scale_down_delay_seconds=scale_down_delay,
        )
        return Ours(policy, machine.cold_start)

    return make


SIDES = (
    Side("ours", "Agent Operator", _ours(60)),
    Side("ours-300", "Agent Operator, scaleDownDelaySeconds: 300", _ours(300)),
    Side(
        "hpa",
        "HPA (model)",
        lambda trace, machine: Hpa(TARGET_SHARE * machine.slots, trace.min_replicas, machine.max_replicas),
    ),
    Side(
        "kpa",
        "Knative KPA (model)",
        lambda trace, machine: Kpa(TARGET_SHARE * machine.slots, trace.min_replicas, machine.max_replicas),
    ),
)
