"""What a download says of itself, and how often."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.llm.sources.progress import Download, Reporter, readable, snapshot

SIZES = st.dictionaries(st.text(min_size=1), st.integers(0, 10**12), max_size=5)


class Clock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def reporting() -> tuple[Reporter, Clock, list[Download]]:
    """A reporter about two files, one of which is half there, with a clock of its own."""
    clock, records = Clock(), list[Download]()
    sizes, held = {"a": 1000, "b": 1000}, {"a": 500, "b": 0}
    return Reporter("acme/model", sizes, held, records.append, clock), clock, records


@given(SIZES, st.floats(0, 1e6), st.data())
def test_the_whole_is_the_sum_of_its_files(
    sizes: dict[str, int], seconds: float, data: st.DataObject
) -> None:
    done = {name: data.draw(st.integers(0, size)) for name, size in sizes.items()}

    record = snapshot("r", sizes, done, 0, seconds)

    assert record.bytes_done == sum(file.bytes_done for file in record.files) <= record.bytes_total
    assert record.bytes_total == sum(sizes.values())
    assert record.bytes_per_second >= 0


def test_the_rate_is_of_what_this_run_received(caplog: pytest.LogCaptureFixture) -> None:
    reporter, clock, records = reporting()
    clock.now += 2.0

    reporter.at("b", 300)

    assert records[-1].bytes_done == 800
    assert records[-1].bytes_per_second == 150.0
    assert records[-1].seconds == 2.0


def test_records_come_at_most_twice_a_second(caplog: pytest.LogCaptureFixture) -> None:
    reporter, clock, records = reporting()

    for count in range(100):
        clock.now += 0.02
        reporter.at("b", count)

    assert 3 <= len(records) <= 4


def test_the_log_hears_of_it_at_most_every_five_seconds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reporter, clock, _ = reporting()

    reporter.begin()
    for count in range(1200):
        clock.now += 0.01
        reporter.at("b", min(count, 1000))
    reporter.at("a", 1000)
    reporter.at("b", 1000)
    reporter.end()

    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 4
    assert lines[0] == "downloading acme/model: 500 B of 2.0 kB, 0 B/s"
    assert lines[-1].startswith("downloaded acme/model: 2.0 kB of 2.0 kB")
    assert caplog.records[-1].__dict__["fields"]["files"] == {"a": [1000, 1000], "b": [1000, 1000]}


def test_what_is_on_disk_already_is_not_said_to_be_downloaded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reporter = Reporter("acme/model", {"a": 10}, {"a": 10})

    reporter.begin()
    reporter.end()

    assert [record.getMessage() for record in caplog.records] == [
        "found on disk acme/model: 10 B of 10 B, 0 B/s"
    ]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (3_678_432, "3.7 MB"), (5e12, "5.0 TB")]
)
def test_bytes_are_told_in_decimal_units(count: float, text: str) -> None:
    assert readable(count) == text
