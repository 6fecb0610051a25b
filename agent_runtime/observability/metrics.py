"""The runtime's metrics. Layer: observability; prometheus-client, and the names in `metric_table`.

The one idea: what is counted is told here in the words of what happened (`ended`, `tool_called`); how it is
called outside, and that no label grows without bound, is decided once. Any thread may call, except that
`next_token` belongs to the event loop, and `started` and `stepped` to the engine's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from agent_runtime.observability import log_output
from agent_runtime.observability import metric_table as names
from agent_runtime.observability.gpu import Gpu, GpuReader
from agent_runtime.observability.hot import HotHistogram
from agent_runtime.observability.process import ProcessReader, ProcessUse
from agent_runtime.observability.tracing import PROVIDER
from agent_runtime.state import State
from agent_runtime.stats import LoadFacts

disable_created_metrics()

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SCRAPED = frozenset(
    {names.LOG_LOST, names.MEMORY_LIMIT, names.GPU_MEMORY, names.GPU_MEMORY_USED, names.GPU_USE}
)
_HOT = frozenset(
    {
        names.INTER_TOKEN, names.PER_OUTPUT_TOKEN, names.ITERATION_TOKENS, names.STEP_SECONDS,
        names.BATCH_ROWS,
    }
)  # fmt: skip
_TABLE = {metric.name: metric for metric in names.TABLE}


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self, model_name: str, tools: Iterable[str] = (), gpus: GpuReader | None = None) -> None:
        """`tools` are the configured tools' names; calls of others are counted as "other"."""
        self.registry = CollectorRegistry()
        self._model = model_name
        self._tools = frozenset(tools)
        self._all: dict[str, Any] = {
            metric.name: _make(metric, self.registry)
            for metric in names.TABLE
            if metric.name not in _SCRAPED | _HOT
        }
        self._mine: dict[str, Any] = {
            metric.name: self._all[metric.name].labels(model_name)
            for metric in names.TABLE
            if metric.name in self._all and metric.labels == ("model_name",)
        }
        self._inter_token = self._hot(names.INTER_TOKEN, names.PER_OUTPUT_TOKEN)
        self._iteration = self._hot(names.ITERATION_TOKENS)
        self._step_seconds = self._hot(names.STEP_SECONDS)
        self._batch_rows = self._hot(names.BATCH_ROWS)
        self._preset()
        ProcessCollector(registry=self.registry)
        self.registry.register(_Scraped(ProcessReader().read, (gpus or GpuReader()).read))

    def _hot(self, *wanted: str) -> HotHistogram:
        histogram = HotHistogram([_TABLE[name] for name in wanted], self._model)
        self.registry.register(histogram)
        return histogram

    def _preset(self) -> None:
        """Series that dashboards and alerts expect from the first scrape on."""
        for reason in sorted(names.FINISH_REASONS):
            self._all[names.SUCCESS].labels(self._model, reason)
        for reason in ("failure", "out_of_memory"):
            self._all[names.RECOMPUTED].labels(self._model, reason)
        for outcome in sorted(names.RUN_OUTCOMES):
            self._all[names.RUNS].labels(outcome)

    def tools_are(self, tools: Iterable[str]) -> None:
        """The tools' names, once a server has told them."""
        self._tools = frozenset(tools)

    # ------------------------------------------------------------ requests

    def load(self, now: LoadFacts) -> None:
        """What is going on; call it before `render`."""
        self._mine[names.RUNNING].set(now.running)
        self._mine[names.WAITING].set(now.waiting)
        used = now.rows / now.rows_possible if now.rows_possible else 0.0
        self._mine[names.CACHE_USAGE].set(min(1.0, used))

    def cache_config(self, row_tokens: int, rows: int) -> None:
        """Most tokens of a row and rows possible; replaces what was said before."""
        info = self._all[names.CACHE_CONFIG]
        info.clear()
        info.labels(self._model, str(row_tokens), str(rows)).set(1)

    def first_token(self, seconds: float, prompt_tokens: int) -> None:
        """A request got its first piece, `seconds` after it arrived."""
        self._mine[names.FIRST_TOKEN].observe(seconds)
        self._mine[names.PROMPT_TOKENS].inc(prompt_tokens)

    def next_tokens(self, seconds: float, tokens: int) -> None:
        """A request got so many further tokens, each so long after the one before."""
        self._inter_token.observe(seconds, tokens)

    def generated(self, tokens: int) -> None:
        """Tokens that no engine step of this process made: a remote model's."""
        self._mine[names.GENERATION_TOKENS].inc(tokens)

    def request_phases(self, queued: float, prefill: float, decode: float, latency: float) -> None:
        """Where an answered request's seconds went."""
        self._mine[names.LATENCY].observe(latency)
        self._mine[names.QUEUE_TIME].observe(queued)
        self._mine[names.PREFILL_TIME].observe(prefill)
        self._mine[names.DECODE_TIME].observe(decode)
        self._mine[names.INFERENCE_TIME].observe(prefill + decode)

    def request_tokens(self, prompt_tokens: int, generated_tokens: int, operation: str) -> None:
        """What an answered request read and generated."""
        self._mine[names.REQUEST_PROMPT_TOKENS].observe(prompt_tokens)
        self._mine[names.REQUEST_GENERATION_TOKENS].observe(generated_tokens)
        usage = self._all[names.OTEL_USAGE]
        usage.labels(operation, PROVIDER, self._model, "input").observe(prompt_tokens)
        usage.labels(operation, PROVIDER, self._model, "output").observe(generated_tokens)

    def answered(self, operation: str, first_token: float, per_token: float | None) -> None:
        """A successful answer's seconds to its first token, and per token after it where known."""
        labels = (operation, PROVIDER, self._model)
        self._all[names.OTEL_FIRST_TOKEN].labels(*labels).observe(first_token)
        if per_token is not None:
            self._all[names.OTEL_PER_TOKEN].labels(*labels).observe(per_token)

    def ended(self, operation: str, reason: str | None, latency: float, code: str = "") -> None:
        """A request ended, by its finish reason, `abort` or `error`, or None when it was never begun; `code`
        is the error's."""
        if reason is not None:
            self._all[names.SUCCESS].labels(self._model, _known(reason, names.FINISH_REASONS)).inc()
        error = _known(code, names.CODES) if code else ""
        self._all[names.OTEL_DURATION].labels(operation, PROVIDER, self._model, error).observe(latency)

    def refused(self, code: str) -> None:
        """One answer was an error of this code."""
        self._all[names.REFUSED].labels(self._model, _known(code, names.CODES)).inc()

    # ------------------------------------------------------------ engine

    def steps_are(self, steps: int) -> None:
        """The engine's steps so far."""
        self._mine[names.STEPS].set(steps)

    def started(self, rows: int, positions: int, padded: int, seconds: float) -> None:
        """Prompts of a batch were read: their real positions, and those computed with the padding."""
        self._mine[names.START_SECONDS].observe(seconds)
        self._iteration.observe(positions)
        if padded > 0:
            self._mine[names.PADDING].observe(max(0.0, 1.0 - positions / padded))

    def stepped(self, rows: int, seconds: float) -> None:
        """Each of so many rows made one token."""
        self._step_seconds.observe(seconds)
        self._batch_rows.observe(rows)
        self._iteration.observe(rows)
        self._mine[names.GENERATION_TOKENS].inc(rows)

    def recomputed(self, rows: int, out_of_memory: bool) -> None:
        """A step failed and its rows are computed again."""
        reason = "out_of_memory" if out_of_memory else "failure"
        self._all[names.RECOMPUTED].labels(self._model, reason).inc(rows)
        if out_of_memory:
            self._mine[names.MEMORY_SPLITS].inc()
            self._mine[names.PREEMPTIONS].inc(rows)

    def restarted(self) -> None:
        """The engine's thread was replaced."""
        self._mine[names.RESTARTS].inc()

    def scored(self, candidates: int, seconds: float) -> None:
        """Candidates were scored in one pass."""
        self._mine[names.SCORED].inc(candidates)
        self._mine[names.SCORE_SECONDS].observe(seconds)

    # ------------------------------------------------------------ agent

    def run_ended(self, agent: str, outcome: str, steps: int, seconds: float) -> None:
        """An agent run ended."""
        known = _known(outcome, names.RUN_OUTCOMES)
        self._all[names.RUNS].labels(known).inc()
        self._all[names.RUN_STEPS].observe(steps)
        error = "" if outcome == "completed" else known
        self._all[names.OTEL_AGENT_DURATION].labels(agent, error).observe(seconds)

    def approval_requested(self) -> None:
        """A tool call waits for somebody's approval from now on."""
        self._all[names.APPROVALS_REQUESTED].inc()

    def runs_are(self, live: int, awaiting_approval: int) -> None:
        """Agent runs that have not ended, and calls that wait for approval."""
        self._all[names.RUNS_LIVE].set(live)
        self._all[names.APPROVALS].set(awaiting_approval)

    def tool_called(self, tool: str, outcome: str, seconds: float) -> None:
        """A tool call and what came of it."""
        name, known = _known(tool, self._tools), _known(outcome, names.TOOL_OUTCOMES)
        self._all[names.TOOL_CALLS].labels(name, known).inc()
        error = "" if outcome == "ok" else known
        self._all[names.OTEL_TOOL_DURATION].labels(name, error).observe(seconds)

    def decided(self, policy: str, abstained: bool, entropy: float) -> None:
        """A decision by this policy, over a distribution of this entropy in nats."""
        self._all[names.DECISIONS].labels(_known(policy, names.POLICIES), str(abstained).lower()).inc()
        self._all[names.ENTROPY].observe(entropy)

    # ------------------------------------------------------------ process

    def entered(self, state: State) -> None:
        """The runtime is in this state now."""
        for other in State:
            self._all[names.STATE].labels(other.value).set(1 if other is state else 0)

    def loaded(self, phase: str, seconds: float) -> None:
        """A phase of start-up ended."""
        self._all[names.LOAD_SECONDS].labels(phase).set(seconds)

    def parameters_changed(self, result: str) -> None:
        """A change of parameters was tried."""
        self._all[names.PARAMETER_CHANGES].labels(result).inc()

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)


