"""The rules of the remote backend without a network: requests, answers, scores, errors, waits, estimates."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.llm.base import Chat, Delta, Sampling, Text
from agent_runtime.llm.chat import Message, ToolSpec
from agent_runtime.llm.remote.answer import AnswerReader, render_tool_call
from agent_runtime.llm.remote.errors import MAX_MESSAGE, Errors, RemoteError, retry_after_of
from agent_runtime.llm.remote.estimate import Calibration, corrected, observe, raw_estimate
from agent_runtime.llm.remote.mapping import (
    Lessons,
    chat_body,
    encode_body,
    lesson_of,
    logprobs_lesson,
    text_body,
)
from agent_runtime.llm.remote.retry import RetryPolicy, gives_up, retrying, wait_seconds
from agent_runtime.llm.remote.scoring import can_echo, candidate_logprobs, label_logprobs, label_prompt
from agent_runtime.observability.logging import register_secret
from tests.fakes.virtual_time import run_virtual
from tests.unit.remote.standin import piece, token, usage

ERRORS = Errors("geography")
KEY = "sk-pure-parts-only"
QUESTION = Chat((Message("user", "?"),))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
CHUNKS: list[dict[str, Any]] = [
    piece("Paris", logprobs={"content": [token("Paris", -0.1, ("Paris", -0.1), ("Lyon", -3.0))]}),
    piece(tool_calls=[{"index": 0, "id": "a", "function": {"name": "clock", "arguments": "{}"}}]),
    piece(finish="stop"),
    usage(3, 4),
    {"error": {"message": "no", "type": "server_error", "code": 500}},
    {"choices": [{"index": 0, "text": "Paris", "logprobs": {"tokens": ["Paris"], "token_logprobs": [-0.1]}}]},
]


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A real chunk in which one value, at any depth, is something else."""
    chunk = json.loads(json.dumps(draw(st.sampled_from(CHUNKS))))
    place: Any = chunk
    while True:
        key = draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        if not place[key] or not isinstance(place[key], (dict, list)) or draw(st.booleans()):
            place[key] = draw(JSON)
            return chunk
        place = place[key]


def reader(*, chat: bool = True, want_logprobs: bool = False, want_json: bool = False) -> AnswerReader:
    """A reader of one answer."""
    return AnswerReader(ERRORS, chat=chat, want_logprobs=want_logprobs, want_json=want_json, prompt_tokens=9)


# Requests


def test_a_default_request_holds_only_what_every_server_knows() -> None:
    body = chat_body("big", QUESTION, Sampling(max_tokens=5), Lessons())

    assert set(body) == {"model", "messages", "max_tokens", "temperature", "stream", "stream_options"}


def test_every_setting_is_sent_under_its_name_in_the_api() -> None:
    sampling = Sampling(
        max_tokens=5, temperature=0.7, top_p=0.9, top_k=40, seed=0, stop=("a", "b"), presence_penalty=0.1,
        frequency_penalty=-0.2, logit_bias=((42, -100.0),), top_logprobs=0, min_tokens=2, ignore_eos=True,
    )  # fmt: skip
    common = {
        "temperature": 0.7, "top_p": 0.9, "top_k": 40, "seed": 0, "stop": ["a", "b"], "presence_penalty": 0.1,
        "frequency_penalty": -0.2, "logit_bias": {"42": -100.0}, "min_tokens": 2, "ignore_eos": True,
    }  # fmt: skip

    chat = chat_body("big", QUESTION, sampling, Lessons())
    text = text_body("big", Text("?"), sampling, Lessons())

    assert common.items() <= chat.items()
    assert common.items() <= text.items()
    assert (chat["logprobs"], chat["top_logprobs"]) == (True, 0)
    assert (text["logprobs"], "top_logprobs" in text) == (0, False)


def test_what_json_cannot_hold_is_a_value_error() -> None:
    for value in (math.nan, math.inf, object()):
        with pytest.raises(ValueError):
            encode_body({"tools": value})


@pytest.mark.parametrize(
    ("said", "asked", "limit"),
    [
        ("logprobs is not supported", 5, -1),
        ("Requested sample logprobs of 30, which is greater than max allowed: 20", 30, 20),
        (
            "Invalid 'top_logprobs': integer above maximum value. Expected a value <= 8, but got 20 instead.",
            20,
            8,
        ),
        ("`top_logprobs` must be >= 0 and <= 5. Given: 20", 20, 5),
        ("model gpt-4 has no logprobs", 20, -1),
        ("Input should be less than or equal to 5 (top_logprobs)", 5, -1),
    ],
)
def test_a_refusal_of_logprobs_teaches_the_bound_it_names(said: str, asked: int, limit: int) -> None:
    lesson = logprobs_lesson(Lessons(top_logprobs=30), said, asked)

    assert lesson is not None
    assert lesson.top_logprobs == limit


