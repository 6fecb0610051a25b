"""What holds for every soak: it runs only when it is asked for by its marker."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`pytest` without `-m long` leaves the soaks out."""
    if config.getoption("-m") == "long":
        return
    skip = pytest.mark.skip(reason="a soak: make test-long")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(skip)
