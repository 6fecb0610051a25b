"""The chart rendered in the ways most tests look at it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.chart.rendering import Object, Rendered, template


@pytest.fixture(scope="session")
def render() -> Callable[..., Rendered]:
    """Renders the chart with the given values, which must be accepted."""

    def render_with(values: Object | None = None) -> Rendered:
        result = template(values)
        assert result.returncode == 0, result.stderr
        return Rendered(result.stdout)

    return render_with


@pytest.fixture(scope="session")
def refusal() -> Callable[[Object], str]:
    """What helm says about values that must be refused."""

    def refuse(values: Object) -> str:
        result = template(values)
        assert result.returncode != 0, f"accepted: {values}"
        return result.stderr

    return refuse


@pytest.fixture(scope="session")
def defaults(render: Callable[..., Rendered]) -> Rendered:
    """The chart as installed without any values."""
    return render()


@pytest.fixture(scope="session")
def everything(render: Callable[..., Rendered]) -> Rendered:
    """The chart with every optional object and setting turned on."""
    return render(yaml.safe_load((Path(__file__).parent / "everything.yaml").read_text()))
