"""Names that dashboards, alerts and log pipelines of other people rely on."""

from __future__ import annotations

import re

import pytest

from tests.support.kubectl import ROOT

GOLDEN = (ROOT / "tests/unit/observability/metrics.golden").read_text().splitlines()
FAMILIAR = (
    "workqueue_depth gauge",
    "workqueue_adds_total counter",
    "workqueue_queue_duration_seconds histogram",
    "workqueue_work_duration_seconds histogram",
    "workqueue_retries_total counter",
    "workqueue_unfinished_work_seconds gauge",
    "workqueue_longest_running_processor_seconds gauge",
    "rest_client_requests_total counter",
    "agentoperator_reconcile_total counter",
    "agentoperator_reconcile_errors_total counter",
    "agentoperator_reconcile_time_seconds histogram",
    "agentoperator_active_workers gauge",
    "leader_election_master_status gauge",
)


@pytest.mark.parametrize("metric", FAMILIAR)
def test_a_metric_that_operators_have_by_custom_is_on_the_golden_list(metric: str) -> None:
    assert metric in [" ".join(line.split()[:2]) for line in GOLDEN]


def test_names_say_their_unit_and_counters_end_in_total() -> None:
    for line in GOLDEN:
        name, kind, _ = line.split()
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert (kind == "counter") == name.endswith("_total"), line
        if kind == "histogram":
            assert name.endswith("_seconds"), line
