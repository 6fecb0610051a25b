"""The served API, asked over HTTP by the official client and by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from agent_runtime import Agent
from tests.unit.runtime.harness import CONTINENTS, Server, text, wait_for, write_config

FRANCE = "What is the capital of France?"
CITIES = ["Paris", "Rome", "Berlin"]
NAMES = "Africa, Antarctica, Asia, Europe, North America, Oceania and South America"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, geography: Path) -> Iterator[Server]:
    """One ordinary runtime for the whole module."""
    folder = tmp_path_factory.mktemp("api")
    parameters = {"max_input_tokens": 256, "max_output_tokens": 48, "max_concurrency": 4}
    config = write_config(folder, geography, parameters=parameters, gpu_requested=1)
    with Server(folder, "--config", str(config)) as server:
        yield server.wait_ready()


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    """OpenAI's own client."""
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)


def test_a_chat_is_answered(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="geography", messages=[{"role": "user", "content": FRANCE}])

    assert answer.choices[0].message.content == "Paris"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 2


def test_a_completion_is_answered(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="geography", prompt=FRANCE)

    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("Paris", "stop")


def test_a_streamed_chat_is_the_whole_answer_in_pieces(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="geography",
            messages=[{"role": "user", "content": CONTINENTS}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]

    assert "".join(piece or "" for piece in pieces) == NAMES
    assert len([piece for piece in pieces if piece]) > 1
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 5


def test_a_streamed_completion_is_the_whole_answer_in_pieces(client: openai.OpenAI) -> None:
    chunks = list(client.completions.create(model="geography", prompt=CONTINENTS, stream=True))

    assert "".join(chunk.choices[0].text for chunk in chunks) == NAMES
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_stream_is_server_sent_events_that_end_with_done(server: Server, path: str) -> None:
    body = (
        {"prompt": FRANCE}
        if path == "/v1/completions"
        else {"messages": [{"role": "user", "content": FRANCE}]}
    )
    response = server.http.post(path, json={**body, "stream": True})
    events = response.text.split("\n\n")

    assert response.headers["content-type"].startswith("text/event-stream")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(event.removeprefix("data: ")) for event in events[:-2])


def test_the_same_answer_as_the_facade(server: Server, geography: Path) -> None:
    agent = Agent.from_pretrained(str(geography))

    assert text(server.chat(CONTINENTS)) == agent.generate_text(CONTINENTS) == NAMES


def test_a_stop_string_ends_the_answer_before_it(server: Server) -> None:
    choice = server.chat(CONTINENTS, stop=["Europe", ", North"]).json()["choices"][0]

    assert (choice["message"]["content"], choice["finish_reason"]) == ("Africa, Antarctica, Asia, ", "stop")


def test_max_tokens_ends_the_answer_and_says_length(server: Server) -> None:
    answer = server.chat(CONTINENTS, max_tokens=3).json()

    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


def test_a_seed_repeats_a_sample_while_others_sample_beside_it(server: Server) -> None:
    def ask(seed: int) -> str:
        return text(server.chat("Say anything about rivers", temperature=2.0, seed=seed, max_tokens=8))

    with ThreadPoolExecutor(4) as pool:
        first, second = (list(pool.map(ask, range(8))) for _ in range(2))

    assert first == second
    assert len(set(first)) > 1


def test_temperature_with_a_tiny_nucleus_is_greedy(server: Server) -> None:
    assert text(server.chat(FRANCE, temperature=1.0, top_p=0.01)) == "Paris"


def test_concurrent_requests_get_their_own_answers(server: Server) -> None:
    expected = {"France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Japan": "Tokyo"}
    countries = list(expected) * 4

    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda country: text(server.chat(f"What is the capital of {country}?")), countries)
        )

    assert answers == [expected[country] for country in countries]


def test_several_choices_are_counted_once_in_the_prompt(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="geography", messages=[{"role": "user", "content": FRANCE}], n=3, temperature=2.0, seed=5
    )
    again = client.chat.completions.create(
        model="geography", messages=[{"role": "user", "content": FRANCE}], n=3, temperature=2.0, seed=5
    )

    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert [c.message.content for c in answer.choices] == [c.message.content for c in again.choices]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 8


