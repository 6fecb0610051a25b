"""Waiting for something another thread or process does. Layer: tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

DEADLINE = 60.0
"""Seconds any wait may take before the test fails; nothing is measured against it."""


def wait_for(what: str, condition: Callable[[], Any]) -> Any:
    """The condition's first true value; fails by name when it stays false."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what}: still not so after {DEADLINE:.0f} s")
