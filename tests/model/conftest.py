"""Fixtures of the model tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.training import trained


@pytest.fixture(scope="session")
def geography() -> Path:
    """The real example model; about a minute the first time."""
    return trained()
