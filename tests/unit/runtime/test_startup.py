"""Every second of a start is in one phase."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.startup import Startup

PHASES = ("start", "fetch", "load", "warmup", "agent")
PARTS = ("resolve", "import", "download", "check", "tokenizer", "weights", "device")
seconds = st.floats(0, 1e4)


def started(
    before: float, parts: dict[str, float], beside: float, warm: float, agent: float
) -> dict[str, float]:
    """What a start tells that took so long: before the loader, in its parts, in it beside them, after it."""
    now = 50.0
    told: dict[str, float] = {}
    startup = Startup(now, told.__setitem__, lambda: now)
    now += before
    startup.configured()
    for name, took in parts.items():
        now += took
        startup.part(name, took)
    now += beside
    startup.loaded()
    now += warm
    startup.warmed(0.1)
    now += agent
    startup.ready()
    return told


def test_imports_are_the_start_and_the_hub_is_the_fetch() -> None:
    parts = {name: float(10**number) for number, name in enumerate(PARTS)}

    told = started(2.0, parts, 3.0, 4.0, 5.0)

    assert {name: told[name] for name in PHASES} == pytest.approx(
        {"start": 12.0, "fetch": 101.0, "load": 1_111_003.0, "warmup": 4.0, "agent": 5.0}
    )
    assert {name: told[name] for name in PARTS} == parts
    assert told["first_token"] == 0.1


@given(seconds, st.dictionaries(st.sampled_from(PARTS), seconds), seconds, seconds, seconds)
def test_the_phases_sum_up_to_ready_whatever_happened(
    before: float, parts: dict[str, float], beside: float, warm: float, agent: float
) -> None:
    told = started(before, parts, beside, warm, agent)

    assert all(told[name] >= 0 for name in PHASES)
    assert sum(told[name] for name in PHASES) == pytest.approx(told["ready"], abs=1e-6)


def test_where_nothing_was_warmed_there_is_no_first_token() -> None:
    told: dict[str, float] = {}
    startup = Startup(0.0, told.__setitem__, lambda: 1.0)
    startup.configured()
    startup.loaded()

    startup.warmed(None)

    assert "first_token" not in told and told["warmup"] == 0.0
