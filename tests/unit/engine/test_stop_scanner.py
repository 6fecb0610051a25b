"""What was sent cannot be taken back, so only what is certain is sent."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.llm.text import StopScanner

LETTERS = st.text(alphabet="abc\n", max_size=30)
STOPS = st.lists(st.text(alphabet="abc\n", min_size=1, max_size=4), max_size=3)


def cut(text: str, cuts: list[int]) -> list[str]:
    """The text in pieces."""
    edges = [0, *sorted(min(edge, len(text)) for edge in cuts), len(text)]
    return [text[begin:end] for begin, end in pairwise(edges)]


def run(pieces: list[str], stop: list[str]) -> tuple[str, StopScanner]:
    """Everything that was sent for these pieces."""
    scanner = StopScanner(stop)
    sent = "".join(scanner.feed(piece) for piece in pieces)
    return sent + scanner.finish(), scanner


@given(LETTERS, STOPS, st.lists(st.integers(0, 30), max_size=10))
def test_no_stop_string_gets_out_and_nothing_before_one_is_lost(
    text: str, stop: list[str], cuts: list[int]
) -> None:
    found = any(word in text for word in stop)

    sent, scanner = run(cut(text, cuts), stop)

    assert scanner.stopped == found
    assert text.startswith(sent)
    assert not any(word in sent for word in stop)
    if not found:
        assert sent == text


@given(LETTERS, STOPS)
def test_letter_by_letter_it_ends_before_the_stop_string_that_is_complete_first(
    text: str, stop: list[str]
) -> None:
    ends = [(text.find(word) + len(word), len(word)) for word in stop if word in text]

    sent, _ = run(list(text), stop)

    if ends:
        end = min(ends)[0]
        longest = max(length for place, length in ends if place == end)
        assert sent == text[: end - longest]


def test_the_beginning_of_a_stop_string_is_held_until_it_is_decided() -> None:
    scanner = StopScanner(["END"])

    assert [scanner.feed("ab E"), scanner.feed("N"), scanner.feed("x")] == ["ab ", "", "ENx"]
    assert not scanner.stopped


def test_nothing_comes_after_a_stop_string() -> None:
    scanner = StopScanner(["."])

    assert [scanner.feed("One. Two."), scanner.feed(" Three."), scanner.finish()] == ["One", "", ""]
