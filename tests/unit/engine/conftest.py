"""Fixtures of the engine's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.training import trained


@pytest.fixture(scope="session")
def geography() -> Path:
    """The example model; about a minute the first time, then cached."""
    return trained()
