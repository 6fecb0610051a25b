"""How much a key may use: token buckets and a count of what runs. Layer: access, pure, no clock.

The one idea: what a key has used is a small value, and admitting a request is a function from that value and
the time to the next value; nothing ticks. Libraries (pyrate-limiter, limits) bring clocks, locks and storage
of their own and no debt: here the tokens of a request are known only after it was answered, so the
token bucket may go below zero and admits again once the debt is paid.

A bucket holds one minute's allowance and refills evenly (the token bucket of RFC 2697 with one rate): a key
that rested may use a minute's worth at once, and in any T seconds at most allowance * (1 + T / 60).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from agent_runtime.api_keys import Limits

MINUTE = 60.0

What = Literal["requests", "tokens", "concurrency"]


@dataclass(frozen=True, slots=True)
class Bucket:
    """What was left at a time; below zero it is a debt. `at` is in seconds of a monotonic clock."""

    left: float
    at: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What one key has used so far; a missing bucket is a full one."""

    running: int = 0
    requests: Bucket | None = None
    tokens: Bucket | None = None


@dataclass(frozen=True, slots=True)
class Limited:
    """A refusal: which limit, its value, and the seconds after which it is worth trying again."""

    what: What
    limit: int
    retry_after: float


def available(bucket: Bucket | None, per_minute: int, now: float) -> float:
    """What a bucket of this allowance holds now."""
    if bucket is None:
        return float(per_minute)
    elapsed = max(0.0, now - bucket.at)
    return min(float(per_minute), bucket.left + elapsed * per_minute / MINUTE)


def seconds_until(bucket: Bucket | None, per_minute: int, wanted: float, now: float) -> float:
    """Seconds until the bucket holds `wanted`; 0 when it does already."""
    return max(0.0, wanted - available(bucket, per_minute, now)) * MINUTE / per_minute


def take(bucket: Bucket | None, per_minute: int, amount: float, now: float) -> Bucket:
    """The bucket after `amount` was taken, below zero if need be."""
    at = now if bucket is None else max(now, bucket.at)
    return Bucket(available(bucket, per_minute, now) - amount, at)


def admit(usage: Usage, limits: Limits, now: float) -> tuple[Usage, Limited | None]:
    """Whether one more request may start. A refusal changes nothing."""
    most = limits.max_concurrency
    if most is not None and usage.running >= most:
        return usage, Limited("concurrency", most, 1.0)
    per_minute = limits.tokens_per_minute
    # Any token left admits: how many the request takes is not known yet.
    if per_minute is not None and available(usage.tokens, per_minute, now) <= 0:
        return usage, Limited("tokens", per_minute, seconds_until(usage.tokens, per_minute, 1.0, now))
    requests = usage.requests
    per_minute = limits.requests_per_minute
    if per_minute is not None:
        # A hair below one: the float sums of a refill must not make a request wait for nothing.
        if available(requests, per_minute, now) < 1.0 - 1e-9:
            return usage, Limited("requests", per_minute, seconds_until(requests, per_minute, 1.0, now))
        requests = take(requests, per_minute, 1.0, now)
    return replace(usage, running=usage.running + 1, requests=requests), None


def release(usage: Usage) -> Usage:
    """One of the running requests has ended."""
    return replace(usage, running=max(0, usage.running - 1))


def charge(usage: Usage, limits: Limits, tokens: int, now: float) -> Usage:
    """The usage after `tokens` were read and generated."""
    if limits.tokens_per_minute is None or tokens <= 0:
        return usage
    return replace(usage, tokens=take(usage.tokens, limits.tokens_per_minute, tokens, now))


def rate_headers(usage: Usage, limits: Limits, now: float) -> dict[str, str]:
    """OpenAI's `x-ratelimit-*` headers for the limits this key has."""
    headers: dict[str, str] = {}
    for what, per_minute, bucket in (
        ("requests", limits.requests_per_minute, usage.requests),
        ("tokens", limits.tokens_per_minute, usage.tokens),
    ):
        if per_minute is None:
            continue
        left = available(bucket, per_minute, now)
        headers[f"x-ratelimit-limit-{what}"] = str(per_minute)
        headers[f"x-ratelimit-remaining-{what}"] = str(max(0, math.floor(left + 1e-9)))
        full = seconds_until(bucket, per_minute, per_minute, now)
        headers[f"x-ratelimit-reset-{what}"] = duration(full)
    return headers


def duration(seconds: float) -> str:
    """A duration as OpenAI writes it: `0s`, `120ms`, `1.5s`, `6m0s`."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    words = f"{rest / 1000:g}s"
    return f"{minutes}m{words}" if minutes else words


def retry_after(limited: Limited) -> int:
    """Whole seconds for the Retry-After header, at least 1."""
    return max(1, math.ceil(limited.retry_after))
