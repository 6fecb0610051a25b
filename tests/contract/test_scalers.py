"""What the real API server makes of the scalers we render; KEDA's kind by KEDA's own definition."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_operator.api.autoscaling import Autoscaling
from agent_operator.core.children.hpa import hpa
from agent_operator.core.children.metadata import Owner
from agent_operator.core.children.scaled_object import scaled_object
from agent_operator.core.drift import drifted, stamped
from tests.support.keda import NAME, scaled_object_crd
from tests.support.kubectl import Kubectl, KubectlError, kubeconfig, wait_for

PROMETHEUS = "http://prometheus.monitoring.svc:9090"
OWNER = Owner("geography", "", "5d0c3b7e-0000-4000-8000-000000000000")
HPAS: list[dict[str, Any]] = [
    {"targetCPUUtilizationPercent": 80},
    {"targetConcurrency": 2000, "scaleDownDelaySeconds": 86_400, "scaleUpDelaySeconds": 3600},
    {"minReplicas": 1000, "maxReplicas": 1000, "targetCPUUtilizationPercent": 1000},
]
SCALED_OBJECTS: list[dict[str, Any]] = [
    {},
    {"minReplicas": 0, "scaleDownDelaySeconds": 86_400, "targetConcurrency": 4096},
]


def scaling(provider: str, fields: dict[str, Any]) -> Autoscaling:
    return Autoscaling.model_validate({"provider": provider, "maxReplicas": 4, **fields})


def dry_apply(kubectl: Kubectl, document: dict[str, Any], *more: str) -> dict[str, Any]:
    """What server-side apply would store, every field known; nothing is stored."""
    command = ["apply", "--server-side", "--field-manager=agent-operator", "--dry-run=server", "-o", "json"]
    text = kubectl.run(*more, *command, "--validate=strict", "-f", "-", stdin=json.dumps(document))
    return dict(json.loads(text))


@pytest.mark.parametrize("fields", HPAS, ids=["by cpu", "by requests", "at the bounds"])
def test_an_autoscaler_is_admitted_and_its_defaults_are_no_drift(
    fields: dict[str, Any], kubectl: Kubectl
) -> None:
    desired = stamped(hpa(replace(OWNER, namespace=kubectl.namespace), scaling("HPA", fields)))

    stored = dry_apply(kubectl, desired)

    assert drifted(desired, stored) is None
    assert stored["spec"]["behavior"]["scaleUp"]["policies"]  # a default, that is no drift


@pytest.fixture(scope="module")
def keda(crd: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """KEDA's CRD of ScaledObjects on the server; yields a discovery cache of its own.

    Where KEDA is installed, its CRD is used as it is. The user's own cache must not learn of ours.
    """
    cache = tmp_path_factory.mktemp("discovery")
    installed_here = crd.get("crd", NAME) is None
    if installed_here:
        crd.run("create", "-f", "-", stdin=json.dumps(scaled_object_crd()))
        crd.run("wait", "--for=condition=Established", f"crd/{NAME}", "--timeout=60s")
    yield cache
    if installed_here:
        crd.run("delete", "crd", NAME, "--timeout=60s")


@pytest.mark.parametrize("fields", SCALED_OBJECTS, ids=["defaults", "to zero"])
def test_a_scaled_object_is_admitted_by_kedas_crd_and_comes_back_as_it_was(
    fields: dict[str, Any], kubectl: Kubectl, keda: Path
) -> None:
    owner = replace(OWNER, namespace=kubectl.namespace)
    desired = stamped(scaled_object(owner, scaling("KEDA", fields), PROMETHEUS))

    def applied() -> dict[str, Any] | None:
        try:
            return dry_apply(kubectl, desired, "--cache-dir", str(keda))
        except KubectlError as error:
            if "no matches for kind" not in str(error):  # a kind that was just defined is not served at once
                raise
            return None

    stored = wait_for("the API server to serve ScaledObjects", applied, 30)

    assert drifted(desired, stored) is None
    assert stored["spec"] == desired["spec"]


def test_kedas_crd_refuses_what_is_not_valid(kubectl: Kubectl, keda: Path) -> None:
    """So that the test above can fail."""
    owner = replace(OWNER, namespace=kubectl.namespace)
    broken = scaled_object(owner, scaling("KEDA", {}), PROMETHEUS)
    broken["spec"] |= {"minReplicaCount": 5, "cooldown": 1}

    done = subprocess.run(
        [
            "kubectl", "--kubeconfig", kubeconfig(), "-n", kubectl.namespace, "--cache-dir", str(keda),
            "create", "--dry-run=server", "--validate=strict", "-f", "-",
        ],
        input=json.dumps(broken), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode != 0
    assert 'unknown field "spec.cooldown"' in done.stderr