def test_a_refusal_of_something_else_teaches_nothing() -> None:
    assert logprobs_lesson(Lessons(), "the prompt is too long", 5) is None
    assert lesson_of(Lessons(), "the prompt is too long") is None


@given(st.text(max_size=80), st.integers(0, 20))
def test_lessons_only_ever_lower_the_bound_so_they_come_to_an_end(said: str, asked: int) -> None:
    lesson = logprobs_lesson(Lessons(top_logprobs=asked), "logprobs " + said, asked)

    assert lesson is not None
    assert -1 <= lesson.top_logprobs < max(asked, 0) or lesson.top_logprobs == -1


# Answers


@given(st.lists(st.text(max_size=4), max_size=8), st.sampled_from(["stop", "length"]))
def test_the_pieces_joined_are_the_text_of_the_result(pieces: list[str], finish: str) -> None:
    answer, deltas = reader(), []
    for content in pieces:
        deltas += answer.feed(json.dumps(piece(content)))
    deltas += answer.feed(json.dumps(piece(finish=finish)))
    deltas += answer.feed(json.dumps(usage(3, 4)))
    rest, result = answer.finish()

    assert "".join(delta.text for delta in [*deltas, *rest]) == result.text == "".join(pieces)
    assert (result.finish_reason, result.prompt_tokens, result.completion_tokens) == (finish, 3, 4)


@given(st.lists(st.sampled_from(CHUNKS) | damaged() | JSON, max_size=5), st.booleans(), st.booleans())
def test_whatever_json_a_remote_sends_is_an_answer_or_a_remote_error(
    events: list[Any], chat: bool, want_logprobs: bool
) -> None:
    answer = reader(chat=chat, want_logprobs=want_logprobs)
    try:
        for event in events:
            assert all(isinstance(delta, Delta) for delta in answer.feed(json.dumps(event)))
        answer.finish()
    except RemoteError as error:
        assert error.code in ("remote_failed", "remote_refused", "remote_overloaded")


@given(
    st.text(min_size=1, max_size=10), st.dictionaries(st.text(max_size=5), st.text(max_size=30), max_size=3)
)
def test_a_rendered_tool_call_holds_its_arguments_and_ends_only_at_its_end(
    name: str, arguments: dict[str, str]
) -> None:
    block = render_tool_call(name, json.dumps(arguments))

    assert block.count("</tool_call>") == 1
    inner = block.removeprefix("<tool_call>").removesuffix("</tool_call>")
    assert json.loads(inner) == {"name": name, "arguments": arguments}


def test_arguments_that_are_not_json_are_kept_for_the_parser_to_complain_about() -> None:
    block = render_tool_call("weather", '{"city": ')

    assert json.loads(block[11:-12]) == {"name": "weather", "arguments": '{"city": '}


def test_an_impossible_token_is_reported_as_openai_does_and_rounding_above_zero_is_zero() -> None:
    entries = [{"token": "a", "logprob": None}, {"token": "b", "logprob": 1e-7}]
    answer = reader(want_logprobs=True)

    deltas = answer.feed(json.dumps(piece("ab", logprobs={"content": entries})))

    assert [entry.logprob for entry in deltas[0].logprobs] == [-9999.0, 0.0]


def test_only_the_first_choice_is_the_answer_and_an_empty_finish_reason_is_none() -> None:
    answer = reader()
    second = piece("Lyon", finish="length")
    second["choices"][0]["index"] = 1

    deltas = [*answer.feed(json.dumps(piece("Paris", finish=""))), *answer.feed(json.dumps(second))]

    assert deltas == [Delta("Paris")]
    assert not answer.finished


# Scores


def cut(draw: st.DrawFn, text: str) -> list[str]:
    """A text as tokens of any lengths."""
    tokens: list[str] = []
    while text:
        size = draw(st.integers(1, len(text)))
        tokens.append(text[:size])
        text = text[size:]
    return tokens


WORDS = st.text(alphabet="abé ", min_size=1, max_size=8)


@st.composite
def echoes(draw: st.DrawFn) -> tuple[str, str, list[str], list[str], list[str]]:
    """A prompt, a candidate, the tokens of each, and what was generated after them."""
    prompt = draw(WORDS.map(str.rstrip).filter(bool))
    candidate = draw(WORDS.filter(str.strip))
    generated = draw(st.sampled_from([[], [""], [" a"], ["</s>"]]))
    return prompt, candidate, cut(draw, prompt), cut(draw, candidate), generated


