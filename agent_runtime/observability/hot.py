"""A histogram for what happens at every token. Layer: observability; prometheus-client for the exposition.

The one idea: prometheus-client's own histogram takes two microseconds to count a value, most of it in locks
that only several writers need; at every token, that is a few percent of a small model's time. With one
writer, a bisection and an addition are enough.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from agent_runtime.observability.metric_table import Metric


class HotHistogram(Collector):
    """Counts values for one label value; `observe` is for one thread at a time, scraping for any.

    The same counts are exposed under each metric of `metrics`, which have the same buckets.
    """

    def __init__(self, metrics: Sequence[Metric], model_name: str) -> None:
        self._metrics, self._model = tuple(metrics), model_name
        self._bounds = list(metrics[0].buckets)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Counts a value that was seen so many times."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def collect(self) -> Iterable[Family]:
        """The families as they are now."""
        below = list(accumulate(list(self._counts)))
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        for metric in self._metrics:
            family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
            family.add_metric([self._model], list(zip(bounds, below, strict=True)), self._sum)
            yield family

    def describe(self) -> Iterable[Family]:
        """The families, for the registry's check that no name is used twice."""
        return self.collect()
