"""What CLUSTER=kind would hand to kind and Kubernetes, checked without Docker; kind's own parser reads the
config.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from local_cluster import components, kind, node
from local_cluster.paths import REGISTRY, Paths

KIND = "sigs.k8s.io/kind@v0.33.0"
IMAGE_WITH_HOST = re.compile(r"[a-z0-9.-]+(:\d+)?/[a-z0-9._/-]+(:[\w.-]+|@sha256:[0-9a-f]{64})")


def manifest() -> dict[str, Any]:
    return dict(yaml.safe_load(kind.GPU_MANIFEST.read_text()))


@pytest.fixture(scope="session")
def kind_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """kind itself, built from its module."""
    folder = tmp_path_factory.mktemp("kind")
    go, _ = components.find_go(Paths.from_environment().cache)
    environment = {
        **os.environ,
        "GOBIN": str(folder),
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
    }
    subprocess.run([go, "install", KIND], env=environment, cwd=folder, check=True, capture_output=True)
    return folder / "kind"


def create(kind_binary: Path, configuration: Path) -> str:
    """What kind says to a config on a machine without Docker: it reads and validates the config first."""
    done = subprocess.run(
        [kind_binary, "create", "cluster", "--config", configuration],
        env={"PATH": "/nowhere", "HOME": "/nowhere", "KIND_EXPERIMENTAL_PROVIDER": "docker"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode
    return done.stderr


def test_kind_accepts_the_configuration_and_stops_only_for_want_of_docker(kind_binary: Path) -> None:
    said = create(kind_binary, kind.CONFIGURATION)

    assert "failed to get docker info" in said
    assert "config" not in said


def test_kind_would_name_a_field_it_does_not_know(kind_binary: Path, tmp_path: Path) -> None:
    broken = tmp_path / "kind.yaml"
    broken.write_text(kind.CONFIGURATION.read_text().replace("podSubnet:", "podSubnets:"))

    assert "podSubnets" in create(kind_binary, broken)


def test_the_configuration_names_the_cluster_the_driver_works_on() -> None:
    configuration = yaml.safe_load(kind.CONFIGURATION.read_text())

    assert configuration["name"] == kind.CLUSTER
    assert [n["role"] for n in configuration["nodes"]] == ["control-plane"]
    assert configuration["nodes"][0]["labels"] == node.LABELS


def test_the_gpus_are_the_same_as_on_the_embedded_node() -> None:
    arguments = manifest()["spec"]["template"]["spec"]["containers"][0]["args"]

    assert f"--resource={node.GPU_RESOURCE}" in arguments
    assert f"--devices={','.join(node.GPUS)}" in arguments


def test_every_image_names_its_registry_and_the_plugins_is_the_one_that_is_loaded() -> None:
    image = manifest()["spec"]["template"]["spec"]["containers"][0]["image"]

    assert image == kind.GPU_IMAGE
    for name in (image, kind.REGISTRY_IMAGE):
        assert IMAGE_WITH_HOST.fullmatch(name)


def test_the_node_is_told_to_pull_from_the_registrys_container() -> None:
    hosts = kind.registry_hosts()

    assert f'server = "http://{REGISTRY}"' in hosts
    assert f'[host."http://{kind.REGISTRY_CONTAINER}:5000"]' in hosts
