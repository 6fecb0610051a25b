"""Pages that make claims: each claim must have something behind it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from agent_operator.api.crd import custom_resource_definition
from tests.conformance.markdown import broken, links, tables
from tests.support.kubectl import ROOT

PAGES = ROOT / "docs" / "reference"
VERSIONING = PAGES / "versioning.md"
LEVELS = PAGES / "capability-levels.md"
GAPS = ("Not there: ", "Does not apply: ")
NAMES = ["Basic Install", "Seamless Upgrades", "Full Lifecycle", "Deep Insights", "Auto Pilot"]


def test_the_versioning_document_names_the_versions_that_are_served_and_stored() -> None:
    versions = custom_resource_definition()["spec"]["versions"]

    said = [row[:3] for row in tables(VERSIONING.read_text())["The API"]]

    words = {True: "yes", False: "no"}
    assert said == [[f"`{v['name']}`", words[v["served"]], words[v["storage"]]] for v in versions]


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_no_link_of_a_reference_page_is_broken(page: Path) -> None:
    assert broken(page) == []


def test_every_guiding_question_has_evidence_that_exists_or_says_what_is_missing() -> None:
    levels = tables(LEVELS.read_text())

    assert list(levels) == [f"{number} {name}" for number, name in enumerate(NAMES, 1)]
    for rows in levels.values():
        assert len(rows) >= 5
        for question, evidence in rows:
            assert question.endswith("?")
            assert links(evidence) or evidence.startswith(GAPS), question


def test_the_level_the_chart_claims_is_the_one_the_table_reaches() -> None:
    chart = yaml.safe_load((ROOT / "charts/agent-operator/Chart.yaml").read_text())
    text = LEVELS.read_text()

    reached = ""
    for name, rows in zip(NAMES, tables(text).values(), strict=True):
        if any(evidence.startswith("Not there: ") for _, evidence in rows):
            break
        reached = name

    assert chart["annotations"]["artifacthub.io/operatorCapabilities"] == reached
    assert f"**{reached}**" in text
