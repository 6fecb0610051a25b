"""The CRD travels with the chart unchanged, is upgradable, and outlives the release by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART, LOADER, ROOT, Rendered

Render = Callable[..., Rendered]
NAME = "agentoperator.dev_agentdeployments.yaml"


@pytest.fixture(scope="module")
def source() -> dict[str, Any]:
    """The CRD as the chart carries it."""
    return dict(yaml.load((CHART / "files" / NAME).read_text(), LOADER))


def test_the_charts_copy_is_byte_for_byte_the_generated_crd() -> None:
    assert (CHART / "files" / NAME).read_bytes() == (ROOT / "crds" / NAME).read_bytes()


def test_rendering_adds_labels_and_the_keep_annotation_and_changes_nothing_else(
    defaults: Rendered, source: dict[str, Any]
) -> None:
    rendered = defaults.one("CustomResourceDefinition")

    assert rendered["spec"] == source["spec"]
    assert source["metadata"].keys() == {"name"}  # what the template relies on when it inserts the rest
    assert rendered["metadata"].keys() == {"name", "labels", "annotations"}
    assert rendered["metadata"]["name"] == source["metadata"]["name"]
    assert rendered["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert rendered["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


def test_the_crd_goes_with_the_release_when_it_is_not_kept(render: Render) -> None:
    assert "annotations" not in render({"crds": {"keep": False}}).one("CustomResourceDefinition")["metadata"]


def test_the_crd_can_be_left_to_somebody_else(render: Render) -> None:
    assert render({"crds": {"install": False}}).all("CustomResourceDefinition") == []


def test_the_crd_is_a_template_because_helm_never_upgrades_its_crds_folder() -> None:
    assert not (CHART / "crds").exists()