@given(echoes())
def test_a_candidates_own_values_are_found_however_the_text_was_cut(
    echo: tuple[str, str, list[str], list[str], list[str]],
) -> None:
    prompt, candidate, before, own, generated = echo
    shown = "".join(token for token in generated if token != "</s>")
    tokens = [*before, *own, *generated]
    values = [None, *(-float(index) for index in range(1, len(tokens)))]

    found = candidate_logprobs(prompt, candidate, prompt + candidate + shown, tokens, values)

    # An empty generated token cannot be told from white space at the candidate's end; all else is exact.
    if generated != [""]:
        assert found == tuple(values[len(before) : len(before) + len(own)])


@given(echoes())
def test_renderings_that_lose_spaces_or_show_them_raw_change_nothing(
    echo: tuple[str, str, list[str], list[str], list[str]],
) -> None:
    prompt, candidate, before, own, _ = echo
    values = [-float(index) for index in range(len(before) + len(own))]
    plain = candidate_logprobs(prompt, candidate, prompt + candidate, [*before, *own], values)

    for mark in ("", "▁", "Ġ"):
        shown = [token.replace(" ", mark) for token in [*before, *own]]
        assert candidate_logprobs(prompt, candidate, prompt + candidate, shown, values) == plain


def test_a_token_across_the_border_or_of_half_a_character_or_without_a_value_is_not_guessed() -> None:
    across = candidate_logprobs("like", "wise", "likewise", ["likewise"], [-1.0])
    halves = candidate_logprobs("a", " é", "a é", ["a", " \ufffd", "\ufffd"], [None, -1.0, -2.0])
    first = candidate_logprobs("", "a", "a", ["a"], [None])

    assert (across, halves, first) == (None, None, None)


@given(st.lists(st.text(alphabet="ab", min_size=1, max_size=3), min_size=1, max_size=6))
def test_echo_is_used_only_where_no_candidate_begins_another(candidates: list[str]) -> None:
    exclusive = not any(a != b and b.startswith(a) for a in candidates for b in candidates)

    assert can_echo(Text("?"), candidates) == exclusive
    assert not can_echo(QUESTION, candidates)


TOPS = st.lists(
    st.tuples(st.sampled_from(["A", " A", "B", "b", "The", "C", "AB", ""]), st.floats(0.001, 1.0)),
    min_size=1, max_size=8, unique_by=lambda item: item[0],
)  # fmt: skip


@given(TOPS, st.integers(1, 4))
def test_a_label_never_gets_less_than_the_remote_reported_nor_more_than_is_left(
    weights: list[tuple[str, float]], count: int
) -> None:
    total = sum(weight for _, weight in weights) * 1.25
    top = [(token, math.log(weight / total)) for token, weight in weights]
    reported = {label: sum(w / total for t, w in weights if t.strip() == label) for label in "ABCD"[:count]}

    values = label_logprobs(top, count)

    if not any(reported.values()):
        assert values is None
        return
    assert values is not None
    for label, value in zip("ABCD", values, strict=False):
        if reported[label]:
            assert math.isclose(math.exp(value), reported[label])
        else:
            assert math.exp(value) <= 0.2 + 1e-9  # a fifth of the mass is not reported
            assert value <= min(lp for _, lp in top) + 1e-9


def test_the_question_keeps_the_roles_alternating() -> None:
    answered = Chat((Message("user", "Hi"), Message("assistant", "Hello")))

    assert [message.role for message in label_prompt(answered, ["a"])] == ["user", "assistant", "user"]
    assert [message.role for message in label_prompt(Chat((Message("user", "Hi"),)), ["a"])] == ["user"]
    assert label_prompt(Text("Hi"), ["a"])[0].content.startswith("Hi\n\n")


# Errors


@given(st.text(max_size=2000), st.text(max_size=20))
def test_what_a_remote_says_is_passed_on_without_the_key_on_one_short_line(before: str, after: str) -> None:
    register_secret(KEY)

    cleaned = ERRORS.clean(before + KEY + after)

    assert KEY not in cleaned
    assert len(cleaned) <= MAX_MESSAGE
    assert "\n" not in cleaned
    assert cleaned.isprintable()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "no", "type": "x"}}', "no"),
        (b'{"object": "error", "message": "no"}', "no"),
        (b'{"error": "no"}', "no"),
        (b'{"detail": "no"}', "no"),
        (b'{"detail": [{"loc": ["body"]}]}', '[{"loc": ["body"]}]'),
        (b'{"message": {"detail": "no"}}', '{"detail": "no"}'),
        (b"no", "no"),
        (b'"no"', '"no"'),
        (b"<html>no</html>", ""),
        (b"", ""),
        (b"\xff", "\ufffd"),
        (b"[" * 100_000, "[" * 497 + "..."),
    ],
)
def test_the_message_is_found_in_every_shape_servers_use(body: bytes, said: str) -> None:
    assert ERRORS.status(400, {}, body).said == said


