"""How long a wake takes and how far it is. Layer: gateway core, pure; imports agent_runtime.stats.

The one idea: what a waiting client is told comes from what was observed: the time until it may try again from
earlier wakes of the same agent, the words on the way from what the pods say of themselves.
"""

from __future__ import annotations

import math
import statistics
from collections import deque

from agent_runtime.stats import Stats

REMEMBERED = 9
UNKNOWN_SECONDS = 30.0
LONGEST_RETRY_SECONDS = 120

SCHEDULING = "scheduling"
STARTING = "starting"

COMMENT_SECONDS = 1.0
"""Least time between two comments to a client, and before the first: a fast failure keeps its status."""
REPEAT_SECONDS = 5.0
"""Longest time without one."""


class Wakes:
    """Durations of an agent's wakes, from the first held request to the first ready pod."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)
        self._began: float | None = None

    def begin(self, now: float) -> None:
        """Requests are waiting and no pod is ready."""
        if self._began is None:
            self._began = now

    def end(self, now: float) -> None:
        """A pod is ready."""
        if self._began is not None:
            self._seconds.append(now - self._began)
            self._began = None

    def drop(self) -> None:
        """Nobody waits any more: what is observed from here on would be no wake."""
        self._began = None

    def retry_after(self, now: float) -> int:
        """Whole seconds after which a refused client may find a pod, between 1 and LONGEST_RETRY_SECONDS."""
        usual = statistics.median(self._seconds) if self._seconds else UNKNOWN_SECONDS
        elapsed = 0.0 if self._began is None else now - self._began
        return max(1, min(LONGEST_RETRY_SECONDS, math.ceil(usual - elapsed)))


def progress(pods: int, stats: Stats | None) -> str:
    """What a waiting client is told: `pods` are on their way, `stats` is of the one that is farthest."""
    if pods == 0:
        return SCHEDULING
    if stats is None:
        return STARTING
    state = stats.state.lower()
    facts = stats.download
    if facts is not None and facts.bytes_total and facts.bytes_done < facts.bytes_total:
        return f"downloading {100 * facts.bytes_done // facts.bytes_total} %"
    if state == "loading" and facts is not None and facts.bytes_total:
        return f"loading {min(100, 100 * facts.bytes_done // facts.bytes_total)} %"
    return {"starting": STARTING, "ready": "ready"}.get(state, state)


def comment_due(text: str, last: str, since_last: float) -> bool:
    """Whether a client is told again."""
    return since_last >= REPEAT_SECONDS or (text != last and since_last >= COMMENT_SECONDS)
