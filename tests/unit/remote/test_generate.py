"""Answers of a remote that works, over real connections."""

from __future__ import annotations

import asyncio
import json
import math

import pytest

from agent_runtime.llm.base import (
    Chat,
    Delta,
    Encoded,
    GenerationError,
    Grammar,
    Prompt,
    Result,
    Sampling,
    Text,
    TokenLogprob,
)
from agent_runtime.llm.chat import Message, ToolCall, ToolSpec
from agent_runtime.llm.remote import RemoteBackend
from agent_runtime.llm.tool_calls import parse_tool_calls
from tests.unit.remote.conftest import KEY, Connect
from tests.unit.remote.standin import (
    Script,
    piece,
    raw_stream,
    refusal,
    silence,
    sse,
    status,
    stream,
    token,
    usage,
    well_behaved,
)

QUESTION = Chat((Message("user", "What is the capital of France?"),))


async def collect(
    backend: RemoteBackend,
    prompt: Prompt = QUESTION,
    sampling: Sampling | None = None,
    deadline: float | None = None,
) -> tuple[list[Delta], Result]:
    """All events of one answer."""
    running = backend.generate(backend.encode(prompt), sampling or Sampling(max_tokens=16), deadline)
    events = [event async for event in running.events()]
    await running.ended()
    assert isinstance(events[-1], Result)
    return [event for event in events if isinstance(event, Delta)], events[-1]


async def failure(
    backend: RemoteBackend,
    prompt: Prompt = QUESTION,
    sampling: Sampling | None = None,
    deadline: float | None = None,
) -> GenerationError:
    """The error of one answer."""
    with pytest.raises(GenerationError) as caught:
        await collect(backend, prompt, sampling, deadline)
    return caught.value


