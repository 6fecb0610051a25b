"""What the chart runs: the operator's Deployment, its disruption budget, its Service, the install check."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from typing import Any

import pytest

from agent_operator.api import AgentDeploymentSpec, parse_model_uri
from agent_operator.core.children.metadata import Owner
from agent_operator.core.children.pod import pod_template
from agent_operator.settings import PREFIX, Settings, load_settings
from tests.chart.rendering import CHART, Object, Rendered

Render = Callable[..., Rendered]


def pod_of(rendered: Rendered) -> dict[str, Any]:
    return dict(rendered.one("Deployment")["spec"]["template"]["spec"])


def violations_of_restricted(pod: dict[str, Any]) -> list[str]:
    """What the restricted Pod Security Standard (v1.37) would refuse in a pod's spec."""
    found = [f"{field} is set" for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field)]
    own = pod.get("securityContext", {})
    if own.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        found.append("no seccomp profile")
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim",
               "projected", "secret", "name"}  # fmt: skip
    found += [f"volume {v['name']}" for v in pod.get("volumes", []) if not set(v) <= allowed]
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        context = {**own, **container.get("securityContext", {})}
        if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
            found.append("may run as root")
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            found.append("may gain privileges")
        if context.get("capabilities") != {"drop": ["ALL"]}:
            found.append("keeps capabilities")
        found += ["host port" for port in container.get("ports", []) if "hostPort" in port]
    return found


@pytest.mark.parametrize("rendering", ["defaults", "everything"])
def test_every_pod_of_the_chart_meets_the_restricted_standard_and_has_a_read_only_root(
    rendering: str, request: pytest.FixtureRequest
) -> None:
    rendered: Rendered = request.getfixturevalue(rendering)

    pods = [pod_of(rendered), rendered.one("Pod")["spec"]]

    assert [violations_of_restricted(pod) for pod in pods] == [[], []]
    assert all(c["securityContext"]["readOnlyRootFilesystem"] for pod in pods for c in pod["containers"])


def test_two_replicas_elect_a_leader_and_are_replaced_without_a_gap(defaults: Rendered) -> None:
    spec = defaults.one("Deployment")["spec"]

    assert spec["replicas"] == 2
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    assert defaults.environment()["AGENT_OPERATOR_LEADER_ELECT"] == "true"
    assert defaults.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_replicas_spread_over_nodes_where_they_can(defaults: Rendered) -> None:
    (constraint,) = pod_of(defaults)["topologySpreadConstraints"]

    assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
    assert constraint["topologyKey"] == "kubernetes.io/hostname"
    selector = defaults.one("Deployment")["spec"]["selector"]
    assert constraint["labelSelector"] == selector


