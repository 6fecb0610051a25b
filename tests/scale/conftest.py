"""What holds for every test with simulated nodes: the operator under test is alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.alone import no_installed_operator


@pytest.fixture(scope="session", autouse=True)
def alone() -> Iterator[None]:
    """No installed operator: it would work on the same agents."""
    with no_installed_operator():
        yield
