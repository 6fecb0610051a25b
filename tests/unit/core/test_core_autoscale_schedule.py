"""Windows with a minimum of their own: edges, summer time, overlap, errors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from agent_operator.core.autoscale import Window, problems
from agent_operator.core.autoscale.schedule import is_open, minimum, next_edge

BERLIN = ZoneInfo("Europe/Berlin")
OFFICE = Window("office", "0 8 * * 1-5", "0 18 * * 1-5", "Europe/Berlin", 2)


def berlin(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).astimezone(UTC)


@pytest.mark.parametrize(
    ("local", "opened"),
    [
        ("2026-11-25T07:59:59", False),
        ("2026-11-25T08:00:00", True),
        ("2026-11-25T17:59:59", True),
        ("2026-11-25T18:00:00", False),
        ("2026-11-28T12:00:00", False),  # Saturday
        ("2026-07-01T08:00:00", True),  # summer time
    ],
)
def test_a_window_is_open_from_its_start_until_its_end(local: str, opened: bool):
    assert is_open(OFFICE, berlin(local)) is opened


def test_a_window_over_midnight_is_open_at_night():
    night = Window("night", "0 22 * * *", "0 6 * * *", "Europe/Berlin", 1)
    assert is_open(night, berlin("2026-11-25T23:30:00"))
    assert is_open(night, berlin("2026-11-25T05:59:00"))
    assert not is_open(night, berlin("2026-11-25T12:00:00"))


def test_a_start_in_the_hour_that_is_skipped_happens_right_after_it():
    window = Window("w", "30 2 * * *", "0 5 * * *", "Europe/Berlin", 1)
    assert not is_open(window, berlin("2026-03-29T01:59:00"))
    assert is_open(window, berlin("2026-03-29T03:00:00"))
    assert not is_open(window, berlin("2026-03-29T05:00:00"))


def test_a_start_in_the_hour_that_is_repeated_happens_the_first_time():
    window = Window("w", "30 2 * * *", "0 5 * * *", "Europe/Berlin", 1)
    assert not is_open(window, berlin("2026-10-25T02:29:00"))
    assert is_open(window, berlin("2026-10-25T02:30:00"))
    for minute in range(60):
        assert is_open(window, berlin("2026-10-25T02:00:00", fold=1) + timedelta(minutes=minute))


def test_an_end_in_the_hour_that_is_repeated_happens_the_first_time():
    window = Window("w", "0 20 * * *", "30 2 * * *", "Europe/Berlin", 1)
    assert is_open(window, berlin("2026-10-25T02:29:00"))
    for minute in range(30, 150):
        assert not is_open(window, berlin("2026-10-25T02:00:00") + timedelta(minutes=minute))


def test_the_greatest_minimum_of_the_open_windows_wins():
    wide = Window("wide", "0 6 * * *", "0 22 * * *", "Europe/Berlin", 1)
    peak = Window("peak", "0 11 * * *", "0 14 * * *", "Europe/Berlin", 5)
    assert minimum((wide, peak), berlin("2026-11-25T12:00:00")) == (5, "peak")
    assert minimum((wide, peak), berlin("2026-11-25T15:00:00")) == (1, "wide")
    assert minimum((wide, peak), berlin("2026-11-25T23:00:00")) == (0, "")


def test_the_next_edge_is_the_soonest_start_or_end():
    assert next_edge((OFFICE,), berlin("2026-11-25T12:00:30")) == berlin("2026-11-25T18:00:00")
    assert next_edge((OFFICE,), berlin("2026-11-27T18:00:00")) == berlin("2026-11-30T08:00:00")
    assert next_edge((), berlin("2026-11-25T12:00:00")) is None


def test_the_next_edge_is_right_where_an_hour_is_repeated():
    window = Window("w", "30 2 * * *", "0 5 * * *", "Europe/Berlin", 1)
    assert next_edge((window,), berlin("2026-10-25T02:10:00", fold=1)) == berlin("2026-10-25T05:00:00")


@pytest.mark.parametrize(
    ("window", "parts"),
    [
        (
            Window("w", "0 8 * * 1-5", "0 18 * * 1-5", "Mars/Olympus", 1),
            ("spec.autoscaling.schedules[0].timeZone: 'Mars/Olympus'", "Europe/Berlin"),
        ),
        (
            Window("w", "0 25 * * *", "0 18 * * *", "Etc/UTC", 1),
            ("spec.autoscaling.schedules[0].start: '0 25 * * *'", "bad hour", "'0 8 * * 1-5'"),
        ),
        (
            Window("w", "0 8 * * *", "0 0 18 * * *", "Etc/UTC", 1),
            ("spec.autoscaling.schedules[0].end", "6 fields instead of 5"),
        ),
        (Window("w", "0 0 30 2 *", "0 18 * * *", "Etc/UTC", 1), ("spec.autoscaling.schedules[0].start",)),
        (Window("w", "0 8 * * *", "0 18 * * *", "../etc/passwd", 1), ("schedules[0].timeZone",)),
    ],
)
def test_what_cannot_be_read_is_named_with_its_remedy(window: Window, parts: tuple[str, ...]):
    (problem,) = problems((window,))
    for part in parts:
        assert part in problem


def test_good_windows_have_no_problems_and_broken_ones_are_closed():
    assert problems((OFFICE,)) == []
    broken = Window("w", "nonsense", "0 18 * * *", "Etc/UTC", 5)
    assert minimum((broken,), berlin("2026-11-25T12:00:00")) == (0, "")