def test_several_choices_are_streamed_each_under_its_index(client: openai.OpenAI) -> None:
    texts = {0: "", 1: ""}
    for chunk in client.completions.create(model="geography", prompt=FRANCE, n=2, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text

    assert texts == {0: "Paris", 1: "Paris"}


def test_log_probabilities_are_of_the_tokens_of_the_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="geography", messages=[{"role": "user", "content": CONTINENTS}], logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs

    assert logprobs is not None
    assert logprobs.content is not None
    spelt = b"".join(bytes(token.bytes or []) for token in logprobs.content).decode()
    assert spelt.strip() == answer.choices[0].message.content
    for token in logprobs.content:
        assert token.logprob == max(other.logprob for other in token.top_logprobs)
        assert token.logprob <= 0


def test_streamed_log_probabilities_are_those_of_the_whole_answer(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="geography", prompt=CONTINENTS, logprobs=0)
    chunks = list(client.completions.create(model="geography", prompt=CONTINENTS, logprobs=0, stream=True))

    assert whole.choices[0].logprobs is not None
    streamed = [
        value for chunk in chunks if chunk.choices[0].logprobs
        for value in chunk.choices[0].logprobs.token_logprobs or []
    ]  # fmt: skip
    assert streamed == pytest.approx(whole.choices[0].logprobs.token_logprobs, abs=1e-4)


def test_structured_output_satisfies_its_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"capital": {"enum": CITIES}},
        "required": ["capital"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="geography",
        messages=[{"role": "user", "content": FRANCE}],
        response_format={"type": "json_schema", "json_schema": {"name": "capital", "schema": schema}},
    )

    assert (
        json.loads(answer.choices[0].message.content or "")["capital"]
        in schema["properties"]["capital"]["enum"]
    )


def test_a_forced_tool_call_names_the_tool_and_fills_its_parameters(client: openai.OpenAI) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "lookup",
            "parameters": {
                "type": "object",
                "properties": {"country": {"enum": ["France", "Italy"]}},
                "required": ["country"],
                "additionalProperties": False,
            },
        },
    }
    arguments: dict[str, Any] = {
        "model": "geography",
        "messages": [{"role": "user", "content": "Look up France"}],
        "tools": [tool],
        "tool_choice": "required",
    }
    answer = client.chat.completions.create(**arguments)
    streamed = list(client.chat.completions.create(**arguments, stream=True))

    call = (answer.choices[0].message.tool_calls or [])[0]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "lookup"
    assert json.loads(call.function.arguments)["country"] in {"France", "Italy"}
    deltas = [chunk.choices[0].delta for chunk in streamed]
    assert [part.function.name for delta in deltas for part in delta.tool_calls or []] == ["lookup"]
    assert not any(delta.content for delta in deltas)
    assert streamed[-1].choices[0].finish_reason == "tool_calls"


def test_tokens_are_counted_as_generation_counts_them_and_decode_to_the_text(server: Server) -> None:
    counted = server.http.post("/tokenize", json={"messages": [{"role": "user", "content": FRANCE}]}).json()
    back = server.http.post("/detokenize", json={"tokens": counted["tokens"]}).json()

    assert counted["count"] == len(counted["tokens"]) == server.chat(FRANCE).json()["usage"]["prompt_tokens"]
    assert back["prompt"] == FRANCE
    assert counted["max_model_len"] == 256


def test_a_request_past_its_deadline_is_told_so(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": FRANCE}]}
    late = server.http.post(
        "/v1/chat/completions", json=body, headers={"x-request-timeout-seconds": "0.000001"}
    )
    wrong = server.http.post("/v1/chat/completions", json=body, headers={"x-request-timeout-seconds": "soon"})

    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_header")


def test_parameters_change_while_serving(server: Server) -> None:
    refused = server.admin.patch("/admin/parameters", json={"max_output_tokens": 0})
    changed = server.admin.patch("/admin/parameters", json={"max_output_tokens": 3})
    short = server.chat(CONTINENTS).json()
    server.admin.patch("/admin/parameters", json={"max_output_tokens": 48})

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "max_output_tokens")
    assert changed.json()["max_output_tokens"] == 3
    assert short["usage"]["completion_tokens"] == 3
    assert text(server.chat(CONTINENTS)) == NAMES


def test_stats_tell_the_operator_what_the_server_does(server: Server) -> None:
    server.chat(FRANCE)
    stats = server.stats()

    assert (stats["state"], stats["v"], stats["name"]) == ("READY", 1, "geography")
    assert stats["model"]["device"] == "cpu"
    assert stats["load"]["rows_possible"] == 4
    assert stats["latency"]["end_to_end"]["count"] >= 1
    assert stats["progress"] in ("Idle", "Busy")


def test_the_phases_of_the_start_add_up_and_are_metrics_too(server: Server) -> None:
    stats = server.stats()

    phases = stats["load_phases"]
    whole = sum(phases[name] for name in ("start", "fetch", "load", "warmup", "agent"))
    assert whole == pytest.approx(phases["ready"], abs=0.01)
    assert phases["import"] <= phases["start"] < stats["uptime_seconds"]
    assert phases["weights"] <= phases["load"]
    assert 0 < phases["first_token"] <= phases["warmup"]
    assert stats["weights_read"] == 1.0
    for name, seconds in phases.items():
        metric = server.metric(f'agent_runtime_load_seconds{{phase="{name}"}}')
        assert metric == pytest.approx(seconds, abs=0.001)