def test_a_spread_constraint_keeps_the_selector_its_author_gave_it(everything: Rendered) -> None:
    filled, given = pod_of(everything)["topologySpreadConstraints"]

    assert filled["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == "operator"
    assert given["labelSelector"] == {"matchLabels": {"mine": "yes"}}


def test_probes_resources_and_grace_are_set(defaults: Rendered) -> None:
    pod = pod_of(defaults)
    (container,) = pod["containers"]

    paths = {kind: container[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}

    assert paths == {
        "startupProbe": {"path": "/healthz", "port": "http"},
        "livenessProbe": {"path": "/healthz", "port": "http"},
        "readinessProbe": {"path": "/readyz", "port": "http"},
    }
    assert container["ports"] == [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]
    assert pod["terminationGracePeriodSeconds"] == 30


def test_selectors_of_service_budget_and_deployment_match_the_pods_and_not_the_install_check(
    everything: Rendered,
) -> None:
    deployment = everything.one("Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"].items()

    selectors = [
        deployment["selector"]["matchLabels"],
        everything.one("Service")["spec"]["selector"],
        everything.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        everything.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]

    assert all(selector.items() <= labels for selector in selectors)
    check = everything.one("Pod")["metadata"]["labels"].items()
    assert not any(selector.items() <= check for selector in selectors)


def test_the_service_monitor_selects_the_metrics_service_by_its_port(everything: Rendered) -> None:
    monitor, service = everything.one("ServiceMonitor")["spec"], everything.one("Service")

    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"] == [{"port": "metrics", "path": "/metrics", "interval": "15s"}]
    assert [port["name"] for port in service["spec"]["ports"]] == ["metrics"]


def test_the_pod_monitor_selects_the_pods_of_agents_by_the_port_of_their_metrics(
    everything: Rendered,
) -> None:
    monitor = everything.one("PodMonitor")["spec"]
    spec = AgentDeploymentSpec.model_validate({"model": {"uri": "hf://a/b"}})
    owner, model = Owner("geography", "default", "uid"), parse_model_uri("hf://a/b")
    agent = pod_template(owner, spec, model, "bcdfghjk", "image:1")

    assert monitor["selector"]["matchLabels"].items() <= agent["metadata"]["labels"].items()
    assert set(monitor["podTargetLabels"]) <= agent["metadata"]["labels"].keys()
    (endpoint,) = monitor["podMetricsEndpoints"]
    labels = {rule["targetLabel"]: rule["sourceLabels"] for rule in endpoint.pop("relabelings")}
    assert labels == {
        "namespace": ["__meta_kubernetes_namespace"],
        "pod": ["__meta_kubernetes_pod_name"],
        "agent": ["__meta_kubernetes_pod_label_agentoperator_dev_agent"],
    }
    assert endpoint == {"port": "admin", "path": "/metrics", "interval": "20s"}
    assert endpoint["port"] in [port["name"] for port in agent["spec"]["containers"][0]["ports"]]


@pytest.mark.parametrize(
    ("watched", "scope"), [([], {"any": True}), (["b", "a"], {"matchNames": ["a", "b"]})]
)
def test_the_pod_monitor_looks_where_the_operator_does(
    watched: list[str], scope: Object, render: Render
) -> None:
    monitor = {"podMonitor": {"enabled": True}}
    rendered = render({"watchNamespaces": watched, "runtimeMetrics": monitor})

    assert rendered.one("PodMonitor")["spec"]["namespaceSelector"] == scope


def test_optional_objects_are_absent_until_asked_for(defaults: Rendered) -> None:
    assert defaults.all("ServiceMonitor") == defaults.all("PodMonitor") == []
    assert defaults.all("NetworkPolicy") == []


def test_the_network_policy_lets_in_only_the_scraper_and_the_install_check(everything: Rendered) -> None:
    spec = everything.one("NetworkPolicy")["spec"]

    (rule,) = spec["ingress"]

    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert rule["ports"] == [{"port": 8080, "protocol": "TCP"}]
    check, scraper = rule["from"]
    assert check["podSelector"]["matchLabels"].items() <= everything.one("Pod")["metadata"]["labels"].items()
    assert scraper == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert {port["port"] for out in spec["egress"] for port in out["ports"]} == {53, 6443, 8001, 8082}


@pytest.mark.parametrize(
    ("values", "image", "runtime"),
    [
        ({}, "127.0.0.1:5000/agent-operator/operator:0.1.0", "127.0.0.1:5000/agent-operator/runtime:0.1.0"),
        (
            {"image": {"tag": "0123"}, "runtimeImage": {"tag": "1e3"}},
            "127.0.0.1:5000/agent-operator/operator:0123",
            "127.0.0.1:5000/agent-operator/runtime:1e3",
        ),
        (
            {"global": {"imageRegistry": "mirror.example.com/hub"}, "runtimeImage": {"tag": "9"}},
            "mirror.example.com/hub/agent-operator/operator:0.1.0",
            "mirror.example.com/hub/agent-operator/runtime:9",
        ),
        (
            {"image": {"registry": "", "digest": f"sha256:{'a' * 64}", "tag": "unused"}},
            f"agent-operator/operator@sha256:{'a' * 64}",
            "127.0.0.1:5000/agent-operator/runtime:0.1.0",
        ),
    ],
)
def test_images_are_named_by_registry_repository_and_tag_or_digest(
    values: Object, image: str, runtime: str, render: Render
) -> None:
    rendered = render(values)

    assert pod_of(rendered)["containers"][0]["image"] == image
    assert rendered.one("Pod")["spec"]["containers"][0]["image"] == image
    assert rendered.environment()["AGENT_OPERATOR_RUNTIME_IMAGE"] == runtime


def test_the_operator_accepts_what_the_chart_tells_it(defaults: Rendered, everything: Rendered) -> None:
    plain = load_settings([], defaults.environment())
    full = load_settings(pod_of(everything)["containers"][0]["args"], everything.environment())

    assert plain == Settings(
        runtime_image="127.0.0.1:5000/agent-operator/runtime:0.1.0",
        lease_namespace="agent-operator-system",
        gateway_service="agent-operator-gateway",
    )
    assert full == Settings(
        runtime_image="mirror.example.com:8443/cache/agent-operator/runtime:12",
        lease_namespace="agent-operator-system",
        lease_name="agents",
        log_level="warning",
        workers=12,
        resync_seconds=120,
        gateway_service="agents-gateway",
        keda_enabled=True,
        keda_prometheus_address="http://prometheus.monitoring.svc:9090",
    )


def test_every_setting_the_chart_sets_exists_in_the_operator(everything: Rendered) -> None:
    given = {name.removeprefix(PREFIX) for name in everything.environment() if name.startswith(PREFIX)}

    assert given
    assert given <= {name.upper() for name in Settings.model_fields}


def test_extra_environment_and_the_pods_identity_reach_the_operator(everything: Rendered) -> None:
    environment = everything.environment()

    assert environment["HTTPS_PROXY"] == "http://proxy.example.com:3128"
    assert json.loads(environment["POD_NAME"]) == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert json.loads(environment["POD_NAMESPACE"]) == {"fieldRef": {"fieldPath": "metadata.namespace"}}


def test_no_environment_variable_is_set_twice(everything: Rendered) -> None:
    names = [item["name"] for item in pod_of(everything)["containers"][0]["env"]]

    assert len(names) == len(set(names))


def test_placement_and_metadata_are_passed_through(everything: Rendered) -> None:
    template = everything.one("Deployment")["spec"]["template"]
    pod = template["spec"]

    assert pod["priorityClassName"] == "important"
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", "node-role.kubernetes.io/control-plane": ""}
    assert pod["tolerations"][0]["effect"] == "NoSchedule"
    assert "nodeAffinity" in pod["affinity"]
    assert pod["imagePullSecrets"] == [{"name": "shared"}, {"name": "own"}]
    assert pod["containers"][0]["args"] == ["--log-level", "warning"]
    assert pod["containers"][0]["resources"]["limits"] == {"cpu": 2, "memory": "256Mi"}
    assert template["metadata"]["annotations"] == {"example.com/scrape": "true"}
    assert template["metadata"]["labels"]["example.com/tier"] == "control"
    assert template["metadata"]["labels"]["app.kubernetes.io/name"] == "agent-operator"


def test_a_single_operator_without_a_lease_is_never_two_during_an_update(render: Render) -> None:
    rendered = render({"replicaCount": 1, "leaderElection": {"enabled": False}})

    assert rendered.one("Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    assert rendered.environment()["AGENT_OPERATOR_LEADER_ELECT"] == "false"


def test_the_budget_can_be_left_out(render: Render) -> None:
    left = render({"podDisruptionBudget": {"enabled": False}, "gateway": {"enabled": False}})

    assert left.all("PodDisruptionBudget") == []


def test_the_install_check_runs_the_committed_script_as_a_test_hook(defaults: Rendered) -> None:
    pod = defaults.one("Pod")
    (container,) = pod["spec"]["containers"]

    script = container["args"][0]

    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert container["command"] == ["python", "-c"]
    assert ast.dump(ast.parse(script)) == ast.dump(ast.parse((CHART / "files/check_install.py").read_text()))
    service = defaults.one("Service")
    address = f"http://{service['metadata']['name']}.{service['metadata']['namespace']}.svc:8080"
    assert {"name": "OPERATOR_URL", "value": address} in container["env"]
