"""Which waiting rows start now, and which cohorts share a cache. Layer: llm, pure; no clock, no torch.

The one idea: starting a row costs one pass over its prompt during which every running row waits, so rows
are started together: as many as wait when enough of them do, and nobody waits longer than the configured
time. Rows of one start have prompts of about one length, because the shorter ones are padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

JOIN_SHARE = 8
"""A start while others run waits until the newcomers are this fraction of the running rows, or time is up."""
SMALL_CACHE = 16_384
"""Padded positions below which any two cohorts share a cache: padding is then cheaper than a second step."""
MAX_WASTE = 4
"""Above that, a shared cache may be at most this many times what its rows need."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row that has not started: positions to read, and seconds it has waited."""

    tokens: int
    waited: float


@dataclass(frozen=True, slots=True)
class Situation:
    """What the scheduler sees. `wait` is in seconds; `max_tokens` bounds the padded positions of one start;
    `joins` tells whether a newcomer can join running rows (else it starts beside them)."""

    waiting: Sequence[Waiting]
    running: int
    capacity: int
    wait: float
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Start:
    """Rows to start now, as indices into `waiting`, and when to look again (seconds; None: at news)."""

    rows: tuple[int, ...] = ()
    look_again: float | None = None


def plan(situation: Situation) -> Start:
    """The rows to start now: the longest waiting one and, in order of arrival, those like it."""
    waiting, room = situation.waiting, situation.capacity - situation.running
    if not waiting or room <= 0:
        return Start()
    enough = min(room, max(1, situation.running // JOIN_SHARE))
    if situation.running == 0 and situation.wait > 0:
        enough = room
    oldest = max(row.waited for row in waiting)
    if len(waiting) < enough and oldest < situation.wait:
        return Start(look_again=situation.wait - oldest)
    return Start(_alike(waiting, room, situation.max_tokens))


def _alike(waiting: Sequence[Waiting], room: int, max_tokens: int) -> tuple[int, ...]:
    first = max(range(len(waiting)), key=lambda number: waiting[number].waited)
    chosen, longest = [first], waiting[first].tokens
    for number, row in enumerate(waiting):
        if len(chosen) == room:
            break
        if number == first or bucket(row.tokens) != bucket(waiting[first].tokens):
            continue
        width = max(longest, row.tokens)
        if width * (len(chosen) + 1) <= max_tokens:
            chosen.append(number)
            longest = width
    return tuple(sorted(chosen))


def bucket(tokens: int) -> int:
    """Prompts of one bucket are read together: up to 32 positions, then each twice the one before."""
    return max(0, (tokens - 1).bit_length() - 5)


def may_share(rows: int, positions: int, other_rows: int, other_positions: int, max_positions: int) -> bool:
    """Whether two cohorts are better off in one cache than in two, padding included."""
    padded = (rows + other_rows) * max(positions, other_positions)
    if padded > max_positions:
        return False
    needed = rows * positions + other_rows * other_positions
    return padded <= SMALL_CACHE or padded <= MAX_WASTE * needed
