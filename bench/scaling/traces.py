"""Seeded request traces. Layer: tooling; imports the standard library only.

The one idea: a trace is a rate over time, made into a Poisson process, and a lognormal time of service for
each request; the same seed gives the same requests.

Two traces are re-created from the public Azure LLM inference traces of 2023 (Patel et al., "Splitwise:
Efficient generative LLM inference using phase splitting", ISCA 2024; data: Azure/AzurePublicDataset, CC-BY):
requests per minute of its hour, and the generated tokens' median and 90th percentile (conversation: 129 and
424, code: 13 and 55). Within a minute arrivals are made Poisson, which is calmer than the data: there the
code trace varies 13 times as much from second to second as a Poisson process. Times assume 20 ms for a
generated token and 0.2 s for the prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, cos, exp, log, pi
from random import Random
from statistics import fmean

from bench.scaling.agent import Trace

MINUTE, HOUR = 60.0, 3600.0
TOKEN_SECONDS, PROMPT_SECONDS = 0.02, 0.2
CARRIED = 5.6
"""Requests in flight for each replica that is there at the begin: the target of the comparison."""
WARM_UP = 5 * MINUTE
NORMAL_P90 = 1.2816
CONVERSATION = (
    191, 265, 329, 353, 307, 273, 268, 261, 322, 298, 301, 302, 345, 326, 283, 279, 280, 308, 343, 351,
    351, 343, 408, 396, 386, 398, 432, 480, 476, 453, 448, 507, 438, 413, 423, 418, 465, 311, 329, 316,
    333, 355, 319, 360, 334, 375, 330, 249, 221, 249, 265, 280, 256, 254, 242, 260, 246, 225,
)  # fmt: skip
"""Requests per minute, 11 November 2023; the last, incomplete minute is left out."""
CODE = (
    63, 0, 0, 531, 187, 130, 15, 42, 38, 476, 421, 63, 0, 0, 632, 299, 0, 20, 396, 315, 116, 78, 306, 447,
    252, 34, 128, 111, 406, 234, 118, 169, 130, 306, 158, 0, 339, 55, 285, 191, 0, 28, 205, 245, 99, 0, 0,
    32, 0, 0, 0, 97, 212, 22, 32, 113, 47, 196,
)  # fmt: skip
Rate = Callable[[float], float]
"""Requests a second at a time."""


def poisson(
    name: str, seed: int, seconds: float, rate: Rate, highest: float, *, median: float = 3.0,
    p90: float = 8.0, min_replicas: int = 1,
) -> Trace:  # fmt: skip
    """Requests by thinning: `highest` is no less than the rate at any time; service times in seconds.

    Five minutes at the first rate come before, so that no autoscaler is judged by how it begins.
    """
    random = Random(seed)
    sigma = log(p90 / median) / NORMAL_P90
    arrivals, services, at = [], [], 0.0
    while True:
        at += random.expovariate(highest)
        if at >= WARM_UP + seconds:
            break
        if random.random() * highest <= rate(max(0.0, at - WARM_UP)):
            arrivals.append(at)
            services.append(random.lognormvariate(log(median), sigma))
    initial = max(1, ceil(rate(0.0) * fmean(services) / CARRIED))
    return Trace(name, arrivals, services, WARM_UP + seconds, min_replicas, WARM_UP, initial)


def diurnal(seed: int) -> Trace:
    """A day in six hours: from 0.3 requests a second at night to 6 at noon."""
    day = 6 * HOUR
    return poisson("diurnal", seed, day, lambda at: 3.15 - 2.85 * cos(2 * pi * at / day), 6.0)


def spike(seed: int) -> Trace:
    """Two steps to four times the load, for five minutes each."""

    def rate(at: float) -> float:
        return 8.0 if 15 * MINUTE <= at < 20 * MINUTE or 40 * MINUTE <= at < 45 * MINUTE else 2.0

    return poisson("spike", seed, HOUR, rate, 8.0)


def ramp(seed: int) -> Trace:
    """From 0.5 to 8 requests a second in 20 minutes, ten minutes there, and back."""

    def rate(at: float) -> float:
        up, down = (at - 10 * MINUTE) / (20 * MINUTE), (60 * MINUTE - at) / (20 * MINUTE)
        return 0.5 + 7.5 * max(0.0, min(1.0, up, down))

    return poisson("ramp", seed, 70 * MINUTE, rate, 8.0)


def flash_crowd(seed: int) -> Trace:
    """From 2 to 12 requests a second in one minute, then a slow decay, as a link that is passed on."""

    def rate(at: float) -> float:
        since = at - 15 * MINUTE
        if since < 0:
            return 2.0
        return 2.0 + 10.0 * min(1.0, since / MINUTE) * exp(-max(0.0, since - MINUTE) / (12 * MINUTE))

    return poisson("flash crowd", seed, 75 * MINUTE, rate, 12.0)


def noisy_steady(seed: int, seconds: float = 30 * MINUTE, per_second: float = 4.0) -> Trace:
    """One rate throughout; all that varies is chance."""
    return poisson("noisy steady", seed, seconds, lambda _: per_second, per_second)


def office(seed: int) -> Trace:
    """Half an hour of work, then next to nothing, three times: made for scaling to zero."""

    def rate(at: float) -> float:
        return 3.0 if at % HOUR < HOUR / 2 else 0.0005

    return poisson("office hours", seed, 3 * HOUR, rate, 3.0, min_replicas=0)


def azure_conversation(seed: int) -> Trace:
    """The hour of Azure's conversation trace."""
    return _azure("azure conversation", seed, CONVERSATION, 129, 424)


def azure_code(seed: int) -> Trace:
    """The hour of Azure's code trace: bursts and minutes without a request."""
    return _azure("azure code", seed, CODE, 13, 55)


def _azure(name: str, seed: int, minutes: tuple[int, ...], median: float, p90: float) -> Trace:
    def rate(at: float) -> float:
        return minutes[int(at // MINUTE)] / MINUTE

    def seconds(tokens: float) -> float:
        return PROMPT_SECONDS + TOKEN_SECONDS * tokens

    return poisson(
        name, seed, len(minutes) * MINUTE, rate, max(minutes) / MINUTE,
        median=seconds(median), p90=seconds(p90),
    )  # fmt: skip


TRACES: tuple[Callable[[int], Trace], ...] = (
    diurnal, spike, ramp, flash_crowd, noisy_steady, office, azure_conversation, azure_code,
)  # fmt: skip
