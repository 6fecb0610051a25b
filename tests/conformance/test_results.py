"""The recorder of results, in a pytest of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.kubectl import ROOT

MODULE = """
import pytest

@pytest.fixture
def torn():
    yield
    raise RuntimeError("torn down badly")

def test_good(): pass
def test_bad(): assert False
def test_torn(torn): pass
def test_skipped(): pytest.skip("not here")
@pytest.mark.parametrize("case", {cases})
def test_cases(case): pass
"""


def run(folder: Path, *arguments: str, cases: str = "[1, 2]") -> dict[str, str]:
    """Outcomes recorded after a run over the module, by the test's name."""
    module = folder / "test_sample.py"
    module.write_text(MODULE.format(cases=cases))
    results = folder / "results"
    environment = {
        **os.environ,
        "TEST_RESULTS_DIR": str(results),
        "PYTHONPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    plugins = (
        "-p",
        "tests.support.results",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        "-c",
        "/dev/null",
    )
    command = [sys.executable, "-m", "pytest", "-q", *plugins, *(arguments or (str(module),))]
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False, timeout=60)
    found = json.loads((results / "test_sample.json").read_text())
    return {node.split("::")[1]: result["outcome"] for node, result in found.items()}


def test_each_outcome_is_recorded_and_a_bad_end_is_a_failure(tmp_path: Path) -> None:
    assert run(tmp_path) == {
        "test_good": "passed",
        "test_bad": "failed",
        "test_torn": "failed",
        "test_skipped": "skipped",
        "test_cases[1]": "passed",
        "test_cases[2]": "passed",
    }


def test_a_partial_run_keeps_the_rest_and_a_whole_one_forgets_what_is_gone(tmp_path: Path) -> None:
    everything = run(tmp_path)
    module = str(tmp_path / "test_sample.py")

    assert run(tmp_path, f"{module}::test_good") == everything
    assert run(tmp_path, module, "-k", "good") == everything
    assert "test_cases[1]" not in run(tmp_path, cases="[2, 3]")
