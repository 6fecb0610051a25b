"""What a key may use is a function of what it used and of time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.access.limits import (
    Limited,
    Usage,
    admit,
    charge,
    duration,
    rate_headers,
    release,
    retry_after,
)
from agent_runtime.api_keys import Limits

SECONDS = st.floats(0, 600, allow_nan=False)


def admitted(usage: Usage, limits: Limits, now: float) -> Usage:
    after, refused = admit(usage, limits, now)
    assert refused is None
    return after


def refusal(usage: Usage, limits: Limits, now: float) -> Limited:
    after, refused = admit(usage, limits, now)
    assert refused is not None and after == usage, "a refusal changes nothing"
    return refused


def test_a_minutes_worth_may_come_at_once_and_then_one_at_a_time() -> None:
    limits, usage = Limits(requests_per_minute=3), Usage()
    for _ in range(3):
        usage = admitted(usage, limits, 0.0)

    assert refusal(usage, limits, 0.0) == Limited("requests", 3, 20.0)
    assert refusal(usage, limits, 19.0).retry_after == pytest.approx(1.0)
    usage = admitted(usage, limits, 20.0)
    assert refusal(usage, limits, 20.0).retry_after == pytest.approx(20.0)


@given(st.integers(1, 100), st.lists(SECONDS, min_size=1, max_size=300))
def test_never_more_than_the_allowance_and_its_refill(per_minute: int, times: list[float]) -> None:
    """In the T seconds from the first request on at most allowance * (1 + T / 60) are admitted."""
    limits, usage, times = Limits(requests_per_minute=per_minute), Usage(), sorted(times)
    count = 0
    for now in times:
        usage, refused = admit(usage, limits, now)
        count += refused is None
        assert count <= per_minute * (1 + (now - times[0]) / 60) + 1e-6


@given(st.integers(1, 100), st.lists(SECONDS, max_size=100), SECONDS)
def test_who_waits_as_told_is_admitted(per_minute: int, times: list[float], now: float) -> None:
    limits, usage = Limits(requests_per_minute=per_minute), Usage()
    for earlier in sorted(time for time in times if time <= now):
        usage, _ = admit(usage, limits, earlier)
    _, refused = admit(usage, limits, now)

    if refused is not None:
        admitted(usage, limits, now + retry_after(refused))


@given(st.lists(st.sampled_from(["start", "end"]), max_size=100), st.integers(1, 5))
def test_never_more_at_once_than_allowed(events: list[str], most: int) -> None:
    limits, usage, running = Limits(max_concurrency=most), Usage(), 0
    for event in events:
        if event == "start":
            usage, refused = admit(usage, limits, 0.0)
            assert (refused is None) == (running < most)
            running += refused is None
        elif running:
            usage, running = release(usage), running - 1
        assert usage.running == running <= most


def test_tokens_are_paid_back_before_the_next_request() -> None:
    limits = Limits(tokens_per_minute=60)
    usage = charge(admitted(Usage(), limits, 0.0), limits, 90, 0.0)

    assert refusal(usage, limits, 0.0) == Limited("tokens", 60, 31.0)
    assert refusal(usage, limits, 29.0).what == "tokens"
    admitted(usage, limits, 31.0)


def test_a_refused_request_takes_nothing_from_the_other_allowances() -> None:
    limits = Limits(requests_per_minute=10, max_concurrency=1)
    usage = admitted(Usage(), limits, 0.0)

    for _ in range(5):
        assert refusal(usage, limits, 0.0).what == "concurrency"

    assert rate_headers(usage, limits, 0.0)["x-ratelimit-remaining-requests"] == "9"


def test_a_key_without_limits_is_never_refused_and_shows_none() -> None:
    usage = Usage()
    for _ in range(1000):
        usage = admitted(usage, Limits(), 0.0)

    assert charge(usage, Limits(), 10**9, 0.0) == usage
    assert rate_headers(usage, Limits(), 0.0) == {}


def test_headers_tell_limit_rest_and_seconds_until_full() -> None:
    limits = Limits(requests_per_minute=60, tokens_per_minute=600)
    usage = charge(admitted(Usage(), limits, 0.0), limits, 700, 0.0)

    assert rate_headers(usage, limits, 0.5) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "500ms",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m9.5s",
    }


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0s"), (0.0001, "1ms"), (0.12, "120ms"), (1, "1s"), (1.5, "1.5s"), (60, "1m0s"), (360, "6m0s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_clock_that_goes_back_neither_gives_nor_takes() -> None:
    limits = Limits(requests_per_minute=2)
    usage = admitted(admitted(Usage(), limits, 100.0), limits, 40.0)

    assert refusal(usage, limits, 100.0).what == "requests"
    assert refusal(usage, limits, 40.0).what == "requests"


def test_a_smaller_allowance_after_a_reload_holds_at_once() -> None:
    usage = admitted(Usage(), Limits(requests_per_minute=100), 0.0)

    smaller = Limits(requests_per_minute=1)
    usage = admitted(usage, smaller, 0.0)

    assert refusal(usage, smaller, 0.0).limit == 1
