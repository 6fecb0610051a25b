"""Probabilities of candidates from what a remote reports, over real connections."""

from __future__ import annotations

import asyncio
import math

import pytest

from agent_runtime.llm.base import Chat, GenerationError, Prompt, Sampling, Score, Text
from agent_runtime.llm.chat import Message
from agent_runtime.llm.remote import RemoteBackend
from tests.unit.remote.conftest import Clock, Connect, Waits
from tests.unit.remote.standin import (
    Body,
    Exchange,
    Handler,
    Script,
    refusal,
    silence,
    status,
    token,
    well_behaved,
)

PROMPT = Text("The capital of France is")
LOGPROBS = {" Paris": -0.5, " Lyon": -2.0, " New": -4.0, " York": -1.0, " ": -9.0, "Paris": -7.0}
"""What the stand-in's model thinks of a token, wherever it stands; -3 of every other one."""


def words(text: str) -> list[str]:
    """A tokenizer as GPT's are: a space belongs to the word after it."""
    tokens: list[str] = []
    for character in text:
        if character == " " or not tokens:
            tokens.append(character)
        else:
            tokens[-1] += character
    return tokens


def echoing(*, least_tokens: int = 0) -> Handler:
    """Completions as vLLM answers them with `echo`: the prompt's tokens, the first one without a value."""

    async def handler(exchange: Exchange) -> None:
        body = exchange.seen.body
        if body["max_tokens"] < least_tokens:
            return await refusal(f"max_tokens must be at least {least_tokens}, got 0.")(exchange)
        tokens = words(body["prompt"])
        values: list[float | None] = [None, *(LOGPROBS.get(word, -3.0) for word in tokens[1:])]
        text = body["prompt"]
        if body["max_tokens"] == 1:
            tokens, values, text = [*tokens, " next"], [*values, -0.1], text + " next"
        offsets = [sum(map(len, tokens[:index])) for index in range(len(tokens))]
        logprobs = {"tokens": tokens, "token_logprobs": values, "text_offset": offsets, "top_logprobs": None}
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": "length"}
        return await status(200, {"choices": [choice], "usage": {"prompt_tokens": 1}})(exchange)

    return handler


def choosing(*top: tuple[str, float], **choice: object) -> Handler:
    """A conversation's first token with these alternatives."""
    content = [token(top[0][0], top[0][1], *top)] if top else None
    fields: Body = {"index": 0, "message": {"content": "A"}, "logprobs": {"content": content}} | choice
    return status(200, {"choices": [fields]})


async def score(backend: RemoteBackend, candidates: list[str], prompt: Prompt = PROMPT) -> list[Score]:
    """The scores."""
    return await backend.score(backend.encode(prompt), candidates)


async def refused(backend: RemoteBackend, candidates: list[str], prompt: Prompt = PROMPT) -> GenerationError:
    """Why there are none."""
    with pytest.raises(GenerationError) as caught:
        await score(backend, candidates, prompt)
    return caught.value


# Echo


