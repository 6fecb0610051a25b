"""The metrics are an interface: dashboards and alerts name them, so the list is pinned."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import generate_latest

from agent_operator.observability.metrics import LOAD, Measured, Metrics

GOLDEN = Path(__file__).with_name("metrics.golden")


def exposed() -> list[str]:
    metrics = Metrics()
    metrics.set_build_info("1.2.3")
    metrics.count_agents_with(lambda: {("True", "Serving"): 2, ("False", "ModelNotFound"): 1})
    metrics.measure_agents_with(lambda: [Measured("default", "geography", dict.fromkeys(LOAD, 1.0))])
    metrics.started({"load": 1.0})
    metrics.leader.labels("agent-operator").set(1)
    metrics.cached.labels("Pod").set(1)
    metrics.events.labels("posted").inc()
    metrics.writes.labels("apply", "Service").inc()
    metrics.requests.labels("200", "GET", "host").inc()
    metrics.request_seconds.labels("GET", "host").observe(1)
    names = set()
    for family in metrics.registry.collect():
        if family.name.startswith("process_"):
            continue  # depends on the platform
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        name = family.name + ("_total" if family.type == "counter" else "")
        names.add(f"{name} {family.type} {','.join(labels) or '-'}")
    return sorted(names)


def test_names_types_and_labels_are_as_published() -> None:
    assert exposed() == GOLDEN.read_text().splitlines()


def test_agents_are_counted_when_scraped() -> None:
    metrics = Metrics()
    counts = {("True", "Serving"): 2}
    metrics.count_agents_with(lambda: counts)
    assert (
        'agentoperator_agents{ready="True",reason="Serving"} 2.0'
        in generate_latest(metrics.registry).decode()
    )
    counts["False", "ModelNotFound"] = 1
    text = generate_latest(metrics.registry).decode()
    assert 'agentoperator_agents{ready="False",reason="ModelNotFound"} 1.0' in text


def test_two_operators_in_one_process_do_not_share_metrics() -> None:
    one, other = Metrics(), Metrics()
    one.reconcile_errors.inc()
    labels = {"controller": "agentdeployment"}
    assert other.registry.get_sample_value("agentoperator_reconcile_errors_total", labels) == 0
