"""Every metric of the gateway. Layer: gateway; imports prometheus-client.

The one idea: the data path counts in plain numbers of its own; they are collected when somebody scrapes, so
a request costs no lock. Of labels there is the agent (`namespace/name`) and small fixed sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from agent_operator.gateway.lane import Lane

PREFIX = "agentoperator_gateway"
OUTCOMES = ("released", "expired", "cancelled", "refused", "unauthorized")
UPSTREAM_ERRORS = ("connect", "closed", "malformed", "declined")

_HOLD_BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class GatewayMetrics:
    """Registers everything in a registry."""

    def __init__(self, registry: CollectorRegistry, lanes: Callable[[], Iterable[Lane]]) -> None:
        self.hold_seconds = Histogram(
            f"{PREFIX}_hold_seconds", "How long a request was held, however its hold ended.", ["agent"],
            registry=registry, buckets=_HOLD_BUCKETS,
        )  # fmt: skip
        registry.register(_Lanes(lanes))

    def waited(self, agent: str, seconds: float) -> None:
        """A hold has ended."""
        self.hold_seconds.labels(agent).observe(seconds)


class _Lanes(Collector):
    def __init__(self, lanes: Callable[[], Iterable[Lane]]) -> None:
        self._lanes = lanes

    def collect(self) -> Iterable[Metric]:
        gauges = {
            "held_requests": ("Requests waiting for a replica.", lambda lane: len(lane.queue)),
            "held_bytes": ("Their heads and bodies.", lambda lane: lane.queue.size),
            "in_flight_requests": ("Requests that replicas are answering.", lambda lane: lane.in_flight),
            "ready_pods": ("Pods that may be given requests.", lambda lane: len(lane.replicas.ready)),
            "client_connections": ("Open connections of clients.", lambda lane: len(lane.clients)),
        }
        lanes = [(lane.route.key, lane) for lane in self._lanes()]
        for name, (text, value) in gauges.items():
            gauge = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=["agent"])
            for key, lane in lanes:
                gauge.add_metric([key], value(lane))
            yield gauge
        yield from self._counters(lanes)

    def _counters(self, lanes: list[tuple[str, Lane]]) -> Iterable[Metric]:
        held = CounterMetricFamily(f"{PREFIX}_held", "Requests that had to wait.", labels=["agent"])
        passed = CounterMetricFamily(f"{PREFIX}_passed", "Requests given to replicas.", labels=["agent"])
        ends = {
            outcome: CounterMetricFamily(f"{PREFIX}_{outcome}", text, labels=["agent"])
            for outcome, text in zip(OUTCOMES, _OUTCOME_WORDS, strict=True)
        }
        errors = CounterMetricFamily(
            f"{PREFIX}_upstream_errors", "Replicas that failed a request, by how.", labels=["agent", "error"]
        )
        for key, lane in lanes:
            held.add_metric([key], lane.queue.total)
            passed.add_metric([key], lane.passed)
            for outcome, family in ends.items():
                family.add_metric([key], lane.outcomes[outcome])
            for error in UPSTREAM_ERRORS:
                errors.add_metric([key, error], lane.upstream_errors[error])
        return [held, passed, *ends.values(), errors]


_OUTCOME_WORDS = (
    "Held requests that a replica took.",
    "Held requests whose deadline passed (503).",
    "Held requests whose client left.",
    "Requests refused with 503: a bound, a stop, unreadable keys.",
    "Requests refused with 401.",
)
