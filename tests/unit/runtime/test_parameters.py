"""A change of parameters is whole or it is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.contract import Parameters
from agent_runtime.parameters import (
    HISTORY,
    InvalidParameterError,
    LiveParameters,
    NotAppliedError,
    NotChangeableError,
    merge_patch,
)


class Part:
    """A part of the runtime that remembers what it took up, and refuses what it is told to."""

    def __init__(self, refuse: int | None = None) -> None:
        self.seen: list[int] = []
        self.refuse = refuse

    def apply(self, new: Parameters) -> None:
        if new.max_concurrency == self.refuse:
            raise RuntimeError("too many rows for this device")
        self.seen.append(new.max_concurrency)


def live(*parts: Part) -> LiveParameters:
    parameters = LiveParameters(Parameters(max_concurrency=16), clock=lambda: 100.0)
    for number, part in enumerate(parts):
        parameters.subscribe(f"part {number}", ["max_concurrency", "max_batch_size"], part.apply)
    return parameters


def test_every_part_takes_up_a_change_in_order() -> None:
    one, other = Part(), Part()
    parameters = live(one, other)

    value = parameters.change({"max_concurrency": 32}, "me")

    assert value.max_concurrency == parameters.value.max_concurrency == 32
    assert one.seen == other.seen == [32]


def test_when_a_part_refuses_those_before_it_get_the_old_value_back() -> None:
    one, two, refuser, never = Part(), Part(), Part(refuse=32), Part()
    parameters = live(one, two, refuser, never)

    with pytest.raises(NotAppliedError, match=r"part 2 refused them: too many rows.*old parameters"):
        parameters.change({"max_concurrency": 32}, "me")

    assert parameters.value.max_concurrency == 16
    assert (one.seen, two.seen, refuser.seen, never.seen) == ([32, 16], [32, 16], [], [])


def test_a_part_that_does_not_take_its_old_value_back_keeps_no_other_from_it() -> None:
    one, stubborn, refuser = Part(), Part(), Part(refuse=32)
    parameters = live(one, stubborn, refuser)
    apply_once = stubborn.apply

    def apply(new: Parameters) -> None:
        if stubborn.seen:
            raise RuntimeError("never again")
        apply_once(new)

    parameters = LiveParameters(Parameters(max_concurrency=16))
    for part, take in ((one, one.apply), (stubborn, apply), (refuser, refuser.apply)):
        parameters.subscribe(type(part).__name__, ["max_concurrency"], take)

    with pytest.raises(NotAppliedError):
        parameters.change({"max_concurrency": 32}, "me")

    assert one.seen == [32, 16]


@pytest.mark.parametrize(
    ("patch", "field"),
    [
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"max_concurrency": 5000}, "max_concurrency"),
        ({"max_concurrency": "32"}, "max_concurrency"),
        ({"max_concurrency": True}, "max_concurrency"),
        ({"max_concurrency": 1.5}, "max_concurrency"),
        ({"max_concurrency": {"a": 1}}, "max_concurrency"),
        ({"request_timeout_seconds": float("nan")}, "request_timeout_seconds"),
        ({"max_concurrency": 8, "surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_value_is_refused_by_name_and_shown_to_nobody(patch: dict[str, Any], field: str) -> None:
    part = Part()
    parameters = live(part)

    with pytest.raises(InvalidParameterError) as refused:
        parameters.change(patch, "me")

    assert refused.value.field == field
    assert part.seen == [] and parameters.value.max_concurrency == 16 and parameters.history == ()


def test_a_parameter_nobody_takes_up_cannot_be_changed() -> None:
    parameters = live(Part())

    with pytest.raises(NotChangeableError) as refused:
        parameters.change({"max_concurrency": 32, "max_input_tokens": 1}, "me")

    assert refused.value.field == "max_input_tokens"
    assert parameters.value.max_concurrency == 16


def test_only_the_parts_concerned_are_asked() -> None:
    batch, timeouts = Part(), Part()
    parameters = live(batch)
    parameters.subscribe("timeouts", ["request_timeout_seconds"], timeouts.apply)

    parameters.change({"max_batch_size": 4}, "me")

    assert (len(batch.seen), len(timeouts.seen)) == (1, 0)


def test_null_puts_a_parameter_back_to_its_default() -> None:
    parameters = live(Part())
    parameters.change({"max_batch_size": 4, "max_concurrency": 3}, "me")

    value = parameters.change({"max_batch_size": None, "max_concurrency": None}, "me")

    assert (value.max_batch_size, value.max_concurrency) == (None, Parameters().max_concurrency)


def test_a_change_of_nothing_is_nothing() -> None:
    part = Part()
    parameters = live(part)

    assert parameters.change({"max_concurrency": 16}, "me") == parameters.value
    assert part.seen == [] and parameters.history == ()


def test_history_tells_who_when_what_and_how_it_went() -> None:
    parameters = live(Part(refuse=64))
    parameters.change({"max_concurrency": 32}, "admin token")
    with pytest.raises(NotAppliedError):
        parameters.change({"max_concurrency": 64}, "loopback")

    applied, restored = parameters.history

    assert (applied.at, applied.who, applied.result) == (100.0, "admin token", "applied")
    assert applied.fields == {"max_concurrency": (16, 32)}
    assert (restored.who, restored.result, restored.fields) == (
        "loopback",
        "restored",
        {"max_concurrency": (32, 64)},
    )
    assert restored.error is not None and "too many rows" in restored.error


def test_history_is_bounded() -> None:
    parameters = live(Part())
    for value in range(1, 60):
        parameters.change({"max_concurrency": value}, "me")

    assert len(parameters.history) == HISTORY
    assert parameters.history[-1].fields == {"max_concurrency": (58, 59)}


def test_a_subscription_to_an_unknown_parameter_is_a_defect() -> None:
    with pytest.raises(ValueError, match="surprise"):
        live().subscribe("part", ["surprise"], Part().apply)


def test_parameters_are_described_with_their_bounds() -> None:
    described = {parameter.name: parameter for parameter in live(Part()).describe()}

    assert described.keys() == Parameters.model_fields.keys()
    concurrency = described["max_concurrency"]
    assert (concurrency.value, concurrency.default, concurrency.live) == (16, 16, True)
    assert concurrency.bounds == {"minimum": 1, "maximum": 4096} and concurrency.description
    assert described["max_batch_size"].bounds == {"minimum": 1, "maximum": 4096}
    assert described["request_timeout_seconds"].bounds == {"exclusiveMinimum": 0, "maximum": 86_400}
    assert not described["max_input_tokens"].live


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "max_concurrency": st.integers(-1, 40),
                "max_batch_size": st.none() | st.integers(0, 9),
            },
        ),
        max_size=20,
    ),
    st.integers(1, 40),
)
def test_the_value_in_force_is_always_the_last_one_that_every_part_took(
    patches: list[dict[str, Any]], refused: int
) -> None:
    first, second = Part(), Part(refuse=refused)
    parameters = LiveParameters(Parameters(max_concurrency=16))
    for part in (first, second):
        parameters.subscribe("part", ["max_concurrency", "max_batch_size"], part.apply)

    for patch in patches:
        before = parameters.value
        try:
            parameters.change(patch, "me")
        except (InvalidParameterError, NotAppliedError):
            assert parameters.value == before
        else:
            assert parameters.value == merge_patch(before, patch)
        for part in (first, second):
            assert not part.seen or part.seen[-1] == parameters.value.max_concurrency