def test_the_served_model_is_listed_with_where_it_runs(client: openai.OpenAI, server: Server) -> None:
    listed = client.models.list().data

    assert [model.id for model in listed] == ["geography"]
    assert client.models.retrieve("geography").id == "geography"
    assert server.http.get("/v1/models").json()["data"][0]["device"] == "cpu"


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"model": "gpt-5"}, 404, "model_not_found", "model"),
        ({"reasoning_effort": "low"}, 400, "unsupported_field", "reasoning_effort"),
        ({"n": 17}, 400, "invalid_value", "n"),
        ({"temperature": "hot"}, 400, "invalid_value", "temperature"),
        ({"max_tokens": 49}, 400, "invalid_value", "max_tokens"),
        ({"max_completion_tokens": 49}, 400, "invalid_value", "max_completion_tokens"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"logit_bias": {"5000": 1}}, 400, "invalid_value", "logit_bias.5000"),
        ({"guided_regex": "(unclosed"}, 400, "invalid_grammar", "guided_regex"),
        (
            {"messages": [{"role": "user", "content": "capital " * 300}]},
            400,
            "context_length_exceeded",
            "messages",
        ),
    ],
)
def test_an_error_has_openais_shape_and_names_the_field(
    server: Server, body: dict[str, Any], status: int, code: str, param: str
) -> None:
    response = server.chat(FRANCE, **body)
    error = response.json()["error"]

    assert response.status_code == status
    assert (error["code"], error["param"]) == (code, param)
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_the_official_client_raises_its_own_exceptions(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="other", messages=[{"role": "user", "content": FRANCE}])
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="geography", prompt=FRANCE, best_of=2)

    assert missing.value.code == "model_not_found"
    assert refused.value.param == "best_of"


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
        (b'{"prompt": "Hi", "temperature": NaN}', 400, "invalid_json"),
        (b'{"prompt": "Hi", "temperature": 1e999}', 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b" " * (4 * 2**20 + 1), 413, "request_too_large"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400, "invalid_json"),
    ],
)
def test_hostile_bytes_are_refused_and_harm_nobody(
    server: Server, content: bytes, status: int, code: str
) -> None:
    response = server.http.post("/v1/chat/completions", content=content)

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert text(server.chat(FRANCE)) == "Paris"


def test_a_long_body_that_comes_at_once_is_read(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": FRANCE}], "metadata": {"note": "x" * 200_000}}

    assert text(server.http.post("/v1/chat/completions", json=body)) == "Paris"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/v1/embeddings", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/models/other", 404, "model_not_found"),
    ],
)
def test_a_wrong_route_is_an_error_of_the_same_shape(
    server: Server, method: str, path: str, status: int, code: str
) -> None:
    response = server.http.request(method, path)

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("probe", ["startup", "ready", "live"])
def test_a_probe_says_state_since_and_reason(server: Server, probe: str) -> None:
    response = server.http.get(f"/health/{probe}")

    assert response.status_code == 200
    assert response.json()["state"] == "READY"
    assert set(response.json()) == {"state", "since", "reason"}


def test_a_request_id_is_taken_from_the_client_when_it_is_harmless(server: Server) -> None:
    def identity(value: str) -> str:
        response = server.http.get("/v1/models", headers={"x-request-id": value})
        return str(response.headers["x-request-id"])

    assert identity("abc-123") == "abc-123"
    assert identity("x" * 200) != "x" * 200
    wait_for(
        "the line of its end",
        lambda: server.find("request", request_id="abc-123", path="/v1/models", status=200),
    )


def test_every_log_line_is_json_and_tells_how_loading_went(server: Server) -> None:
    lines = server.log()

    assert all({"ts", "level", "msg"} <= set(line) for line in lines)
    assert {line["phase"] for line in lines if "phase" in line} == {
        "resolve",
        "import",
        "check",
        "tokenizer",
        "weights",
        "device",
    }
    assert [line["state"] for line in lines if "state" in line] == ["LOADING", "WARMING", "READY"]


def test_a_gpu_that_was_asked_for_and_is_not_there_is_said_aloud(server: Server) -> None:
    line = server.find("GPU requested but no CUDA device found: running on CPU")

    assert line is not None
    assert (line["level"], line["gpu_requested"]) == ("warning", 1)


def test_the_metrics_count_what_was_asked(server: Server) -> None:
    def seen() -> tuple[float, ...]:
        return tuple(
            server.metric(name)
            for name in (
                'vllm:request_success_total{finished_reason="stop"',
                "vllm:e2e_request_latency_seconds_count",
                "vllm:time_to_first_token_seconds_count",
                'agent_runtime_requests_refused_total{code="invalid_value"',
            )
        )

    before = seen()
    server.chat(FRANCE)
    server.chat(FRANCE, n=17)

    assert [after - old for after, old in zip(seen(), before, strict=True)] == [1, 1, 1, 1]
    assert server.metric('agent_runtime_state{state="READY"}') == 1
    assert server.metric('agent_runtime_load_seconds{phase="weights"}') > 0
