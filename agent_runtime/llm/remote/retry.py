"""How often and how late a call is repeated. Layer: llm.remote; tenacity drives, the rules are pure.

The one idea: a repetition must help and not harm: only what may succeed is repeated, at random times so that
callers do not come back together, never before the remote asks for it, and never past the caller's deadline.
tenacity's own `wait_random_exponential` is the same full jitter, but draws from the global generator and
knows no Retry-After.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from agent_runtime.llm.remote.errors import RemoteError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`attempts` in all; the n-th wait is uniform in [0, min(max_seconds, base_seconds * 2**(n-1))], "full
    jitter" (aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter), or Retry-After when that is
    longer. A wait beyond `patience_seconds` is left to the caller, who is told the time."""

    attempts: int = 3
    base_seconds: float = 0.5
    max_seconds: float = 8.0
    patience_seconds: float = 10.0


def wait_seconds(policy: RetryPolicy, attempt: int, retry_after: float | None, fraction: float) -> float:
    """Seconds to wait after the `attempt`-th failure (from 1); `fraction` is uniform in [0, 1)."""
    window = min(policy.max_seconds, policy.base_seconds * 2.0 ** min(attempt - 1, 30))
    return max(retry_after or 0.0, fraction * window)


def gives_up(policy: RetryPolicy, attempt: int, wait: float, left: float) -> bool:
    """Whether the `attempt`-th failure is final: no attempt, no patience or no time `left` (seconds)."""
    return attempt >= policy.attempts or wait > policy.patience_seconds or wait >= left


async def retrying(
    once: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    *,
    left: Callable[[], float],
    rng: random.Random,
    sleep: Callable[[float], Awaitable[None]],
) -> T:
    """What `once` returns, repeated while it raises a transient RemoteError; raises the last error."""

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.retry_after if isinstance(error, RemoteError) else None
        return wait_seconds(policy, state.attempt_number, asked, rng.random())

    def stop(state: tenacity.RetryCallState) -> bool:  # tenacity asks for the wait first
        return gives_up(policy, state.attempt_number, state.upcoming_sleep, left())

    async def attempt() -> T:  # tenacity awaits only what it sees to be a coroutine function
        return await once()

    loop = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(lambda e: isinstance(e, RemoteError) and e.transient),
        wait=wait,
        stop=stop,
        sleep=sleep,
        reraise=True,
    )
    return await loop(attempt)
