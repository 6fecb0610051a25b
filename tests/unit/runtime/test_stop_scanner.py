"""What was sent cannot be taken back, so only what is certain is sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.llm.text import StopScanner

LETTERS = st.text(alphabet="abc\n", max_size=30)
STOPS = st.lists(st.text(alphabet="abc\n", min_size=1, max_size=4), max_size=3)


def run(text: str, stop: list[str], cuts: list[int]) -> tuple[list[str], StopScanner]:
    """Feed growing prefixes of a text, ending with the whole; the pieces that were sent."""
    scanner = StopScanner(stop)
    pieces = [scanner.feed(text[:end]) for end in [*sorted(min(cut, len(text)) for cut in cuts), len(text)]]
    return [*pieces, scanner.finish()], scanner


@given(LETTERS, STOPS, st.lists(st.integers(0, 30), max_size=10))
def test_the_pieces_joined_are_the_text_before_the_first_stop_string(
    text: str, stop: list[str], cuts: list[int]
) -> None:
    found = [position for word in stop if (position := text.find(word)) >= 0]
    pieces, scanner = run(text, stop, cuts)

    # However the text arrives, no stop string gets out and nothing before one is lost ...
    assert "".join(pieces) == scanner.text
    assert scanner.stopped == bool(found)
    # ... and when it arrives character by character, it ends exactly before the first one to be complete.
    pieces, _ = run(text, stop, list(range(len(text))))
    sent = "".join(pieces)
    assert text.startswith(sent)
    assert not any(word in sent for word in stop)
    if not found:
        assert sent == text


def test_the_beginning_of_a_stop_string_is_held_until_it_is_decided() -> None:
    scanner = StopScanner(["END"])

    assert [scanner.feed("ab E"), scanner.feed("ab EN"), scanner.feed("ab ENx")] == ["ab ", "", "ENx"]
    assert not scanner.stopped


def test_half_a_character_is_held_until_it_is_whole() -> None:
    scanner = StopScanner()

    assert [scanner.feed("caf\ufffd"), scanner.feed("café"), scanner.finish()] == ["caf", "é", ""]


def test_a_broken_character_at_the_very_end_is_not_lost() -> None:
    scanner = StopScanner()

    assert [scanner.feed("x\ufffd"), scanner.finish()] == ["x", "\ufffd"]


def test_nothing_comes_after_a_stop_string() -> None:
    scanner = StopScanner(["."])

    assert [scanner.feed("One. Two."), scanner.feed("One. Two. Three."), scanner.finish()] == ["One", "", ""]