async def test_a_streamed_conversation_is_its_pieces_its_end_and_its_usage(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.chat(well_behaved("Par", "is", "."))

    deltas, result = await collect(backend)

    assert [delta.text for delta in deltas] == ["Par", "is", "."]
    assert result == Result("Paris.", "stop", 7, 3, first_token_at=1000.0)
    assert backend.progress.steps == 5  # every chunk of the answer is progress


async def test_the_request_streams_and_carries_the_key_and_the_remote_models_name(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.chat(well_behaved("Paris"))

    await collect(backend)

    seen = remote.seen[0]
    assert (seen.method, seen.path) == ("POST", "/v1/chat/completions")
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.body == {
        "model": "big",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 16,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_raw_text_goes_to_completions(backend: RemoteBackend, remote: Script) -> None:
    remote.text(
        stream({"choices": [{"index": 0, "text": " Paris", "finish_reason": None}]},
               {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}, usage(4, 1))
    )  # fmt: skip

    _, result = await collect(backend, Text("The capital of France is"), Sampling(max_tokens=1))

    assert result == Result(" Paris", "length", 4, 1, first_token_at=1000.0)
    assert remote.bodies[0]["prompt"] == "The capital of France is"
    assert "messages" not in remote.bodies[0]


async def test_a_whole_conversation_with_tools_is_passed_on(backend: RemoteBackend, remote: Script) -> None:
    remote.chat(well_behaved("Sunny."))
    weather = ToolSpec("weather", "Tells the weather.", {"type": "object", "properties": {"city": {}}})
    conversation = Chat(
        (
            Message("system", "Be brief."),
            Message("user", "Weather in Paris?"),
            Message("assistant", "", (ToolCall("call_1", "weather", '{"city":"Paris"}'),)),
            Message("tool", "sunny", tool_call_id="call_1", name="weather"),
        ),
        (weather,),
    )

    await collect(backend, conversation)

    assert remote.bodies[0]["tools"] == [weather.openai()]
    assert remote.bodies[0]["messages"][2:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function",
                 "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
            ],
        },
        {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
    ]  # fmt: skip


async def test_native_tool_calls_come_back_as_text_in_the_hermes_form(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.chat(
        stream(
            piece("Let me look."),
            piece(tool_calls=[{"index": 0, "id": "a", "type": "function",
                               "function": {"name": "weather", "arguments": ""}}]),
            piece(tool_calls=[{"index": 0, "function": {"arguments": '{"city": "</tool'}}]),
            piece(tool_calls=[{"index": 0, "function": {"arguments": '_call>"}'}}]),
            piece(tool_calls=[{"index": 1, "id": "b", "function": {"name": "clock", "arguments": ""}}]),
            piece(finish="tool_calls"),
            usage(20, 9),
        )
    )  # fmt: skip

    deltas, result = await collect(backend)

    said, first, second = result.text.split("\n")
    assert "".join(delta.text for delta in deltas) == result.text
    assert said == "Let me look."
    blocks = [block.removeprefix("<tool_call>").removesuffix("</tool_call>") for block in (first, second)]
    assert [json.loads(block) for block in blocks] == [
        {"name": "weather", "arguments": {"city": "</tool_call>"}},
        {"name": "clock", "arguments": {}},
    ]
    assert result.text.count("</tool_call>") == 2  # an argument cannot end the block
    assert result.finish_reason == "stop"
    tools = [ToolSpec("weather", "Tells the weather."), ToolSpec("clock", "Tells the time.")]
    assert parse_tool_calls(result.text, tools, str) == (
        "Let me look.",
        (ToolCall("0", "weather", '{"city": "</tool_call>"}'), ToolCall("1", "clock", "{}")),
    )


async def test_log_probabilities_come_with_their_alternatives(backend: RemoteBackend, remote: Script) -> None:
    content = [token("Par", -0.25, ("Par", -0.25), ("Lyon", -2.5))]
    remote.chat(stream(piece("Par", logprobs={"content": content}), piece(finish="stop"), usage(7, 1)))

    deltas, _ = await collect(backend, sampling=Sampling(max_tokens=1, top_logprobs=2))

    assert remote.bodies[0]["logprobs"] is True
    assert remote.bodies[0]["top_logprobs"] == 2
    top = (("Par", b"Par", -0.25), ("Lyon", b"Lyon", -2.5))
    assert deltas[0].logprobs == (TokenLogprob("Par", b"Par", -0.25, top),)


async def test_log_probabilities_of_completions_are_read_from_their_parallel_lists(
    backend: RemoteBackend, remote: Script
) -> None:
    lists = {"tokens": [" Par"], "token_logprobs": [-0.5], "top_logprobs": [{" Lyon": -3.0, " Par": -0.5}]}
    choice = {"index": 0, "text": " Par", "logprobs": lists, "finish_reason": "stop"}
    remote.text(stream({"choices": [choice]}, usage(4, 1)))

    deltas, _ = await collect(backend, Text("The capital is"), Sampling(max_tokens=1, top_logprobs=2))

    assert remote.bodies[0]["logprobs"] == 2
    top = ((" Par", b" Par", -0.5), (" Lyon", b" Lyon", -3.0))
    assert deltas[0].logprobs == (TokenLogprob(" Par", b" Par", -0.5, top),)


async def test_a_json_schema_becomes_a_strict_response_format(backend: RemoteBackend, remote: Script) -> None:
    remote.chat(well_behaved('{"city":', '"Paris"}'))
    grammar = Grammar("json_schema", '{"type": "object"}')

    _, result = await collect(backend, sampling=Sampling(max_tokens=16, grammar=grammar))

    assert result.text == '{"city":"Paris"}'
    assert remote.bodies[0]["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
    }


async def test_an_answer_that_ignores_the_response_format_is_an_error(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.chat(well_behaved("Paris, of course."))
    sampling = Sampling(max_tokens=16, grammar=Grammar("json_schema", "{}"))

    error = await failure(backend, sampling=sampling)

    assert error.code == "remote_failed"


@pytest.mark.parametrize(
    ("prompt", "grammar"),
    [
        (QUESTION, Grammar("regex", "[a-z]+")),
        (QUESTION, Grammar("lark", 'start: "a"')),
        (QUESTION, Grammar("json_schema", "{")),
        (Text("Paris"), Grammar("json_schema", "{}")),
    ],
)
async def test_a_grammar_the_api_cannot_carry_is_refused_before_anything_is_sent(
    backend: RemoteBackend, remote: Script, prompt: Prompt, grammar: Grammar
) -> None:
    error = await failure(backend, prompt, Sampling(max_tokens=16, grammar=grammar))

    assert error.code == "invalid_grammar"
    assert remote.seen == []


async def test_an_answer_without_usage_has_estimated_counts(backend: RemoteBackend, remote: Script) -> None:
    remote.chat(stream(piece("Paris"), piece(finish="stop")))

    _, result = await collect(backend)

    assert result.prompt_tokens == backend.encode(QUESTION).count
    assert result.completion_tokens == 2  # five bytes, four to a token


@pytest.mark.parametrize("then", ["cut", "stall"])
async def test_what_goes_wrong_after_the_end_of_the_answer_harms_nobody(
    connect: Connect, remote: Script, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    monkeypatch.setattr("agent_runtime.llm.remote.backend.USAGE_SECONDS", 0.1)
    remote.chat(stream(piece("Paris"), piece(finish="stop"), then=then))

    _, result = await collect(connect())

    assert (result.text, result.finish_reason) == ("Paris", "stop")


async def test_usage_teaches_the_estimate(backend: RemoteBackend, remote: Script) -> None:
    before = backend.encode(QUESTION).count
    remote.chat(well_behaved("Paris", prompt_tokens=3 * before))

    await collect(backend)

    assert backend.calibration.ratio == 3.0
    assert backend.encode(QUESTION).count == 3 * before


async def test_encoding_neither_asks_the_remote_nor_claims_tokens(
    backend: RemoteBackend, remote: Script
) -> None:
    encoded = backend.encode(QUESTION)

    assert encoded.ids is None
    assert encoded.count == 3 + 3 + 8  # an answer, a message, 30 bytes
    assert remote.seen == []


async def test_answers_share_a_connection(backend: RemoteBackend, remote: Script) -> None:
    remote.chat(well_behaved("Paris"))

    await collect(backend)
    await collect(backend)

    assert len({seen.peer for seen in remote.seen}) == 1


async def test_cancelling_closes_the_connection_and_the_remote_sees_it(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.chat(stream(piece("Par"), then="stall"))
    running = backend.generate(backend.encode(QUESTION), Sampling(max_tokens=16))
    events = running.events()
    assert await anext(events) == Delta("Par")

    running.cancel()
    await running.ended()

    assert await asyncio.to_thread(remote.client_left.wait, 20)
    with pytest.raises(GenerationError, match="cancelled"):
        await anext(events)


async def test_cancelling_before_the_first_byte_closes_the_connection_too(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.chat(silence)
    running = backend.generate(backend.encode(QUESTION), Sampling(max_tokens=16))
    assert await asyncio.to_thread(remote.waiting.wait, 20)

    running.cancel()
    await running.ended()

    assert await asyncio.to_thread(remote.client_left.wait, 20)


async def test_cancelling_at_once_or_twice_or_too_late_is_harmless(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.chat(well_behaved("Paris"))
    early = backend.generate(backend.encode(QUESTION), Sampling(max_tokens=16))
    early.cancel()
    early.cancel()
    await early.ended()
    with pytest.raises(GenerationError, match="cancelled"):
        await anext(early.events())

    late = backend.generate(backend.encode(QUESTION), Sampling(max_tokens=16))
    events = [event async for event in late.events()]
    late.cancel()

    assert isinstance(events[-1], Result)


async def test_an_answer_nobody_reads_ends_all_the_same(backend: RemoteBackend, remote: Script) -> None:
    remote.chat(well_behaved("Paris"))
    running = backend.generate(backend.encode(QUESTION), Sampling(max_tokens=16))

    await running.ended()

    assert len(remote.seen) == 1


async def test_closing_fails_what_runs_and_what_comes_later(backend: RemoteBackend, remote: Script) -> None:
    remote.chat(stream(piece("Par"), then="stall"))
    running = backend.generate(backend.encode(QUESTION), Sampling(max_tokens=16))
    events = running.events()
    await anext(events)

    backend.close()

    with pytest.raises(GenerationError) as caught:
        await anext(events)
    assert caught.value.code == "server_draining"
    assert await asyncio.to_thread(remote.client_left.wait, 20)
    assert (await failure(backend)).code == "server_draining"
    with pytest.raises(GenerationError) as refused:
        await backend.score(backend.encode(QUESTION), ["a", "b"])
    assert refused.value.code == "server_draining"
    assert len(remote.seen) == 1


async def test_the_deadline_ends_an_answer_with_its_own_error(
    connect: Connect, remote: Script, clock: object
) -> None:
    remote.chat(stream(piece("Par"), then="stall"))

    error = await failure(connect(), deadline=1000.3)

    assert error.code == "deadline_exceeded"
    assert await asyncio.to_thread(remote.client_left.wait, 20)


async def test_a_deadline_that_has_passed_sends_nothing(backend: RemoteBackend, remote: Script) -> None:
    error = await failure(backend, deadline=999.0)

    assert error.code == "deadline_exceeded"
    assert remote.seen == []


async def test_a_model_that_wants_max_completion_tokens_gets_it_from_then_on(
    backend: RemoteBackend, remote: Script
) -> None:
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. "
    remote.chat(refusal(words + "Use 'max_completion_tokens' instead."), well_behaved("Paris"))

    await collect(backend)
    await collect(backend)

    limits = [(b.get("max_tokens"), b.get("max_completion_tokens")) for b in remote.bodies]
    assert limits == [(16, None), (None, 16), (None, 16)]


async def test_a_server_that_refuses_stream_options_is_asked_without_them_from_then_on(
    backend: RemoteBackend, remote: Script
) -> None:
    detail = [{"type": "extra_forbidden", "loc": ["body", "stream_options", "include_usage"]}]
    remote.chat(status(422, {"message": {"detail": detail}}), well_behaved("Paris"))

    await collect(backend)
    await collect(backend)

    assert ["stream_options" in body for body in remote.bodies] == [True, False, False]


async def test_a_refusal_of_logprobs_is_remembered_and_said(backend: RemoteBackend, remote: Script) -> None:
    remote.chat(refusal("This model doesn't support logprobs."), well_behaved("Paris"))
    sampling = Sampling(max_tokens=16, top_logprobs=5)

    first = await failure(backend, sampling=sampling)
    second = await failure(backend, sampling=sampling)

    assert (first.code, second.code) == ("remote_refused", "remote_refused")
    assert backend.capabilities.top_logprobs == -1
    assert len(remote.seen) == 1  # the second was refused here
    assert (await collect(backend))[1].text == "Paris"


async def test_a_smaller_bound_of_logprobs_is_learnt_from_the_refusal(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.chat(refusal("Requested logprobs of 20, which is greater than max allowed: 5"))

    await failure(backend, sampling=Sampling(max_tokens=16, top_logprobs=20))

    assert backend.capabilities.top_logprobs == 5


async def test_a_refusal_of_logprobs_together_with_tools_says_nothing_of_logprobs_alone(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.chat(refusal("logprobs is not supported with tools + stream"))
    prompt = Chat(QUESTION.messages, (ToolSpec("clock", "Tells the time."),))

    error = await failure(backend, prompt, Sampling(max_tokens=16, top_logprobs=5))

    assert error.code == "remote_refused"
    assert backend.capabilities.top_logprobs == 20


async def test_logprobs_that_are_silently_left_out_are_an_error_and_remembered(
    backend: RemoteBackend, remote: Script
) -> None:
    remote.chat(well_behaved("Paris"))

    error = await failure(backend, sampling=Sampling(max_tokens=16, top_logprobs=0))

    assert error.code == "remote_refused"
    assert backend.capabilities.top_logprobs == -1


async def test_events_cut_anywhere_and_comments_between_them_change_nothing(
    backend: RemoteBackend, remote: Script
) -> None:
    whole = b"".join(
        [
            b": PROCESSING\r\n\r\n",
            sse(piece("Pär")),
            b":\n\n",
            sse(piece("is", finish="stop")),
            b"data: [DONE]\n\n",
        ]
    )
    remote.chat(raw_stream(*(whole[i : i + 1] for i in range(len(whole)))))

    _, result = await collect(backend)

    assert result.text == "Päris"


async def test_many_answers_at_once_do_not_mix(backend: RemoteBackend, remote: Script) -> None:
    async def echo(exchange: object) -> None:
        question = exchange.seen.body["messages"][0]["content"]  # type: ignore[attr-defined]
        await stream(piece(question), piece(finish="stop"), usage(1, 1))(exchange)  # type: ignore[arg-type]

    remote.chat(echo)
    questions = [f"question {number}" for number in range(50)]

    answers = await asyncio.gather(
        *(collect(backend, Chat((Message("user", question),))) for question in questions)
    )

    assert [result.text for _, result in answers] == questions


async def test_what_the_remote_thinks_aloud_is_not_its_answer(backend: RemoteBackend, remote: Script) -> None:
    remote.chat(stream(piece(reasoning_content="Hmm, France."), piece("Paris"), piece(finish="stop")))

    _, result = await collect(backend)

    assert result.text == "Paris"


async def test_a_request_that_json_cannot_hold_is_refused_before_anything_is_sent(
    backend: RemoteBackend, remote: Script
) -> None:
    tool = ToolSpec("clock", "Tells the time.", {"type": "object", "default": math.nan})

    error = await failure(backend, Chat(QUESTION.messages, (tool,)))

    assert error.code == "remote_refused"
    assert remote.seen == []


async def test_token_ids_are_the_remotes_business(backend: RemoteBackend) -> None:
    assert not backend.capabilities.token_ids
    with pytest.raises(GenerationError, match="token ids cannot be decoded here"):
        backend.decode([1, 2, 3])


async def test_half_a_surrogate_pair_in_a_prompt_is_sent(backend: RemoteBackend, remote: Script) -> None:
    remote.chat(well_behaved("?"))

    encoded = Encoded(Chat((Message("user", "a\ud83d"),)), None, 1)
    running = backend.generate(encoded, Sampling(max_tokens=1))
    events = [event async for event in running.events()]

    assert isinstance(events[-1], Result)
    assert remote.bodies[0]["messages"][0]["content"] == "a\ud83d"
