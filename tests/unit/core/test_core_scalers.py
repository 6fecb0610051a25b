"""Providers HPA and KEDA: what is rendered, who is told what, and that nobody argues about it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from agent_operator.api import AgentDeploymentSpec
from agent_operator.api.autoscaling import Autoscaling
from agent_operator.core.children.hpa import RUNNING, WAITING, cpu_problem, hpa
from agent_operator.core.children.metadata import Owner
from agent_operator.core.children.scaled_object import query, scaled_object
from agent_operator.core.drift import drifted, stamped
from agent_operator.core.plan import Apply, Delete, Plan
from agent_operator.core.snapshot import ApplyFailure, Defaults, Snapshot
from agent_runtime.observability import metric_table
from tests.property.world import UID, World, agent
from tests.support.keda import closed_schema, scaled_object_crd

PROMETHEUS = "http://prometheus.monitoring.svc:9090"
CPU = {"requests": {"cpu": "500m"}}
RECORDED = Path(__file__).parent / "recorded" / "hpa.yaml"
GOLDEN = Path(__file__).parent / "golden"
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "autoscaling-providers.md"
OWNER = Owner("geography", "default", UID)
LONGEST = Owner("a" * 50, "n" * 63, UID)


def scaling(**fields: Any) -> Autoscaling:
    return Autoscaling.model_validate({"maxReplicas": 4, **fields})


class ScaledWorld(World):
    """A world whose agent is scaled by others; `keda` is the Prometheus that KEDA asks, None without KEDA."""

    def __init__(self, *, keda: str | None = PROMETHEUS, **autoscaling: Any) -> None:
        spec = {"maxReplicas": 4, **autoscaling}
        super().__init__(agent(resources=CPU, autoscaling=spec))
        self.keda = keda
        self.blocked: tuple[ApplyFailure, ...] = ()

    def snapshot(self) -> Snapshot:
        return replace(super().snapshot(), defaults=Defaults(self.image, self.keda), blocked=self.blocked)

    def scaler(self, kind: str) -> dict[str, Any]:
        return self.objects[(kind, "geography")]

    def told(self) -> tuple[str, str]:
        condition = self.condition("ScalingActive")
        return condition["status"], condition["reason"]


def done(plan: Plan) -> set[tuple[str, str]]:
    return {
        ("apply", write.object["kind"]) if isinstance(write, Apply) else ("delete", write.kind)
        for write in plan.writes
        if isinstance(write, Apply | Delete)
    }


# What is rendered.


def test_by_cpu_one_metric_that_metrics_server_has() -> None:
    (metric,) = hpa(OWNER, scaling(provider="HPA", targetCPUUtilizationPercent=70))["spec"]["metrics"]

    target = {"type": "Utilization", "averageUtilization": 70}
    assert metric == {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def test_by_requests_the_runtimes_own_gauges_of_those_that_run_and_those_that_wait() -> None:
    metrics = hpa(OWNER, scaling(provider="HPA", targetConcurrency=3))["spec"]["metrics"]

    assert [m["pods"]["metric"]["name"] for m in metrics] == [metric_table.RUNNING, metric_table.WAITING]
    assert {m["pods"]["target"]["averageValue"] for m in metrics} == {"3"}
    assert (RUNNING, WAITING) == (metric_table.RUNNING, metric_table.WAITING)


def test_a_delay_longer_than_the_api_server_admits_is_bounded() -> None:
    behavior = hpa(OWNER, scaling(provider="HPA", scaleDownDelaySeconds=86_400))["spec"]["behavior"]

    assert behavior["scaleDown"] == {"stabilizationWindowSeconds": 3600}


@pytest.mark.parametrize(
    "recorded", list(yaml.safe_load_all(RECORDED.read_text())), ids=lambda o: o["metadata"]["name"]
)
def test_what_the_api_server_makes_of_an_autoscaler_is_no_drift(recorded: dict[str, Any]) -> None:
    fields = {
        "cpu": {"targetCPUUtilizationPercent": 80, "scaleDownDelaySeconds": 86_400},
        "requests": {"targetConcurrency": 2000, "scaleUpDelaySeconds": 30},
    }
    owner = replace(OWNER, name=recorded["metadata"]["name"])
    desired = stamped(hpa(owner, scaling(provider="HPA", **fields[owner.name])))

    assert drifted(desired, recorded) is None
    recorded["spec"]["maxReplicas"] = 40
    assert drifted(desired, recorded) == "spec.maxReplicas"


def test_a_target_changed_by_hand_is_drift_however_it_is_spelt() -> None:
    desired = stamped(hpa(OWNER, scaling(provider="HPA", targetConcurrency=2000)))
    live = deepcopy(desired)
    live["spec"]["metrics"][0]["pods"]["target"]["averageValue"] = "2k"
    assert drifted(desired, live) is None

    live["spec"]["metrics"][1]["pods"]["target"]["averageValue"] = "2001"

    assert drifted(desired, live) == "spec.metrics[1].pods.target.averageValue"


@pytest.mark.parametrize("owner", [OWNER, LONGEST], ids=["usual", "longest names"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"minReplicas": 0, "scaleDownDelaySeconds": 86_400, "scaleUpDelaySeconds": 3600},
        {"targetConcurrency": 4096},
    ],
    ids=["defaults", "to zero, slow", "large target"],
)
def test_a_scaled_object_is_valid_against_kedas_own_crd(owner: Owner, fields: dict[str, Any]) -> None:
    manifest = stamped(scaled_object(owner, scaling(provider="KEDA", **fields), PROMETHEUS))
    validator = Draft202012Validator(closed_schema(scaled_object_crd()))

    assert [error.message for error in validator.iter_errors(manifest)] == []
    manifest["spec"]["triggers"][0]["metdata"] = {}
    assert [error.message for error in validator.iter_errors(manifest)]  # the check can fail
    assert len(f"keda-hpa-{manifest['metadata']['name']}") <= 63  # the autoscaler that KEDA makes of it


def test_one_query_adds_up_what_runs_waits_and_is_held_for_one_agent() -> None:
    assert query(OWNER) == (
        'sum({__name__=~"vllm:num_requests_running|vllm:num_requests_waiting|'
        'agentoperator_gateway_held_requests",namespace="default",agent="geography"})'
    )


# What a pod must have to be measured.


@pytest.mark.parametrize(
    "spec",
    [
        {"resources": CPU},
        {"resources": {"limits": {"cpu": "1"}}},
        {"template": {"spec": {"containers": [{"name": "runtime", "resources": CPU}]}}},
        {"autoscaling": {"provider": "HPA", "maxReplicas": 4}},
        {"autoscaling": None},
        {
            "resources": CPU,
            "template": {"spec": {"initContainers": [{"name": "once", "image": "i"}]}},
        },
    ],
    ids=["request", "limit", "in the template", "by requests", "no scaling", "an init container that ends"],
)
def test_a_cpu_request_is_asked_for_only_where_cpu_is_measured(spec: dict[str, Any]) -> None:
    assert cpu_problem(measured(spec)) is None


@pytest.mark.parametrize(
    ("spec", "container", "remedy"),
    [
        ({}, "runtime", "set spec.resources.requests.cpu"),
        ({"resources": {"requests": {"memory": "1Gi"}}}, "runtime", "set spec.resources.requests.cpu"),
        (
            {"resources": CPU, "template": {"spec": {"containers": [{"name": "proxy", "image": "i"}]}}},
            "proxy",
            "resources.requests.cpu of that container in spec.template",
        ),
        (
            {
                "resources": CPU,
                "template": {
                    "spec": {"initContainers": [{"name": "mesh", "image": "i", "restartPolicy": "Always"}]}
                },
            },
            "mesh",
            "resources.requests.cpu of that container in spec.template",
        ),
    ],
    ids=["nothing", "memory only", "another container", "a sidecar"],
)
def test_a_container_whose_cpu_cannot_be_measured_is_named(
    spec: dict[str, Any], container: str, remedy: str
) -> None:
    problem = cpu_problem(measured(spec))

    assert problem is not None
    assert f"container {container} has no cpu request" in problem
    assert remedy in problem


def measured(spec: dict[str, Any]) -> AgentDeploymentSpec:
    by_cpu = {"provider": "HPA", "maxReplicas": 4, "targetCPUUtilizationPercent": 80}
    return AgentDeploymentSpec.model_validate(
        {
            "model": {"uri": "hf://a/b"},
            "autoscaling": by_cpu,
            **{k: v for k, v in spec.items() if v is not None},
        }
        if spec.get("autoscaling", 1) is not None
        else {"model": {"uri": "hf://a/b"}}
    )


def test_a_spec_that_cannot_be_measured_is_refused_and_the_field_is_named() -> None:
    world = World(agent(autoscaling={"provider": "HPA", "maxReplicas": 2, "targetCPUUtilizationPercent": 80}))

    assert world.step().writes == ()

    message = world.condition("Stalled")["message"]
    assert "spec.autoscaling.targetCPUUtilizationPercent" in message
    assert "spec.resources.requests.cpu" in message


# Who writes what, and what the status tells.


@pytest.mark.parametrize(("provider", "kind"), [("HPA", "HorizontalPodAutoscaler"), ("KEDA", "ScaledObject")])
def test_the_scaler_is_made_kept_and_told_of(provider: str, kind: str) -> None:
    world = ScaledWorld(provider=provider)

    assert ("apply", kind) in done(world.step())
    world.settle()

    assert world.told() == ("True", "ExternalScaler")
    assert "between 1 and 4" in world.condition("ScalingActive")["message"]
    target = {"apiVersion": "agentoperator.dev/v1alpha1", "kind": "AgentDeployment", "name": "geography"}
    assert world.scaler(kind)["spec"]["scaleTargetRef"] == target
    world.remove(kind, "geography")
    assert done(world.plan()) == {("apply", kind)}


def test_the_number_of_another_scaler_is_followed_and_never_written() -> None:
    world = ScaledWorld(provider="HPA")
    world.settle()

    world.change(replicas=3)
    plans = world.settle()

    (deployment,) = [o for (kind, _), o in world.objects.items() if kind == "Deployment"]
    assert deployment["spec"]["replicas"] == 3
    written = {write.object["kind"] for plan in plans for write in plan.writes if isinstance(write, Apply)}
    assert "AgentDeployment" not in written


@pytest.mark.parametrize(("old", "new"), [("HPA", "KEDA"), ("KEDA", "HPA")])
def test_another_provider_gets_its_scaler_only_when_the_old_one_is_gone(old: str, new: str) -> None:
    kinds = {"HPA": "HorizontalPodAutoscaler", "KEDA": "ScaledObject"}
    world = ScaledWorld(provider=old)
    world.settle()
    world.change(autoscaling={"maxReplicas": 4, "provider": new})

    assert done(world.step()) == {("delete", kinds[old])}
    assert world.told() == ("False", "Progressing")
    world.settle()

    assert {kind for kind, _ in world.objects} & set(kinds.values()) == {kinds[new]}
    assert world.told() == ("True", "ExternalScaler")


@pytest.mark.parametrize("provider", ["HPA", "KEDA"])
@pytest.mark.parametrize("after", [None, {"maxReplicas": 4}], ids=["no scaling", "native"])
def test_a_scaler_goes_when_nobody_asks_for_it(provider: str, after: dict[str, Any] | None) -> None:
    world = ScaledWorld(provider=provider)
    world.settle()
    before = set(world.objects)

    world.change(autoscaling=after)
    world.settle()

    (gone,) = before - set(world.objects) - {("PodDisruptionBudget", "geography")}
    assert gone[0] in ("HorizontalPodAutoscaler", "ScaledObject")
    assert world.condition("ScalingActive")["reason"] != "ExternalScaler"


def test_a_scaler_that_is_being_deleted_is_waited_for() -> None:
    world = ScaledWorld(provider="KEDA")
    world.settle()
    world.scaler("ScaledObject")["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

    world.change(autoscaling={"maxReplicas": 4, "provider": "HPA"})

    assert done(world.step()) == set()
    assert world.told() == ("False", "Progressing")


def test_without_keda_an_agent_serves_with_its_own_number_and_says_how_to_turn_it_on() -> None:
    world = ScaledWorld(provider="KEDA", keda=None)
    world.change(replicas=2)
    world.settle()

    assert world.told() == ("False", "ScalerNotAvailable")
    message = world.condition("ScalingActive")["message"]
    assert "keda.enabled" in message
    assert "keda.prometheusAddress" in message
    assert "spec.replicas decides" in message
    assert ("ScaledObject", "geography") not in world.objects
    (deployment,) = [o for (kind, _), o in world.objects.items() if kind == "Deployment"]
    assert deployment["spec"]["replicas"] == 2


@pytest.mark.parametrize(
    ("kind", "provider", "condition"),
    [("HorizontalPodAutoscaler", "HPA", "ScalingActive"), ("ScaledObject", "KEDA", "Ready")],
)
def test_what_the_scaler_says_of_itself_is_passed_on_in_bounds(
    kind: str, provider: str, condition: str
) -> None:
    world = ScaledWorld(provider=provider)
    world.settle()
    own = {"type": condition, "status": "False", "reason": "FailedGetMetric", "message": "no\nmetrics " * 500}
    world.scaler(kind)["status"] = {"conditions": [own]}
    world.settle()

    assert world.told() == ("False", "FailedGetMetric")
    assert len(world.condition("ScalingActive")["message"]) <= 300
    own["reason"] = "not a word " * 50
    world.settle()
    assert world.told() == ("False", "ScalerNotAvailable")
    own["status"] = "True"
    world.settle()
    assert world.told() == ("True", "ExternalScaler")


def test_a_scaler_that_may_not_be_written_is_told_of() -> None:
    world = ScaledWorld(provider="HPA")
    world.blocked = (ApplyFailure("HorizontalPodAutoscaler", "geography", "Forbidden", "no right to it"),)

    world.step()

    assert world.told() == ("False", "ScalerNotAvailable")
    assert "no right to it" in world.condition("ScalingActive")["message"]


def test_a_drain_is_slowed_down_where_a_scaler_may_ask_for_several_replicas() -> None:
    world = ScaledWorld(provider="HPA")
    world.settle()
    assert ("PodDisruptionBudget", "geography") in world.objects

    world.change(autoscaling={"maxReplicas": 1, "provider": "HPA"}, replicas=1)
    world.settle()

    assert ("PodDisruptionBudget", "geography") not in world.objects


# The document.


@pytest.mark.parametrize(("name", "kind"), [("HPA", "HorizontalPodAutoscaler"), ("KEDA", "ScaledObject")])
def test_the_document_shows_what_is_rendered(name: str, kind: str) -> None:
    shown = DOCUMENT.read_text().split(f"<!-- {name} -->\n```yaml\n")[1].split("```")[0]
    golden = yaml.safe_load_all((GOLDEN / f"{name.lower()}.yaml").read_text())

    assert yaml.safe_load(shown) == next(child for child in golden if child["kind"] == kind)
