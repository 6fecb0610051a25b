"""Running out of memory is a measurement."""

from __future__ import annotations

import pytest
import torch

from agent_runtime.llm.memory import GROW_EVERY, Budget, is_out_of_memory


def test_after_a_failure_less_is_allowed_and_slowly_more_again() -> None:
    budget = Budget().after_failure(1000)
    later = budget
    for _ in range(GROW_EVERY):
        later = later.after_turn()

    assert budget.positions == 750
    assert budget.fits(700, 50)
    assert not budget.fits(700, 51)
    assert later.positions == 766
    assert budget.after_failure(5000).positions == 562


def test_an_empty_device_takes_whatever_it_is_given() -> None:
    assert Budget(10).fits(0, 1_000_000)
    assert Budget().fits(10**9, 10**9)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_recognised(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected
