"""The chart's package page and the Dockerfiles, as a catalogue and a scanner read them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from agent_operator.api.crd import custom_resource_definition
from tests.support.kubectl import ROOT

CHART = yaml.safe_load((ROOT / "charts/agent-operator/Chart.yaml").read_text())
ANNOTATIONS: dict[str, str] = CHART["annotations"]
DOCKERFILES = [ROOT / "images" / name / "Dockerfile" for name in ("operator", "runtime")]
LEVELS = ("Basic Install", "Seamless Upgrades", "Full Lifecycle", "Deep Insights", "Auto Pilot")


def test_the_package_page_lists_the_resources_that_the_crd_serves() -> None:
    spec = custom_resource_definition()["spec"]

    listed = [
        (item["kind"], item["version"], item["name"])
        for item in yaml.safe_load(ANNOTATIONS["artifacthub.io/crds"])
    ]

    name = f"{spec['names']['plural']}.{spec['group']}"
    assert listed == [(spec["names"]["kind"], version["name"], name) for version in spec["versions"]]


def test_the_package_page_tells_licence_level_changes_and_the_kubernetes_it_needs() -> None:
    assert ANNOTATIONS["artifacthub.io/license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert ANNOTATIONS["artifacthub.io/operator"] == "true"
    assert ANNOTATIONS["artifacthub.io/operatorCapabilities"] in LEVELS
    assert re.fullmatch(r">=1\.\d+\.0-0", CHART["kubeVersion"])
    kinds = {"added", "changed", "deprecated", "removed", "fixed", "security"}
    changes = yaml.safe_load(ANNOTATIONS["artifacthub.io/changes"])
    assert changes
    assert all(change["kind"] in kinds and change["description"] for change in changes)


def final_stage(dockerfile: Path) -> str:
    return re.split(r"^FROM .*$", dockerfile.read_text(), flags=re.M)[-1]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_an_image_is_slim_and_runs_as_a_numbered_user_that_is_not_root(dockerfile: Path) -> None:
    text = dockerfile.read_text()

    assert re.search(r"^ARG BASE_IMAGE=\S+:\S+-slim$", text, re.M)
    users = re.findall(r"^USER (\d+):(\d+)$", final_stage(dockerfile), re.M)
    assert len(users) == 1
    assert "0" not in users[0]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_what_an_image_installs_is_pinned_by_hash(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    requirements = (ROOT / "requirements" / f"{dockerfile.parent.name}.txt").read_text()

    assert "--require-hashes -r /requirements.txt" in text
    pinned = re.findall(r"^[a-z0-9][\w.-]*(?:\[[\w,-]+\])?==\S+", requirements, re.M)
    assert len(pinned) > 5
    named = re.findall(r"^[a-z0-9][^\n]*", requirements, re.M)
    assert len(pinned) == len(named), "a requirement without an exact version"


def test_no_secret_or_build_setting_stays_in_an_image() -> None:
    for dockerfile in DOCKERFILES:
        for name in re.findall(r"^ENV (.*(?:\\\n.*)*)", dockerfile.read_text(), re.M):
            assert not re.search(r"PIP_|SSL_CERT|TOKEN|PASSWORD", name)
