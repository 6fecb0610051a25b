"""The table of rows itself: complete, and every proof is a test that exists."""

from __future__ import annotations

import ast
from functools import cache

import pytest

from tests.conformance import report
from tests.conformance.row import Row
from tests.conformance.rows import ROWS
from tests.support.kubectl import ROOT
from tests.support.results import Result

FIRST, *_ = ROWS


@cache
def named_in(path: str) -> frozenset[str]:
    """Names of the test functions of a module, read without importing it; none where there is no file."""
    file = ROOT / path
    tree = ast.parse(file.read_text()) if file.is_file() else ast.Module([], [])
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def exists(proof: str) -> bool:
    path, _, name = proof.partition("::")
    return name in named_in(path) if name else bool(named_in(path))


def test_there_are_forty_six_rows_in_order() -> None:
    assert [row.number for row in ROWS] == list(range(1, 47))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"row {row.number}")
def test_a_row_is_proved_by_tests_that_exist_or_says_why_not(row: Row) -> None:
    assert row.proofs or row.gap
    assert [proof for proof in row.proofs if not exists(proof)] == []
    assert len(set(row.proofs)) == len(row.proofs)


def test_every_module_of_this_folder_proves_a_row() -> None:
    own = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests/conformance").rglob("test_*.py")
        if path.name not in ("test_rows.py", "test_results.py")
    }

    assert own - {proof.partition("::")[0] for row in ROWS for proof in row.proofs} == set()


@pytest.mark.parametrize(
    "proof", ["tests/unit/nowhere/test_gone.py", "tests/conformance/test_rows.py::test_gone"]
)
def test_a_proof_that_was_renamed_would_be_found(proof: str) -> None:
    assert not exists(proof)


def recorded(*outcomes: str) -> dict[str, Result]:
    return {
        f"{FIRST.proofs[number % len(FIRST.proofs)]}[{number}]": Result(
            outcome=outcome, date=f"2026-01-0{number + 1}"
        )
        for number, outcome in enumerate(outcomes)
    }


@pytest.mark.parametrize(
    ("outcomes", "told"),
    [
        ((), ("not run", "")),
        (("passed",), ("1 not run", "2026-01-01")),
        (("passed", "skipped"), ("1 not run", "2026-01-01")),
        (("passed", "passed", "passed"), ("passed", "2026-01-01")),
        (("passed", "passed", "failed"), ("**failed**", "2026-01-03")),
    ],
    ids=str,
)
def test_a_row_has_passed_when_all_its_tests_have(outcomes: tuple[str, ...], told: tuple[str, str]) -> None:
    assert report.outcome(FIRST.proofs, recorded(*outcomes)) == told


def test_the_page_is_compared_without_results_and_with_everything_else() -> None:
    page = report.render({})

    assert report.without_results(page) == report.without_results(report.render(recorded("passed", "failed")))
    assert report.without_results(page) != report.without_results(page.replace(FIRST.item, "another item"))
    assert report.without_results(page) != report.without_results(
        page.replace("test_acceptance", "test_other")
    )
