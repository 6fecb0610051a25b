"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from agent_runtime.observability import logging as runtime_logging

pytest_plugins = ["tests.support.results"]

# Nothing is timed in a test: machines are noisy, and a slow example is not a wrong one.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture(autouse=True)
def no_secrets_of_others(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A secret that one test made known must not be cut out of another's log."""
    monkeypatch.setattr(runtime_logging, "_secrets", ())
    yield
