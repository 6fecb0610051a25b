"""POST /v1/responses over HTTP, mostly by the official client, which validates every answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseFunctionToolCall

from agent_runtime.agent.errors import StoreUnavailableError
from agent_runtime.agent.redis_store import RedisStore
from agent_runtime.agent.store import Change, MemoryStore
from agent_runtime.api import responses_store
from agent_runtime.api.responses_objects import Reading
from agent_runtime.contract import ModelConfig
from agent_runtime.llm.base import (
    Capabilities,
    Delta,
    Encoded,
    GenerationError,
    Result,
    Sampling,
    TokenLogprob,
)
from agent_runtime.llm.chat import ToolSpec
from tests.fakes.scripted_backend import ScriptedBackend, ScriptedGeneration
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for
from tests.unit.runtime.served_api import MODEL, ServedApi, served

ANSWER = "Paris is the capital."
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}
CALLING = '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
TOOLS = Capabilities(chat_tools=True, grammar=frozenset({"json_schema"}))


def always(answer: str, capabilities: Capabilities = TOOLS) -> ScriptedBackend:
    """A model that always says this."""
    return ScriptedBackend(lambda prompt: answer, capabilities=capabilities)


@pytest.fixture
def backend() -> ScriptedBackend:
    """A model with one answer."""
    return always(ANSWER)


@pytest.fixture
def api(backend: ScriptedBackend) -> Iterator[ServedApi]:
    """A server that keeps responses."""
    with served(backend, sessions={}, agent={"system_prompt": "You know geography."}) as running:
        yield running


def create(client: openai.OpenAI, given: Any = "Capital of France?", **options: Any) -> Any:
    """A whole response."""
    return client.responses.create(model=MODEL, input=given, **options)


def refused(call: Any) -> tuple[int, str | None, str | None]:
    """Status, code and field of the error that a call meets."""
    with pytest.raises(openai.APIStatusError) as error:
        call()
    return error.value.status_code, error.value.code, error.value.param


# ---------------------------------------------------------------- one response


def test_an_answer_is_a_message_with_its_text_and_usage(api: ServedApi) -> None:
    response = create(api.client)

    assert response.output_text == ANSWER
    assert (response.status, response.error, response.incomplete_details) == ("completed", None, None)
    [message] = response.output
    assert (message.type, message.role, message.status) == ("message", "assistant", "completed")
    assert (message.content[0].annotations, message.content[0].logprobs) == ([], [])
    assert response.usage.input_tokens == 6  # the system prompt's words and the question's
    assert response.usage.output_tokens == 5  # four words and the end
    assert response.usage.total_tokens == 11


def test_a_response_repeats_the_settings_in_force(api: ServedApi) -> None:
    response = create(
        api.client, instructions="Be brief.", max_output_tokens=9, temperature=0.5, metadata={"a": "b"},
        user="u", tools=[WEATHER], parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}},
    )  # fmt: skip

    assert (response.instructions, response.max_output_tokens) == ("Be brief.", 9)
    assert (response.temperature, response.top_p, response.metadata) == (0.5, 1.0, {"a": "b"})
    assert (response.user, response.parallel_tool_calls, response.tool_choice) == ("u", False, "auto")
    assert response.text.format.schema_ == {"type": "object"}
    assert response.tools[0].parameters == WEATHER["parameters"]
    assert (response.background, response.truncation, response.top_logprobs) == (False, "disabled", 0)


def test_instructions_follow_the_agents_own_and_hold_for_one_request(
    api: ServedApi, backend: ScriptedBackend
) -> None:
    first = create(api.client, "Hi", instructions="Be brief.")
    create(api.client, "And?", previous_response_id=first.id)

    assert backend.prompts[0] == "You know geography.\nBe brief.\nHi"
    assert backend.prompts[1] == (
        f"You know geography.\nUser: Hi\nAssistant: {ANSWER}\nUser: And?\nAssistant:"
    )


def test_an_answer_cut_at_its_limit_is_incomplete(api: ServedApi) -> None:
    response = create(api.client, max_output_tokens=2)

    assert (response.status, response.output_text) == ("incomplete", "Paris is")
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].status == "incomplete"


def test_an_empty_answer_is_an_empty_message() -> None:
    with served(always("")) as api:
        response = create(api.client)

    assert [item.type for item in response.output] == ["message"]
    assert response.output_text == ""


def test_what_the_model_cannot_do_is_refused_by_the_field_that_asks_for_it() -> None:
    logprobs: Any = ["message.output_text.logprobs"]
    with served(always(ANSWER, Capabilities(top_logprobs=-1))) as api:
        client = api.client

        assert refused(lambda: create(client, include=logprobs))[2] == "include"
        assert refused(lambda: create(client, text={"format": {"type": "json_object"}}))[2] == "text.format"
        forced = refused(lambda: create(client, tools=[WEATHER], tool_choice="required"))
        assert forced[2] == "tool_choice"
        assert refused(lambda: create(client, max_output_tokens=513))[2] == "max_output_tokens"
        assert refused(lambda: create(client, "word " * 3000)) == (400, "context_length_exceeded", "input")
        assert refused(lambda: client.responses.create(model="gpt-6", input="Hi"))[1] == "model_not_found"


# ---------------------------------------------------------------- tools


def test_a_call_is_an_item_of_its_own_and_can_be_sent_back_as_it_came() -> None:
    with served(always(f"Let me see. {CALLING}")) as api:
        response = create(api.client, tools=[WEATHER])
        message, call = response.output
        given: Any = [{"role": "user", "content": "Weather in Rome?"}, *response.output]
        given.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
        create(api.client, given, tools=[WEATHER])
        prompt = api.service.serving.backend.prompts[-1]  # type: ignore[union-attr]

    assert message.content[0].text == "Let me see."
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.name, json.loads(call.arguments), call.status) == ("weather", {"city": "Rome"}, "completed")
    assert prompt.endswith(
        '{"name": "weather", "arguments": {"city": "Rome"}}\nTool weather: sunny\nAssistant:'
    )


def test_a_result_goes_to_the_call_of_the_previous_response() -> None:
    with served(always(CALLING), sessions={}) as api:
        first = create(api.client, tools=[WEATHER])
        result: Any = {"type": "function_call_output", "call_id": first.output[0].call_id, "output": "sunny"}
        create(api.client, [result], tools=[WEATHER], previous_response_id=first.id)
        prompt = api.service.serving.backend.prompts[-1]  # type: ignore[union-attr]
        stray = refused(lambda: create(api.client, [result]))

    assert "Tool weather: sunny" in prompt
    assert stray == (400, "invalid_value", "input[0].call_id")


def test_without_parallel_calls_the_first_one_is_the_only_one() -> None:
    with served(always(CALLING + CALLING)) as api:
        both = create(api.client, tools=[WEATHER])
        one = create(api.client, tools=[WEATHER], parallel_tool_calls=False)

    assert [item.type for item in both.output] == ["function_call", "function_call"]
    assert both.output[0].call_id != both.output[1].call_id
    assert len(one.output) == 1


def test_strict_says_whether_the_arguments_were_certain_to_follow_the_schema() -> None:
    forced: Any = {"type": "function", "name": "weather"}
    with served(always(CALLING)) as api:
        chosen = create(api.client, tools=[WEATHER])
        must = create(api.client, tools=[WEATHER], tool_choice=forced)
        samplings = api.service.serving.backend.samplings  # type: ignore[union-attr]

    assert (chosen.tools[0].strict, must.tools[0].strict) == (False, True)
    assert (samplings[0].grammar, samplings[1].grammar.kind) == (None, "json_schema")
    assert must.tool_choice.name == "weather"


# ---------------------------------------------------------------- streams


def test_a_stream_tells_of_a_message_in_openais_order(api: ServedApi) -> None:
    events = api.events(input="Capital of France?")

    names = [name for name, _ in events]
    assert names == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.content_part.added", *["response.output_text.delta"] * 4, "response.output_text.done",
        "response.content_part.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert [data["type"] for _, data in events] == names
    assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
    assert "".join(data["delta"] for name, data in events if name.endswith("text.delta")) == ANSWER
    assert events[-1][1]["response"]["output"][0] == events[-2][1]["item"]


def test_a_stream_tells_of_calls_after_the_message() -> None:
    with served(always(f"Let me see. {CALLING}")) as api:
        events = api.events(input="Weather?", tools=[WEATHER])

    calls = [(name, data) for name, data in events if data.get("output_index") == 1]
    assert [name for name, _ in calls] == [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]
    assert calls[0][1]["item"] == calls[3][1]["item"] | {"arguments": "", "status": "in_progress"}
    assert calls[1][1]["delta"] == calls[2][1]["arguments"] == '{"city": "Rome"}'
    assert events[-1][1]["response"]["output"] == [
        data["item"] for name, data in events if name == "response.output_item.done"
    ]


@pytest.mark.parametrize("answer", [ANSWER, CALLING, f"See: {CALLING}", "", "<tool_call>not one"])
def test_the_official_client_accumulates_a_stream_to_its_response(answer: str) -> None:
    with served(always(answer)) as api:
        with api.client.responses.stream(model=MODEL, input="Hi", tools=[WEATHER]) as stream:
            seen = [event.type for event in stream]
            final = stream.get_final_response()
        whole = create(api.client, "Hi", tools=[WEATHER])

    assert seen[-1] == "response.completed"
    assert [item.type for item in final.output] == [item.type for item in whole.output]
    assert final.output_text == whole.output_text
    assert final.usage == whole.usage


def test_a_cut_stream_ends_incomplete(api: ServedApi) -> None:
    name, data = api.events(input="Hi", max_output_tokens=2)[-1]

    assert name == "response.incomplete"
    assert data["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert data["response"]["usage"]["output_tokens"] == 2


BITS = ["Hi ", "<tool", "_call>", '{"name": "weather", ', '"arguments": {}}', "</tool_call>", "é"]
PIECES = st.lists(st.sampled_from(BITS), max_size=8)


@given(PIECES, st.booleans(), st.sampled_from(["stop", "length"]))
def test_however_an_answer_is_cut_into_pieces_the_response_is_the_same(
    pieces: list[str], tools: bool, finish: Any
) -> None:
    offered = [ToolSpec("weather", "")] if tools else []
    text = "".join(pieces)

    def response(cut: list[str]) -> tuple[dict[str, Any], str]:
        reading = Reading({"id": "resp_1"}, offered, None, lambda prefix: f"{prefix}_1")
        events = [event for piece in cut for event in reading.piece(Delta(piece))]
        events += reading.end(Result(text, finish, 3, 4), 0.0)
        deltas = [data["delta"] for name, data in events if name == "response.output_text.delta"]
        return reading.response, "".join(deltas)

    assert response(pieces) == response([text])


def test_log_probabilities_go_with_the_text_they_made_and_none_with_a_call() -> None:
    def piece(text: str) -> Delta:
        return Delta(text, (TokenLogprob(text, text.encode(), -0.5, ((text, text.encode(), -0.5),)),))

    def tokens(*texts: str) -> tuple[list[str], list[str]]:
        reading = Reading({}, [ToolSpec("weather", "")], None, lambda prefix: prefix)
        events = [event for text in texts for event in reading.piece(piece(text))]
        events += reading.end(Result("".join(texts), "stop", 1, 1), 0.0)
        sent = [data["logprobs"] for name, data in events if name == "response.output_text.delta"]
        message = next((item for item in reading.response["output"] if item["type"] == "message"), None)
        kept = [] if message is None else message["content"][0]["logprobs"]
        return [one["token"] for many in sent for one in many], [one["token"] for one in kept]

    assert tokens("Hello", " there") == (["Hello", " there"], ["Hello", " there"])
    assert tokens("<tool_", "x") == (["<tool_", "x"], ["<tool_", "x"])
    assert tokens(CALLING) == ([], [])
    assert tokens("See", CALLING) == (["See"], ["See"])


# ---------------------------------------------------------------- failures


@dataclass
class BreakingBackend(ScriptedBackend):
    """Says one word, then `problem` happens, or nothing at all."""

    problem: Exception | None = None
    generations: list[BreakingGeneration] = field(default_factory=list)

    def generate(
        self, encoded: Encoded, sampling: Sampling, deadline: float | None = None, *, stream: bool = True
    ) -> BreakingGeneration:
        """One word and no more."""
        self.generations.append(BreakingGeneration(self, encoded, sampling))
        return self.generations[-1]


class BreakingGeneration(ScriptedGeneration):
    """See BreakingBackend."""

    cancelled = False

    async def events(self) -> AsyncIterator[Delta | Result]:
        """A word, then the problem."""
        yield Delta("Paris")
        problem = self._backend.problem  # type: ignore[attr-defined]
        if problem is not None:
            self._over.set()
            raise problem
        await asyncio.wait_for(self._cancelled.wait(), 60)
        self.cancelled = True
        raise GenerationError("cancelled", "cancelled")


def test_what_fails_before_the_first_word_is_an_http_error() -> None:
    failing = ScriptedBackend(lambda prompt: GenerationError("too big", "out_of_memory"))
    with served(failing) as api:
        assert refused(lambda: create(api.client))[:2] == (413, "out_of_memory")
        assert refused(lambda: create(api.client, stream=True))[:2] == (413, "out_of_memory")


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (GenerationError("late", "deadline_exceeded"), "server_error"),
        (GenerationError("too big", "out_of_memory"), "invalid_prompt"),
        (GenerationError("busy", "remote_overloaded"), "rate_limit_exceeded"),
    ],
)
def test_a_model_that_fails_later_makes_a_failed_response(problem: GenerationError, code: str) -> None:
    with served(BreakingBackend(problem=problem), sessions={}) as api:
        *before, last = create(api.client, stream=True)
        gone = refused(lambda: api.client.responses.retrieve(last.response.id))

    assert [event.type for event in before][-1] == "response.output_text.delta"
    assert (last.type, last.response.status) == ("response.failed", "failed")
    assert (last.response.error.code, last.response.output_text) == (code, "Paris")
    assert gone[:2] == (404, "response_not_found")


def test_a_defect_is_an_error_event_that_says_nothing_of_its_inside() -> None:
    with served(BreakingBackend(problem=RuntimeError("secret detail"))) as api:
        *before, last = create(api.client, stream=True)

    assert (last.type, last.code) == ("error", "internal_error")
    assert "secret" not in last.message
    assert last.sequence_number == before[-1].sequence_number + 1


def test_a_client_that_leaves_a_stream_ends_the_generation() -> None:
    backend = BreakingBackend()
    with served(backend, sessions={}) as api:
        with api.http.stream("POST", "/v1/responses", json={"input": "Hi", "stream": True}) as stream:
            next(stream.iter_lines())
        wait_for("the generation is cancelled", lambda: backend.generations[0].cancelled)
        wait_for("its slot is free", lambda: api.service.admission.load.running == 0)


# ---------------------------------------------------------------- kept responses


def test_a_kept_response_can_be_read_continued_and_deleted(api: ServedApi) -> None:
    response = create(api.client)

    assert api.client.responses.retrieve(response.id).to_dict() == response.to_dict()
    following = create(api.client, "And?", previous_response_id=response.id)
    deleted = api.http.delete(f"/v1/responses/{response.id}").json()
    assert deleted == {"id": response.id, "object": "response", "deleted": True}
    assert refused(lambda: api.client.responses.retrieve(response.id))[:2] == (404, "response_not_found")
    assert refused(lambda: api.client.responses.delete(response.id))[0] == 404
    assert create(api.client, "So?", previous_response_id=following.id).status == "completed"
    continued = refused(lambda: create(api.client, previous_response_id=response.id))
    assert continued == (400, "previous_response_not_found", "previous_response_id")


def test_a_streamed_response_is_kept_before_its_last_event(api: ServedApi) -> None:
    *_, last = create(api.client, stream=True)

    assert api.client.responses.retrieve(last.response.id).to_dict() == last.response.to_dict()


def test_a_response_is_not_kept_when_its_maker_says_so(api: ServedApi) -> None:
    response = create(api.client, store=False)

    assert response.to_dict()["store"] is False
    assert refused(lambda: api.client.responses.retrieve(response.id))[0] == 404


def test_without_sessions_nothing_is_kept_and_who_relies_on_it_is_told_how(backend: ScriptedBackend) -> None:
    with served(backend) as api:
        response = create(api.client)
        insisted = api.http.post("/v1/responses", json={"input": "Hi", "store": True})
        continued = api.http.post("/v1/responses", json={"input": "Hi", "previous_response_id": response.id})
        read = api.http.get(f"/v1/responses/{response.id}")

    assert response.to_dict()["store"] is False
    assert [answer.status_code for answer in (insisted, continued, read)] == [400, 400, 404]
    for answer in (insisted, continued, read):
        assert "agent.sessions" in answer.json()["error"]["message"]
    assert continued.json()["error"]["param"] == "previous_response_id"


def test_another_keys_response_does_not_exist(backend: ScriptedBackend, tmp_path: Path) -> None:
    with served(backend, sessions={}, keys_folder=tmp_path) as api:
        alice, bob = api.as_key("alice"), api.as_key("bob")
        response = create(alice)

        assert refused(lambda: create(api.client))[0] == 401
        assert refused(lambda: bob.responses.retrieve(response.id))[0] == 404
        assert refused(lambda: bob.responses.delete(response.id))[0] == 404
        assert refused(lambda: bob.responses.cancel(response.id))[0] == 404
        continued = refused(lambda: create(bob, previous_response_id=response.id))
        assert continued[1] == "previous_response_not_found"
        assert alice.responses.retrieve(response.id).id == response.id


def test_there_is_nothing_to_cancel(api: ServedApi) -> None:
    response = create(api.client)

    assert refused(lambda: api.client.responses.cancel(response.id))[:2] == (400, "not_background")
    assert refused(lambda: api.client.responses.cancel("resp_unknown"))[:2] == (404, "response_not_found")


def test_what_a_kept_response_cannot_give_is_refused_by_name(api: ServedApi) -> None:
    path = f"/v1/responses/{create(api.client).id}"

    assert api.http.get(path, params={"stream": "false"}).status_code == 200
    for name in ("stream", "starting_after", "include[]"):
        answer = api.http.get(path, params={name: "true"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


def test_a_kept_response_lives_as_long_as_the_stores_entries(backend: ScriptedBackend) -> None:
    now = [0.0]
    store = MemoryStore(ttl_seconds=60, clock=lambda: now[0])
    with served(backend, sessions={}, store=store) as api:
        response = create(api.client)
        now[0] = 59.0
        assert api.client.responses.retrieve(response.id).id == response.id
        now[0] = 61.0
        assert refused(lambda: api.client.responses.retrieve(response.id))[0] == 404


def test_a_conversation_too_large_to_keep_is_answered_all_the_same(
    backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_runtime.api.responses.MAX_CONVERSATION_BYTES", 1000)
    with served(backend, sessions={}) as api:
        response = create(api.client, "x" * 1000)
        insisted = refused(lambda: create(api.client, "x" * 1000, store=True))

    assert response.to_dict()["store"] is False
    assert insisted == (400, "invalid_value", "store")
    assert responses_store.MAX_CONVERSATION_BYTES == 2**20


class BrokenStore(MemoryStore):
    """Does not answer."""

    async def get(self, key: str) -> bytes | None:
        """Never."""
        raise StoreUnavailableError("ConnectionError")

    async def update(self, key: str, change: Change, ttl_seconds: float | None = None) -> bytes | None:
        """Never."""
        raise StoreUnavailableError("ConnectionError")


def test_a_store_that_does_not_answer_harms_only_who_relies_on_it(backend: ScriptedBackend) -> None:
    with served(backend, sessions={}, store=BrokenStore()) as api:
        response = create(api.client)
        insisted = refused(lambda: create(api.client, store=True))
        *_, last = create(api.client, store=True, stream=True)
        *_, quiet = create(api.client, stream=True)
        read = refused(lambda: api.client.responses.retrieve(response.id))

    assert (response.output_text, response.to_dict()["store"]) == (ANSWER, False)
    assert insisted[:2] == (503, "session_store_unavailable")
    assert (last.type, last.response.output_text) == ("response.failed", ANSWER)
    assert (quiet.type, quiet.response.to_dict()["store"]) == ("response.completed", False)
    assert read[:2] == (503, "session_store_unavailable")


def test_a_conversation_goes_on_at_another_replica_through_redis() -> None:
    first, second = always(CALLING), always(ANSWER)
    with RedisServer() as redis:
        with served(first, sessions={}, store=RedisStore(redis.url, "test:")) as api:
            response = create(api.client, "Weather?", tools=[WEATHER])
        with served(second, sessions={}, store=RedisStore(redis.url, "test:")) as api:
            result: Any = [
                {"type": "function_call_output", "call_id": response.output[0].call_id, "output": "sun"}
            ]
            create(api.client, result, tools=[WEATHER], previous_response_id=response.id)

    assert "User: Weather?" in second.prompts[0]
    assert "Tool weather: sun" in second.prompts[0]


def test_deeply_nested_schemas_are_repeated_and_kept_whole(api: ServedApi) -> None:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(300):
        schema = {"not": schema}
    tool = WEATHER | {"parameters": schema}

    answer = api.http.post("/v1/responses", json={"input": "Hi", "tools": [tool]})

    assert answer.json()["tools"][0]["parameters"] == schema
    assert api.http.get(f"/v1/responses/{answer.json()['id']}").json() == answer.json()


def test_numbers_that_are_not_json_never_come_back(api: ServedApi) -> None:
    body = '{"input": "Hi", "tools": [{"type": "function", "name": "f", "parameters": {"maximum": 1e999}}]}'

    answer = api.http.post("/v1/responses", content=body.encode())

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, None)
    assert answer.json()["error"]["code"] == "invalid_json"


# ---------------------------------------------------------------- a real model


@pytest.fixture(scope="module")
def geography_api(geography: Path) -> Iterator[ServedApi]:
    """The example model behind the API."""
    from agent_runtime.llm.local import load_backend

    config = ModelConfig(uri="model", served_name=MODEL, path=str(geography), device="cpu")
    backend = load_backend(config)
    with served(backend, sessions={}) as running:
        yield running
    backend.close()


def test_a_real_model_answers_whole_and_streamed_with_log_probabilities(geography_api: ServedApi) -> None:
    client, include = geography_api.client, ["message.output_text.logprobs"]
    question = "What is the capital of France?"

    whole: Any = create(client, question, include=include, top_logprobs=2)
    *events, last = create(client, question, include=include, top_logprobs=2, stream=True)

    assert whole.output_text == "Paris"
    tokens = whole.output[0].content[0].logprobs
    assert "".join(token.token for token in tokens).strip() == "Paris"
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens)
    assert last.response.output[0].content[0].text == "Paris"
    assert last.response.output[0].content[0].logprobs == tokens
    sent = [token for event in events if event.type.endswith("text.delta") for token in event.logprobs]
    assert [token.token for token in sent] == [token.token for token in tokens]
    kept = client.responses.retrieve(whole.id)
    assert (kept.output_text, kept.output[0].content[0].logprobs) == ("Paris", [])  # type: ignore[union-attr]


async def test_many_real_responses_at_once_are_each_their_own(geography_api: ServedApi) -> None:
    capitals = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo"}
    async with openai.AsyncOpenAI(
        base_url=f"{geography_api.url}/v1", api_key="none", max_retries=0,
        http_client=httpx2.AsyncClient(trust_env=False, timeout=60),
    ) as client:  # fmt: skip

        async def ask(country: str) -> str:
            stream = client.responses.stream(model=MODEL, input=f"What is the capital of {country}?")
            async with stream as events:
                return (await events.get_final_response()).output_text

        found = await asyncio.gather(*(ask(country) for country in [*capitals] * 4))

    assert found == [*capitals.values()] * 4
