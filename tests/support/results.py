"""Records what every test run found, for the conformance page. Layer: tests (a pytest plugin).

The one idea: one small JSON file per test module in .local/test-results, replaced as a whole at the end of
a run, so runs side by side do not disturb each other and a partial run keeps what others found.
`TEST_RESULTS_DIR` names another folder; empty, nothing is recorded.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Result(TypedDict):
    """The last outcome of one test: passed, failed or skipped, and when."""

    outcome: str
    date: str


def folder() -> Path | None:
    """Where results are kept, None when they are not."""
    named = os.environ.get("TEST_RESULTS_DIR")
    if named is None:
        return ROOT / ".local" / "test-results"
    return Path(named) if named else None


def load() -> dict[str, Result]:
    """Every recorded result by node id."""
    where, found = folder(), {}
    for path in sorted(where.glob("*.json")) if where else ():
        found.update(_read(path))
    return found


class Recorder:
    """Collects outcomes during a run."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.known: set[str] = set()

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.known.update(item.nodeid for item in items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.known.update(item.nodeid for item in session.items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test failed if any of its phases did; a failed tear-down is a failure too."""
        before = self.outcomes.get(report.nodeid)
        if report.outcome != "passed" or before is None:
            self.outcomes[report.nodeid] = (
                "failed" if "failed" in (before, report.outcome) else report.outcome
            )

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        where = folder()
        if where is None or session.config.option.collectonly or not self.outcomes:
            return
        whole = not any("::" in argument for argument in session.config.args)
        by_module: dict[str, dict[str, str]] = defaultdict(dict)
        for node, outcome in self.outcomes.items():
            by_module[node.split("::")[0]][node] = outcome
        where.mkdir(parents=True, exist_ok=True)
        date = datetime.now(UTC).strftime("%Y-%m-%d")
        for module, outcomes in by_module.items():
            path = where / (module.removesuffix(".py").replace("/", ".") + ".json")
            kept = {node: r for node, r in _read(path).items() if not whole or node in self.known}
            fresh = {node: Result(outcome=outcome, date=date) for node, outcome in outcomes.items()}
            _replace(path, {**kept, **fresh})


def pytest_configure(config: pytest.Config) -> None:
    """Register the recorder."""
    config.pluginmanager.register(Recorder(), "test-results")


def _read(path: Path) -> dict[str, Result]:
    try:
        found: dict[str, Result] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _replace(path: Path, results: dict[str, Result]) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
        json.dump(dict(sorted(results.items())), file, indent=1)
    Path(file.name).replace(path)
