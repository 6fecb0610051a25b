"""What an agent's pods are made of: probes, resources, replacement, devices, disruptions."""

from __future__ import annotations

from typing import Any

import pytest

from agent_operator.api.crd import root_schema
from tests.property.world import World, agent

RESOURCES = {
    "gpu": {"count": 2},
    "requests": {"cpu": "500m", "memory": "8Gi"},
    "limits": {"memory": "16Gi"},
}


def children(**spec: Any) -> dict[str, dict[str, Any]]:
    """The children of a new agent by kind."""
    world = World(agent(**spec))
    world.settle()
    return {kind: obj for (kind, _), obj in world.objects.items()}


def pod_of(**spec: Any) -> dict[str, Any]:
    return dict(children(**spec)["Deployment"]["spec"]["template"]["spec"])


def test_the_container_has_three_probes_of_different_endpoints() -> None:
    (container,) = pod_of()["containers"]
    probes = [container[kind] for kind in ("startupProbe", "readinessProbe", "livenessProbe")]

    assert len({probe["httpGet"]["path"] for probe in probes}) == 3
    named = {port["name"] for port in container["ports"]}
    assert {probe["httpGet"]["port"] for probe in probes} <= named
    startup = probes[0]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 1800  # loading a model takes its time


def test_a_hung_engine_is_found_within_ten_seconds_of_its_stall_and_a_late_answer_is_no_hang() -> None:
    (container,) = pod_of()["containers"]
    live, ready = container["livenessProbe"], container["readinessProbe"]

    # A refusal is answered at once, so the last of them comes so long after the stall:
    assert live["periodSeconds"] * live["failureThreshold"] < 10
    assert (
        ready["periodSeconds"] * ready["failureThreshold"] < live["periodSeconds"] * live["failureThreshold"]
    )
    # Without any answer, as from a server that is short of CPU, so long passes first:
    assert live["timeoutSeconds"] * live["failureThreshold"] >= 30
    assert live["failureThreshold"] >= 3


def test_no_slow_start_is_ended_before_its_deadline() -> None:
    for deadline in (None, 30, 7200):
        health = {} if deadline is None else {"health": {"startupDeadlineSeconds": deadline}}
        (container,) = pod_of(**health)["containers"]
        startup = container["startupProbe"]

        assert startup["periodSeconds"] * startup["failureThreshold"] >= (deadline or 1800)
        assert startup.get("successThreshold", 1) == 1


def test_requests_and_limits_are_those_asked_for() -> None:
    (container,) = pod_of(resources=RESOURCES)["containers"]

    assert container["resources"]["limits"] == {"memory": "16Gi", "nvidia.com/gpu": "2"}
    assert container["resources"]["requests"] == {"cpu": "500m", "memory": "8Gi", "nvidia.com/gpu": "2"}


def test_within_a_revision_a_new_pod_is_ready_before_an_old_one_goes() -> None:
    spec = children()["Deployment"]["spec"]

    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    pod = spec["template"]["spec"]
    sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert 0 < sleep < pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize(("replicas", "budgets"), [(0, 0), (1, 0), (2, 1), (5, 1)])
def test_a_disruption_budget_exists_where_more_than_one_replica_is_wanted(
    replicas: int, budgets: int
) -> None:
    found = children(replicas=replicas)

    assert ("PodDisruptionBudget" in found) == bool(budgets)
    if budgets:
        spec = found["PodDisruptionBudget"]["spec"]
        labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()
        assert spec["maxUnavailable"] == 1
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_devices_are_whole_numbers() -> None:
    gpu = root_schema()["properties"]["spec"]["properties"]["resources"]["properties"]["gpu"]

    assert gpu["properties"]["count"]["type"] == "integer"
    assert gpu["properties"]["count"]["minimum"] >= 0


def test_a_pod_with_devices_tolerates_the_taint_of_their_nodes_and_one_without_does_not() -> None:
    assert pod_of(resources=RESOURCES)["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert "tolerations" not in pod_of()


def test_replicas_spread_over_nodes_where_they_can() -> None:
    (constraint,) = pod_of()["topologySpreadConstraints"]

    assert constraint["topologyKey"] == "kubernetes.io/hostname"
    assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"


def test_selector_affinity_and_priority_are_the_users() -> None:
    asked = {
        "nodeSelector": {"nvidia.com/gpu.product": "H100"},
        "priorityClassName": "important",
        "affinity": {"podAntiAffinity": {}},
    }

    pod = pod_of(template={"spec": asked})

    assert {field: pod[field] for field in asked} == asked