@given(st.integers(300, 599), st.binary(max_size=60), st.text(max_size=12))
def test_every_status_and_body_is_one_error_with_one_code(status: int, body: bytes, after: str) -> None:
    error = ERRORS.status(status, {"Retry-After": after}, body)

    expected = {408: {"remote_unreachable"}, 429: {"remote_overloaded"}}.get(
        status, {"remote_refused", "remote_denied"} if status < 500 else {"remote_failed", "remote_refused"}
    )
    assert error.code in expected
    assert (error.code == "remote_denied") == (status < 400 or status in (401, 402, 403))
    assert error.transient == (error.code not in ("remote_refused", "remote_denied"))
    assert error.retry_after is None or error.retry_after >= 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"Retry-After": "-1"}, 0.0),
        ({"Retry-After": "1e12"}, 86_400.0),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_of(headers) == seconds


# Waits


@given(st.integers(1, 50), st.none() | st.floats(0, 100), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_never_shorter_than_asked_nor_longer_than_asked_or_the_cap(
    attempt: int, asked: float | None, fraction: float
) -> None:
    policy = RetryPolicy()

    wait = wait_seconds(policy, attempt, asked, fraction)

    assert wait >= (asked or 0.0)
    assert wait <= max(asked or 0.0, policy.max_seconds)
    assert wait_seconds(policy, attempt, None, 0.0) == 0.0  # full jitter begins at zero


def test_attempts_patience_and_time_each_end_the_retries() -> None:
    policy = RetryPolicy(attempts=3, patience_seconds=10.0)

    assert not gives_up(policy, 2, 9.0, left=9.5)
    assert gives_up(policy, 3, 0.0, left=100.0)
    assert gives_up(policy, 1, 10.5, left=100.0)
    assert gives_up(policy, 1, 5.0, left=5.0)


def test_retries_of_minutes_end_at_the_deadline_with_the_last_error() -> None:
    policy = RetryPolicy(attempts=1000, base_seconds=1.0, max_seconds=8.0)
    times: list[float] = []

    async def once() -> None:
        times.append(asyncio.get_running_loop().time())
        raise ERRORS.status(503, {}, b"")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(RemoteError, match="HTTP 503"):
            await retrying(
                once, policy, left=lambda: 300.0 - loop.time(), rng=random.Random(7), sleep=asyncio.sleep
            )

    run_virtual(main())

    assert 30 < len(times) < 1000
    assert times[-1] < 300.0
    assert max(after - before for before, after in itertools.pairwise(times)) <= 8.0


# Estimates


def test_the_estimate_is_bytes_by_four_and_three_per_message() -> None:
    tool = ToolSpec("clock", "Tells the time.")
    chat = Chat((Message("system", "12345678"), Message("user", "éé")))

    assert raw_estimate(Text("12345678")) == 2
    assert raw_estimate(Text("")) == 1
    assert raw_estimate(chat) == 3 + (3 + 2) + (3 + 1)
    assert raw_estimate(Chat(chat.messages, (tool,))) > raw_estimate(chat)


@given(st.integers(1, 10_000), st.floats(0.2, 5.0), st.integers(5, 60))
def test_the_estimate_converges_to_what_the_remote_counts(raw: int, factor: float, answers: int) -> None:
    actual, calibration = max(1, round(raw * factor)), Calibration()
    for _ in range(answers):
        calibration = observe(calibration, raw, actual)

    assert math.isclose(calibration.ratio, min(8.0, max(1 / 8, actual / raw)), rel_tol=1e-6)
    if 1 / 8 < actual / raw < 8:
        assert abs(corrected(calibration, raw) - actual) <= 1


@given(st.lists(st.tuples(st.integers(-5, 100), st.integers(-5, 10**9)), max_size=30))
def test_absurd_reports_cannot_take_the_estimate_out_of_bounds(reports: list[tuple[int, int]]) -> None:
    calibration = Calibration()
    for raw, actual in reports:
        calibration = observe(calibration, raw, actual)

    assert 1 / 8 <= calibration.ratio <= 8.0
    assert corrected(calibration, 1) >= 1
