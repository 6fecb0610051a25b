"""Finds an agent that goes in circles. Layer: agent, pure.

The one idea: what repeats is the call with its arguments *and* its result, because asking again is right as
long as the answer changes. A circle is the same call three times in a row, or a sequence of two or three
calls twice in a row. The first one is pointed out to the model, in the result it is about to read; the run
ends when the next call continues it.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent_runtime.agent.arguments import canonical
from agent_runtime.agent.run import Call

SAME_CALLS = 3
LONGEST_CYCLE = 3

WARNING = (
    "You have made this call before and it gave the same result. "
    "Do something else, or answer with what you have."
)


def repeats(calls: Sequence[Call]) -> bool:
    """Whether the newest calls are a circle."""
    seen = [_signature(call) for call in calls[-2 * LONGEST_CYCLE :] if call.observation is not None]
    if len(seen) >= SAME_CALLS and len(set(seen[-SAME_CALLS:])) == 1:
        return True
    return any(
        len(seen) >= 2 * size and seen[-size:] == seen[-2 * size : -size]
        for size in range(2, LONGEST_CYCLE + 1)
        if len(set(seen[-size:])) > 1
    )


def _signature(call: Call) -> tuple[str, str, str]:
    return call.name, canonical(call.arguments), call.observation.text if call.observation else ""
