"""Every mistake in a manifest that the schema can see is refused with the path of the field."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.kubectl import Kubectl, KubectlError

Manifest = dict[str, Any]
Build = Callable[..., Manifest]
Create = Callable[[Manifest], subprocess.CompletedProcess[str]]

BAD = yaml.safe_load((Path(__file__).parent / "bad_manifests.yaml").read_text())


def _expand(value: Any) -> Any:
    """`REPEAT n` becomes n letters, so that the table stays readable."""
    if isinstance(value, dict):
        return {key: _expand(item) for key, item in value.items()}
    return "x" * int(value.split()[1]) if isinstance(value, str) and value.startswith("REPEAT ") else value


@pytest.mark.parametrize("case", BAD, ids=[case["id"] for case in BAD])
def test_a_bad_manifest_is_refused_with_the_path_of_the_field(
    case: dict[str, Any], manifest: Build, dry_create: Create
) -> None:
    answer = dry_create(manifest(_expand(case["spec"])))

    assert answer.returncode != 0, "accepted"
    missing = [part for part in case["says"] if part not in answer.stderr]
    assert missing == [], answer.stderr


@pytest.mark.parametrize("name", ["x" * 51, "9lives", "a.b"])
def test_a_name_that_the_service_could_not_take_is_refused(
    name: str, manifest: Build, dry_create: Create
) -> None:
    answer = dry_create(manifest(name=name))

    assert answer.returncode != 0
    assert "metadata.name: Invalid value" in answer.stderr
    assert "at most 50 characters" in answer.stderr


def test_a_spec_is_required(manifest: Build, dry_create: Create) -> None:
    answer = dry_create({key: value for key, value in manifest().items() if key != "spec"})

    assert answer.returncode != 0
    assert "spec: Required value" in answer.stderr


def test_every_mistake_is_reported_at_once(manifest: Build, dry_create: Create) -> None:
    answer = dry_create(
        manifest({"model": {"uri": "nonsense"}, "resources": {"gpu": {"sharing": "TimeSlicing", "count": 3}}})
    )

    assert "spec.model.uri: Invalid value" in answer.stderr
    assert "spec.resources.gpu.count: Invalid value" in answer.stderr


def test_kubectl_apply_refuses_an_unknown_field_with_its_path(manifest: Build, kubectl: Kubectl) -> None:
    with pytest.raises(KubectlError, match=r'strict decoding error: unknown field "spec\.modle"'):
        kubectl.apply(manifest({"modle": {}}, name="misspelt"))
    assert kubectl.get("agentdeployment", "misspelt") is None


def test_a_client_that_asks_for_strict_validation_gets_the_same_refusal(
    manifest: Build, kubectl: Kubectl
) -> None:
    path = f"/apis/agentoperator.dev/v1alpha1/namespaces/{kubectl.namespace}/agentdeployments"

    with pytest.raises(KubectlError, match=r'unknown field \\?"spec\.modle'):
        kubectl.run(
            "create",
            "--raw",
            f"{path}?fieldValidation=Strict&dryRun=All",
            "-f",
            "-",
            stdin=json.dumps(manifest({"modle": {}})),
        )


def test_the_session_store_cannot_be_changed_in_place(manifest: Build, kubectl: Kubectl) -> None:
    name = "sessions"
    redis = {"store": "Redis", "redisUrlSecretRef": {"name": "redis", "key": "url"}}
    kubectl.apply(manifest({"suspend": True, "agent": {"sessions": {"store": "Memory"}}}, name))

    with pytest.raises(
        KubectlError, match=r"spec\.agent\.sessions\.store: Forbidden.*remove agent\.sessions"
    ):
        kubectl.apply(manifest({"suspend": True, "agent": {"sessions": redis}}, name))
    kubectl.apply(manifest({"suspend": True}, name))
    kubectl.apply(manifest({"suspend": True, "agent": {"sessions": redis}}, name))

    stored = kubectl.get("agentdeployment", name)
    assert stored is not None
    assert stored["spec"]["agent"]["sessions"]["store"] == "Redis"
