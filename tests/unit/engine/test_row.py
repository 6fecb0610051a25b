"""An answer is told at a bearable pace, and at once when it has ended."""

from __future__ import annotations

from agent_runtime.llm.base import Delta, Result, Sampling
from agent_runtime.llm.row import PACE_SECONDS, Event, Row
from agent_runtime.llm.sampling import Choice, RowSampler
from tests.unit.engine.engines import Codec


def row(events: list[Event], *, stream: bool, **rules: object) -> Row:
    sampler = RowSampler(Sampling(**{"max_tokens": 4, **rules}))  # type: ignore[arg-type]

    def emit(_: Row, event: Event) -> None:
        events.append(event)

    return Row((1,), sampler, Codec(), emit, arrived=0.0, deadline=None, stream=stream)  # type: ignore[arg-type]


def test_a_reader_gets_the_first_token_at_once_and_then_a_piece_at_most_so_often() -> None:
    events: list[Event] = []
    streamed = row(events, stream=True)
    seen = []
    for token, at in ((5, 0.0), (6, PACE_SECONDS / 2), (7, PACE_SECONDS), (8, PACE_SECONDS * 1.5)):
        streamed.accept(Choice(token), frozenset({0}), at)
        seen.append(len(events))

    assert [event for event in events if isinstance(event, Delta)] == [
        Delta("5 ", tokens=1),
        Delta("6 7 ", tokens=2),
        Delta("8 ", tokens=1),
    ]
    assert seen == [1, 1, 2, 4], "the last piece does not wait"
    assert events[-1] == Result("5 6 7 8 ", "length", 1, 4, 0.0)


def test_what_nobody_reads_along_comes_whole() -> None:
    events: list[Event] = []
    whole = row(events, stream=False)
    for token in (5, 6, 0):
        whole.accept(Choice(token), frozenset({0}), 0.0)

    assert events == [Delta("5 6 ", tokens=3), Result("5 6 ", "stop", 1, 3, 0.0)]


def test_a_stop_string_is_seen_whether_or_not_somebody_reads_along() -> None:
    for stream in (False, True):
        events: list[Event] = []
        stopped = row(events, stream=stream, stop=("6",))
        for token in (5, 6):
            stopped.accept(Choice(token), frozenset({0}), float(token))

        assert "".join(event.text for event in events if isinstance(event, Delta)) == "5 "
        assert isinstance(events[-1], Result) and events[-1].finish_reason == "stop"