def _make(metric: names.Metric, registry: CollectorRegistry) -> Any:
    if metric.kind == "gauge":
        return Gauge(metric.name, metric.help, metric.labels, registry=registry)
    if metric.kind == "counter":
        return Counter(metric.name, metric.help, metric.labels, registry=registry)
    return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets)


def _known(value: str, allowed: frozenset[str]) -> str:
    return value if value in allowed else names.OTHER


class _Scraped(Collector):
    """Figures that others keep, read when scraped."""

    def __init__(self, use: Callable[[], ProcessUse], gpus: Callable[[], tuple[Gpu, ...]]) -> None:
        self._use, self._gpus = use, gpus

    def collect(self) -> Iterable[Family]:
        lost = CounterMetricFamily(names.LOG_LOST, _TABLE[names.LOG_LOST].help, labels=["reason"])
        for reason in ("queue_full", "write_failed"):
            lost.add_metric([reason], log_output.lost[reason])
        limit = GaugeMetricFamily(names.MEMORY_LIMIT, _TABLE[names.MEMORY_LIMIT].help)
        if (found := self._use().memory_limit_bytes) is not None:
            limit.add_metric([], found)
        used, total, busy = (
            GaugeMetricFamily(name, _TABLE[name].help, labels=["gpu"])
            for name in (names.GPU_MEMORY_USED, names.GPU_MEMORY, names.GPU_USE)
        )
        for gpu in self._gpus():
            used.add_metric([str(gpu.index)], gpu.memory_used)
            total.add_metric([str(gpu.index)], gpu.memory_total)
            if gpu.utilization is not None:
                busy.add_metric([str(gpu.index)], gpu.utilization)
        return [lost, limit, used, total, busy]
