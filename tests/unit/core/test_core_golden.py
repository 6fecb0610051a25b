"""The children of every example, as YAML to read. GOLDEN_UPDATE=1 writes them anew."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_operator.core.plan import Apply
from agent_operator.core.reconcile import reconcile
from agent_operator.core.snapshot import Defaults, Snapshot
from tests.property.world import START, UID

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = Path(__file__).parent / "golden"
DEFAULTS = Defaults("registry.example.com/runtime:1", "http://prometheus.monitoring.svc:9090")
INPUTS = sorted([*(ROOT / "examples").glob("*.yaml"), *(GOLDEN / "inputs").glob("*.yaml")])


def load(path: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = yaml.safe_load(path.read_text())
    manifest["metadata"] |= {"namespace": "default", "uid": UID, "generation": 1}
    return manifest


def children(path: Path) -> list[dict[str, Any]]:
    plan = reconcile(Snapshot(load(path), (), (), DEFAULTS), START)
    return [write.object for write in plan.writes if isinstance(write, Apply)]


@pytest.mark.parametrize("path", INPUTS, ids=lambda p: p.stem)
def test_the_children_of_an_example_are_those_of_its_golden_file(path: Path) -> None:
    rendered = yaml.safe_dump_all(children(path), sort_keys=False, width=110, allow_unicode=True)
    golden = GOLDEN / path.name
    if os.environ.get("GOLDEN_UPDATE") == "1":
        golden.write_text(rendered)
    assert golden.exists(), f"no golden file for {path.name}; run with GOLDEN_UPDATE=1 and read it"
    assert rendered == golden.read_text()


def test_no_golden_file_is_left_behind() -> None:
    assert {p.name for p in GOLDEN.glob("*.yaml")} == {p.name for p in INPUTS}


@pytest.mark.parametrize("path", INPUTS, ids=lambda p: p.stem)
def test_every_pod_is_admitted_by_the_restricted_pod_security_standard(path: Path) -> None:
    (deployment,) = [c for c in children(path) if c["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    allowed = {"configMap", "emptyDir", "image", "persistentVolumeClaim", "projected", "secret", "name"}
    assert {key for volume in pod["volumes"] for key in volume} <= allowed
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("path", INPUTS, ids=lambda p: p.stem)
def test_all_children_carry_the_fixed_labels_and_the_controller(path: Path) -> None:
    name = load(path)["metadata"]["name"]
    for child in children(path):
        labels = child["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "agent-runtime"
        assert labels["app.kubernetes.io/managed-by"] == "agent-operator"
        assert labels["app.kubernetes.io/instance"] == labels["agentoperator.dev/agent"] == name
        (owner,) = child["metadata"]["ownerReferences"]
        assert owner["controller"] is owner["blockOwnerDeletion"] is True
        assert owner["uid"] == UID
        assert "agentoperator.dev/applied-hash" in child["metadata"]["annotations"]
