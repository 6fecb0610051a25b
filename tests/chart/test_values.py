"""Values: refused with a message that names them when wrong, all documented, all used."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_operator.api import AgentDeploymentSpec
from agent_operator.api.features import unsupported
from tests.chart.rendering import CHART, ROOT, Object, helm, template

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
EVERYTHING = yaml.safe_load((Path(__file__).parent / "everything.yaml").read_text())


def parts(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, schema) of every value, inner objects before their parents."""
    for key, part in schema.get("properties", {}).items():
        yield from parts(part, f"{path}.{key}".lstrip("."))
        yield f"{path}.{key}".lstrip("."), part


def settable() -> list[str]:
    """Paths of the values a user sets: those that are not mere groups of others."""
    return [path for path, part in parts(SCHEMA) if "properties" not in part]


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_helm_lint_finds_nothing(values: Object) -> None:
    result = helm("lint", str(CHART), "--strict", values=values)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "WARNING" not in result.stdout


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replicas": 3}, "'replicas' not allowed"),
        ({"config": {"loglevel": "info"}}, "'loglevel' not allowed"),
        ({"config": {"logLevel": "verbose"}}, "/config/logLevel"),
        ({"config": {"workers": 0}}, "/config/workers"),
        ({"config": {"workers": "8"}}, "/config/workers"),
        ({"config": {"resyncSeconds": 1}}, "/config/resyncSeconds"),
        ({"replicaCount": 0}, "/replicaCount"),
        ({"image": {"tag": 123456}}, "/image/tag"),
        ({"image": {"tag": "a:b"}}, "/image/tag"),
        ({"image": {"digest": "sha256:abc"}}, "/image/digest"),
        ({"image": {"repository": "operator:1"}}, "/image/repository"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"runtimeImage": {"repository": ""}}, "/runtimeImage/repository"),
        ({"runtimeImage": {"pullPolicy": "Always"}}, "'pullPolicy' not allowed"),
        ({"watchNamespaces": "team-a"}, "/watchNamespaces"),
        ({"watchNamespaces": ["Team_A"]}, "/watchNamespaces/0"),
        ({"watchNamespaces": ["a", "a"]}, "/watchNamespaces"),
        ({"crds": {"install": "yes"}}, "/crds/install"),
        ({"imagePullSecrets": ["plain"]}, "/imagePullSecrets/0"),
        ({"extraEnv": [{"value": "nameless"}]}, "/extraEnv/0"),
        ({"resources": {"limit": {}}}, "'limit' not allowed"),
        ({"podDisruptionBudget": {"maxUnavailable": "half"}}, "/podDisruptionBudget/maxUnavailable"),
        ({"metrics": {"service": {"port": 70000}}}, "/metrics/service/port"),
        ({"runtimeMetrics": {"podMonitor": {"interval": "often"}}}, "/runtimeMetrics/podMonitor/interval"),
        ({"networkPolicy": {"apiServerPorts": []}}, "/networkPolicy/apiServerPorts"),
        ({"keda": {"enabled": True, "prometheusAddress": "prometheus:9090"}}, "/keda/prometheusAddress"),
        ({"keda": {"enabled": True}}, "Set keda.prometheusAddress=http"),
        ({"leaderElection": {"enabled": False}}, "Set leaderElection.enabled=true, or replicaCount=1"),
        ({"extraEnv": [{"name": "AGENT_OPERATOR_WORKERS"}]}, "set the value config.workers instead"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_wrong_value_is_refused_with_its_place(
    values: Object, message: str, refusal: Callable[[Object], str]
) -> None:
    assert message in refusal(values)


def test_an_older_kubernetes_is_refused() -> None:
    result = helm("template", "x", str(CHART), "--kube-version", "1.32.9")

    assert "requires kubeVersion: >=1.33" in result.stderr


def test_a_vendors_build_suffix_does_not_make_kubernetes_older() -> None:
    assert helm("template", "x", str(CHART), "--kube-version", "v1.33.0-gke.1").returncode == 0


def test_the_schema_describes_every_value_and_closes_every_object() -> None:
    described = dict(parts(SCHEMA))

    assert [path for path, part in described.items() if not part.get("description")] == []
    groups = {path: part for path, part in described.items() if "properties" in part}
    assert [path for path, part in groups.items() if part["additionalProperties"]] == ["global"]


def test_every_value_of_the_schema_has_a_default_in_values_yaml() -> None:
    def missing(schema: dict[str, Any], values: Object, path: str) -> Iterator[str]:
        for key, part in schema["properties"].items():
            if key not in values:
                yield f"{path}{key}"
            elif "properties" in part:
                yield from missing(part, values[key], f"{path}{key}.")

    assert list(missing(SCHEMA, VALUES, "")) == []


def test_every_value_is_used_by_a_template() -> None:
    templates = "".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
    passed_whole = ("image.", "runtimeImage.", "resources.", "gateway.resources.")
    leaves = [path for path in settable() if not path.startswith(passed_whole)]

    unused = [path for path in leaves if f".Values.{path}" not in templates]

    assert unused == []


def test_the_readmes_table_shows_every_value_with_its_default() -> None:
    result = subprocess.run(
        [sys.executable, "charts/readme.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr
    readme = (CHART / "README.md").read_text()
    assert [path for path in settable() if f"`{path}`" not in readme] == []


def test_notes_name_the_next_steps_and_warn_before_a_crd_that_would_be_deleted() -> None:
    arguments = ("install", "agent-operator", str(CHART), "--dry-run=client", "--namespace", "ns")

    notes = helm(*arguments, values={"crds": {"keep": False}, "watchNamespaces": ["team-a"]}).stdout

    assert "helm -n ns test agent-operator" in notes
    assert "kubectl apply -n team-a -f -" in notes
    assert "deletes the CRD and with it EVERY AgentDeployment" in notes


def test_the_package_page_names_the_charts_images() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    listed = {
        item["name"]: item["image"] for item in yaml.safe_load(chart["annotations"]["artifacthub.io/images"])
    }

    assert listed == {
        name: f"{VALUES[key]['registry']}/{VALUES[key]['repository']}:{chart['appVersion']}"
        for name, key in (("operator", "image"), ("runtime", "runtimeImage"))
    }


def test_the_example_of_the_package_page_is_a_supported_agent() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    (example,) = yaml.safe_load(chart["annotations"]["artifacthub.io/crdsExamples"])

    assert example["kind"] == "AgentDeployment"
    assert unsupported(AgentDeploymentSpec.model_validate(example["spec"])) == []


def test_the_longest_release_name_still_makes_valid_names() -> None:
    result = helm("template", "a" * 53, str(CHART), "--namespace", "ns")

    objects = [doc for doc in yaml.safe_load_all(result.stdout) if doc]
    services = [doc["metadata"]["name"] for doc in objects if doc["kind"] == "Service"]
    labels = [value for doc in objects for value in doc["metadata"]["labels"].values()]
    assert services
    assert max(len(text) for text in services + labels) <= 63


@pytest.mark.parametrize("path", [path for path, _ in parts(SCHEMA)])
def test_a_value_set_to_null_is_left_out_or_refused_but_never_crashes_the_templates(path: str) -> None:
    values: Any = None
    for key in reversed(path.split(".")):
        values = {key: values}

    result = template(values)

    assert result.returncode == 0 or "missing propert" in result.stderr, result.stderr
