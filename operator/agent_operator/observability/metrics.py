"""Every metric the operator exposes. Layer: observability; imports prometheus-client only.

The one idea: names follow client-go and controller-runtime where they have one, so existing dashboards
and alerts fit; ours start with `agentoperator_`. A golden test pins the list.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

disable_created_metrics()

QUEUE_NAME = "agentdeployment"
CONTROLLER_NAME = "agentdeployment"

_QUEUE_BUCKETS = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 60.0, 600.0)
_RECONCILE_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_START_BUCKETS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1800.0)
_REQUEST_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)


class Metrics:
    """One set of metrics in its own registry, so tests and processes never share state."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._build_queue_metrics(registry)
        self._build_reconcile_metrics(registry)
        self.requests = Counter(
            "rest_client_requests_total", "HTTP requests to the API server.",
            ["code", "method", "host"], registry=registry,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "rest_client_request_duration_seconds", "Latency of requests, to the response headers.",
            ["verb", "host"], registry=registry, buckets=_REQUEST_BUCKETS,
        )  # fmt: skip
        self.leader = Gauge(
            "leader_election_master_status", "1 when this process holds the lease.", ["name"],
            registry=registry,
        )  # fmt: skip
        self.events = Counter(
            "agentoperator_events_total", "Kubernetes Events by what became of them.", ["result"],
            registry=registry,
        )  # fmt: skip
        self.cached = Gauge(
            "agentoperator_cached_objects", "Objects in the cache.", ["kind"], registry=registry
        )
        self.tasks = Gauge(
            "agentoperator_tasks", "Tasks of the event loop: a leak shows here first.", registry=registry
        )
        self._build_signal_metrics(registry)
        ProcessCollector(registry=registry)

    def _build_signal_metrics(self, registry: CollectorRegistry) -> None:
        self.samples = Counter(
            "agentoperator_samples_total", "Questions to replicas, by what came of them.", ["result"],
            registry=registry,
        )  # fmt: skip
        for result in ("answered", "silent", "strange"):
            self.samples.labels(result)
        self.start_seconds = Histogram(
            "agentoperator_replica_start_seconds", "Time of each phase of a replica's start.", ["phase"],
            registry=registry, buckets=_START_BUCKETS,
        )  # fmt: skip

    def started(self, phases: Mapping[str, float]) -> None:
        """A replica has started; seconds by phase."""
        for phase, seconds in phases.items():
            self.start_seconds.labels(phase).observe(seconds)

    def _build_queue_metrics(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, ["name"], registry=registry).labels(QUEUE_NAME)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, ["name"], registry=registry).labels(QUEUE_NAME)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(name, text, ["name"], registry=registry, buckets=_QUEUE_BUCKETS).labels(
                QUEUE_NAME
            )

        self.queue_depth = gauge("workqueue_depth", "Keys ready and not yet taken.")
        self.queue_adds = counter("workqueue_adds_total", "Keys added, after de-duplication.")
        self.queue_seconds = histogram("workqueue_queue_duration_seconds", "Time a key waits, when ready.")
        self.work_seconds = histogram("workqueue_work_duration_seconds", "Time a key is worked on.")
        self.queue_retries = counter("workqueue_retries_total", "Keys added again with backoff.")
        self.queue_unfinished = gauge(
            "workqueue_unfinished_work_seconds", "Sum of the ages of the work in progress."
        )
        self.queue_longest = gauge(
            "workqueue_longest_running_processor_seconds", "Age of the oldest work in progress."
        )

    def _build_reconcile_metrics(self, registry: CollectorRegistry) -> None:
        labels = ["controller"]
        self.reconciles = Counter(
            "agentoperator_reconcile_total", "Reconciles by result.", ["controller", "result"],
            registry=registry,
        )  # fmt: skip
        self.reconcile_errors = Counter(
            "agentoperator_reconcile_errors_total", "Reconciles that raised.", labels, registry=registry
        ).labels(CONTROLLER_NAME)
        self.reconcile_seconds = Histogram(
            "agentoperator_reconcile_time_seconds", "Duration of one reconcile.",
            labels, registry=registry, buckets=_RECONCILE_BUCKETS,
        ).labels(CONTROLLER_NAME)  # fmt: skip
        self.active_workers = Gauge(
            "agentoperator_active_workers", "Workers reconciling now.", labels, registry=registry
        ).labels(CONTROLLER_NAME)
        self.writes = Counter(
            "agentoperator_writes_total", "Objects written to the API server.", ["verb", "kind"],
            registry=registry,
        )  # fmt: skip
        for result in ("success", "requeue", "requeue_after", "error", "terminal"):
            self.reconciles.labels(CONTROLLER_NAME, result)

    def set_build_info(self, version: str) -> None:
        """Expose the operator's and Python's version."""
        info = Gauge(
            "agentoperator_build_info", "Always 1; the version is in the labels.", ["version", "python"],
            registry=self.registry,
        )  # fmt: skip
        info.labels(version, platform.python_version()).set(1)

    def count_agents_with(self, count: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Count AgentDeployments by (status, reason) of Ready, when scraped and not before."""
        self.registry.register(_AgentCollector(count))

    def measure_agents_with(self, measure: Callable[[], Iterable[Measured]]) -> None:
        """Expose what is known of every agent's load, when scraped and not before."""
        self.registry.register(_LoadCollector(measure))


class Measured(NamedTuple):
    """One agent's numbers, all replicas together."""

    namespace: str
    name: str
    values: Mapping[str, float]
    """By the keys of LOAD."""


LOAD: Mapping[str, str] = {
    "replicas_answering": "Ready replicas that answer.",
    "requests_running": "Requests being answered.",
    "requests_waiting": "Requests in the replicas' queues.",
    "requests_held": "Requests that gateways hold.",
    "queued_tokens": "Tokens of the waiting requests.",
    "runs": "Agent runs that have not ended.",
    "tool_waits": "Tool calls that have not come back.",
    "tokens_per_second": "Generated tokens per second.",
    "requests_per_second": "Requests that ended per second.",
    "latency_p95_seconds": "95th percentile of the response time, of the slowest replica.",
    "cpu_seconds": "CPU time of the replicas since they started.",
    "memory_bytes": "Resident memory of the replicas.",
    "gpu_utilization_ratio": "Mean use of the devices.",
    "gpu_memory_bytes": "Device memory in use.",
}
"""What the operator knows of an agent: `agentoperator_agent_` and these."""


class _LoadCollector(Collector):
    """One pass over what is known, at scrape time."""

    def __init__(self, measure: Callable[[], Iterable[Measured]]) -> None:
        self._measure = measure

    def collect(self) -> Iterable[Metric]:
        families = {
            key: GaugeMetricFamily(f"agentoperator_agent_{key}", text, labels=["namespace", "name"])
            for key, text in LOAD.items()
        }
        for measured in self._measure():
            for key, value in measured.values.items():
                families[key].add_metric([measured.namespace, measured.name], value)
        return families.values()


class _AgentCollector(Collector):
    """Counting at scrape time costs nothing per reconcile and can never drift from the cache."""

    def __init__(self, count: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        self._count = count

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "agentoperator_agents", "AgentDeployments by their Ready condition.",
            labels=["ready", "reason"],
        )  # fmt: skip
        for (ready, reason), number in sorted(self._count().items()):
            family.add_metric([ready, reason], number)
        return [family]