async def test_raw_text_is_scored_by_the_candidates_own_tokens(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.text(echoing())

    scores = await score(backend, [" Paris", " Lyon", " New York"])

    assert scores == [Score(" Paris", (-0.5,)), Score(" Lyon", (-2.0,)), Score(" New York", (-4.0, -1.0))]
    assert {seen.path for seen in remote.seen} == {"/v1/completions"}
    prompt = "The capital of France is Paris"
    assert remote.bodies[0] == {
        "model": "big", "prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 0,
    }  # fmt: skip


async def test_a_space_at_the_end_of_the_prompt_is_counted_to_the_candidate(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.text(echoing())

    scores = await score(backend, ["Paris", "Lyon"], Text("The capital of France is "))

    assert scores == [Score("Paris", (-0.5,)), Score("Lyon", (-2.0,))]


async def test_a_server_that_must_generate_a_token_is_given_one_which_is_not_counted(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.text(echoing(least_tokens=1))

    scores = await score(backend, [" Paris", " Lyon"])
    await score(backend, [" Paris"])

    assert scores == [Score(" Paris", (-0.5,)), Score(" Lyon", (-2.0,))]
    assert [body["max_tokens"] for body in remote.bodies] == [0, 1, 1, 1]


@pytest.mark.parametrize(
    "answer",
    [
        refusal("Unsupported 'echo'."),
        refusal("This is a chat model and not supported in the v1/completions endpoint.", 404),
        status(500, {"error": {"message": "Only no echo is supported", "code": 500}}),
        status(405, b""),
        status(200, {"choices": [{"text": " Paris", "logprobs": None}]}),
    ],
)
async def test_a_server_without_echo_is_asked_for_a_label_and_not_for_an_echo_again(
    backend: RemoteBackend, remote: Script, waits: Waits, answer: Handler
) -> None:
    remote.text(answer)
    remote.chat(choosing(("A", -0.1), ("B", -3.0)))

    first = await score(backend, [" Paris", " Lyon"])
    second = await score(backend, [" Paris", " Lyon"])

    assert first == second == [Score(" Paris", (-0.1,)), Score(" Lyon", (-3.0,))]
    assert [seen.path for seen in remote.seen] == ["/v1/completions", *["/v1/chat/completions"] * 2]
    assert waits.seconds == []


async def test_a_refusal_that_is_not_about_echo_is_not_taken_for_one(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.text(refusal("The prompt is too long."), echoing())

    assert (await refused(backend, [" Paris"])).code == "remote_refused"
    assert await score(backend, [" Paris"]) == [Score(" Paris", (-0.5,))]


@pytest.mark.parametrize("candidates", [["yes", "yes, but"], [" Paris", "Lyon"], ["", " Lyon"]])
async def test_candidates_that_do_not_exclude_each_other_are_asked_by_label(
    backend: RemoteBackend, remote: Script, candidates: list[str]
) -> None:
    remote.chat(choosing(("A", -0.1), ("B", -3.0)))

    assert [s.logprob for s in await score(backend, candidates)] == [-0.1, -3.0]
    assert {seen.path for seen in remote.seen} == {"/v1/chat/completions"}


async def test_tokens_that_cannot_be_told_apart_are_asked_by_label(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.text(echoing())
    remote.chat(choosing(("A", -0.1), ("B", -3.0)))

    scores = await score(backend, ["ward", "wise"], Text("like"))  # one token each: "likeward", "likewise"

    assert [s.logprob for s in scores] == [-0.1, -3.0]
    assert await score(backend, [" Paris"]) == [Score(" Paris", (-0.5,))]  # echo is not given up for it


async def test_many_candidates_are_asked_eight_at_a_time(backend: RemoteBackend, remote: Script) -> None:
    under_way, most, eight, echo = 0, 0, asyncio.Event(), echoing()

    async def counting(exchange: Exchange) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 8:
            eight.set()
        if len(exchange.script.seen) > 1:  # the first goes alone: it finds out whether echo works
            await eight.wait()
        await echo(exchange)
        under_way -= 1

    remote.text(counting)
    candidates = [f" city{number:03}" for number in range(64)]

    scores = await score(backend, candidates)

    assert [s.candidate for s in scores] == candidates
    assert most == 8
    assert len({seen.peer for seen in remote.seen}) == 8  # a ninth would have opened a ninth connection


async def test_one_failure_among_many_is_the_error_of_all(backend: RemoteBackend, remote: Script) -> None:
    remote.text(echoing(), status(500, b"down"))

    assert (await refused(backend, [" Paris", " Lyon", " Nice", " Lille"])).code in (
        "remote_failed",
        "remote_unreachable",  # the circuit opened meanwhile
    )


# Labels


async def test_a_conversation_is_scored_by_the_label_the_model_would_choose(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.chat(choosing(("B", -0.2), ("A", -1.9), (" B", -5.0), ("Paris", -6.0)))
    conversation = Chat((Message("system", "Be brief."), Message("user", "Capital of France?")))

    scores = await score(backend, ["Lyon", "Paris"], conversation)

    assert [s.candidate for s in scores] == ["Lyon", "Paris"]
    assert scores[0].token_logprobs == (-1.9,)
    assert math.isclose(scores[1].logprob, math.log(math.exp(-0.2) + math.exp(-5.0)))
    body = remote.bodies[0]
    assert (body["logprobs"], body["top_logprobs"], body["max_tokens"]) == (True, 20, 1)
    assert "stream" not in body
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    question = body["messages"][1]["content"]
    assert question.startswith("Capital of France?\n\n")
    assert "A) Lyon\nB) Paris\n" in question


async def test_a_label_that_is_not_reported_gets_the_most_it_can_have(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.chat(choosing(("A", math.log(0.90)), ("The", math.log(0.06))))

    scores = await score(backend, ["Paris", "Lyon"])

    # 0.04 are left, which is less than the least likely token that was reported has.
    assert math.isclose(scores[1].logprob, math.log(0.04))


async def test_more_candidates_than_alternatives_are_refused(backend: RemoteBackend, remote: Script) -> None:
    error = await refused(backend, [f"c{n}" for n in range(21)], Chat((Message("user", "?"),)))

    assert error.code == "remote_refused"
    assert "at most 20 candidates, not 21" in str(error)
    assert remote.seen == []


async def test_a_remote_without_log_probabilities_says_what_to_do(
    backend: RemoteBackend, remote: Script
) -> None:
    conversation = Chat((Message("user", "?"),))
    for answer in (choosing(), refusal("logprobs are not available for this model", 403)):
        remote.chat(answer)

        error = await refused(backend, ["a", "b"], conversation)

        assert error.code == "remote_refused"
        assert "offers no log-probabilities" in str(error)
        assert "local model" in str(error)
    assert backend.capabilities.top_logprobs == -1
    assert len(remote.seen) == 1  # after the first nobody asks again


async def test_a_server_with_fewer_alternatives_is_asked_for_as_many_as_it_has(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.chat(refusal("top_logprobs must be <= 5"), choosing(("A", -0.1), ("B", -3.0)))
    conversation = Chat((Message("user", "?"),))

    assert [s.logprob for s in await score(backend, ["a", "b"], conversation)] == [-0.1, -3.0]
    assert [body["top_logprobs"] for body in remote.bodies] == [20, 5]
    assert "at most 5 candidates" in str(await refused(backend, list("abcdef"), conversation))


async def test_a_model_that_answers_no_letter_is_an_error_not_a_uniform_guess(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.chat(choosing(("Well", -0.1), ("So", -3.0)))

    error = await refused(backend, ["a", "b"], Chat((Message("user", "?"),)))

    assert error.code == "remote_failed"


@pytest.mark.parametrize(
    "answer",
    [
        status(200, b"<html>"),
        status(200, {"choices": []}),
        status(200, {"choices": [{"logprobs": {"content": [{"token": "A", "logprob": "high"}]}}]}),
        status(200, b'{"choices": [{"logprobs": {"content": [{"token": "A", "logprob": NaN}]}}]}'),
        status(200, b"\xff\xfe"),
    ],
)
async def test_garbage_is_an_error(backend: RemoteBackend, remote: Script, answer: Handler) -> None:
    remote.chat(answer)

    error = await refused(backend, ["a", "b"], Chat((Message("user", "?"),)))

    assert error.code == "remote_failed"


async def test_no_candidates_have_no_scores_and_cost_nothing(backend: RemoteBackend, remote: Script) -> None:
    assert await score(backend, []) == []
    assert remote.seen == []


async def test_scoring_is_retried_like_everything_else(
    backend: RemoteBackend, remote: Script, waits: Waits
) -> None:
    remote.chat(status(500, b"down"), choosing(("A", -0.1), ("B", -3.0)))

    scores = await score(backend, ["a", "b"], Chat((Message("user", "?"),)))

    assert len(scores) == 2
    assert len(waits.seconds) == 1


async def test_scoring_ends_at_its_deadline_and_closes_the_connection(
    connect: Connect, remote: Script, clock: Clock
) -> None:
    remote.chat(silence)
    backend = connect()

    with pytest.raises(GenerationError) as caught:
        await backend.score(backend.encode(Chat((Message("user", "?"),))), ["a", "b"], clock.now + 0.2)

    assert caught.value.code == "deadline_exceeded"
    assert await asyncio.to_thread(remote.client_left.wait, 20)


async def test_a_cancelled_caller_takes_its_request_along(backend: RemoteBackend, remote: Script) -> None:
    remote.chat(silence)
    task = asyncio.create_task(score(backend, ["a", "b"], Chat((Message("user", "?"),))))
    assert await asyncio.to_thread(remote.waiting.wait, 20)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(remote.client_left.wait, 20)


async def test_closing_ends_scoring_with_server_draining(backend: RemoteBackend, remote: Script) -> None:
    remote.chat(silence)
    task = asyncio.create_task(score(backend, ["a", "b"], Chat((Message("user", "?"),))))
    assert await asyncio.to_thread(remote.waiting.wait, 20)

    backend.close()

    with pytest.raises(GenerationError) as caught:
        await task
    assert caught.value.code == "server_draining"


async def test_what_scoring_learnt_holds_for_generating(backend: RemoteBackend, remote: Script) -> None:
    remote.chat(refusal("Use 'max_completion_tokens' instead."), choosing(("A", -0.1)), well_behaved("Paris"))

    await score(backend, ["a"], Chat((Message("user", "?"),)))
    running = backend.generate(backend.encode(Chat((Message("user", "?"),))), Sampling(max_tokens=4))
    _ = [event async for event in running.events()]

    assert ["max_completion_tokens" in body for body in remote.bodies] == [False, True, True]
