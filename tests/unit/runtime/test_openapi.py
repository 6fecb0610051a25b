"""/openapi.json says what can be called, and a fuzzer that believes it is answered or refused as it says."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from schemathesis.generation import GenerationMode
from starlette.routing import Route

from agent_runtime import routes
from agent_runtime.api import openapi
from agent_runtime.api.openapi import Facts, describe
from agent_runtime.llm.base import Capabilities, Limits
from tests.fakes.scripted_backend import ScriptedBackend
from tests.unit.runtime.served_api import KEYS, ServedApi, served

DOCUMENT = describe(Facts("geography", 512, keys=False))
EXAMPLES = 15
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
BODIES = {
    "chat": "ChatRequest",
    "completion": "CompletionRequest",
    "response": "ResponsesRequest",
    "decide": "DecideRequest",
    "tokenize": "TokenizeRequest",
    "run": "RunBody",
}


class WordsBackend(ScriptedBackend):
    """Also makes text of token ids."""

    def decode(self, ids: Any) -> str:
        """A word for each."""
        return " ".join("word" for _ in ids)


@pytest.fixture(scope="module")
def api() -> Iterator[ServedApi]:
    """The whole API before a model that can do everything."""
    able = Capabilities(chat_tools=True, grammar=frozenset({"json_schema", "regex", "lark"}))
    backend = WordsBackend(lambda prompt: "Paris.", capabilities=able, limits=Limits(None, 1000))
    with served(backend, sessions={}) as running:
        yield running


def violations(name: str, value: Any) -> list[str]:
    """What a schema of the document holds against a value."""
    registry: Any = Registry().with_resource("urn:api", Resource(DOCUMENT, DRAFT202012))
    schema = {"$ref": f"urn:api#/components/schemas/{name}"}
    return [error.message for error in Draft202012Validator(schema, registry=registry).iter_errors(value)]


# ---------------------------------------------------------------- the document


def test_the_document_is_valid_openapi_3_1() -> None:
    schemathesis.openapi.from_dict(json.loads(json.dumps(DOCUMENT))).validate()
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    if importlib.util.find_spec("openapi_spec_validator") is not None:
        importlib.import_module("openapi_spec_validator").validate(DOCUMENT)


def test_every_reference_leads_somewhere_and_every_schema_is_referred_to() -> None:
    found: set[str] = set()

    def collect(part: Any) -> None:
        if isinstance(part, dict):
            found.update([part["$ref"]] if "$ref" in part else [])
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            collect(inner)

    collect(DOCUMENT)
    assert found == {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}


def test_names_of_schemas_and_operations_are_plain_and_unique() -> None:
    names = [operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()]

    assert max(Counter(names).values()) == 1
    assert all("__" not in name for name in DOCUMENT["components"]["schemas"])


def test_exactly_the_routes_are_described() -> None:
    served_routes = {
        (method.lower(), route.path.replace(":path", ""))
        for route in [*routes.probe_routes(), *routes.api_routes()]
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    described = {(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods}

    assert described == served_routes


def test_keys_are_described_where_they_are_needed() -> None:
    secured = describe(Facts("geography", 512, keys=True))

    assert openapi.PROTECTED == routes.PROTECTED
    assert secured["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    for path, methods in secured["paths"].items():
        for operation in methods.values():
            needed = path.startswith(routes.PROTECTED)
            assert ("security" in operation) == needed
            assert needed == ({"401", "403", "429"} <= operation["responses"].keys())
    assert "securitySchemes" not in DOCUMENT["components"]
    assert not any("security" in op for path in DOCUMENT["paths"].values() for op in path.values())


def test_the_document_needs_no_key_and_knows_this_server(tmp_path: Path) -> None:
    backend = ScriptedBackend(lambda prompt: "Paris.")
    with served(backend, keys_folder=tmp_path, parameters={"max_output_tokens": 77}) as running:
        document = running.http.get("/openapi.json").json()
        headers = {"Authorization": f"Bearer {KEYS['alice']}"}
        listed = running.http.get("/v1/models", headers=headers)
        turned_away = running.http.get("/v1/models")

    assert document == json.loads(json.dumps(describe(Facts("geography", 77, keys=True))))
    assert (listed.status_code, turned_away.status_code) == (200, 401)


# ---------------------------------------------------------------- what it says about bodies


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("chat", CHAT | {"model": "geography", "temperature": 1, "stop": ["a"], "seed": 1}),
        ("chat", {"messages": [{"role": "assistant", "content": None, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "x"}]}),
        ("chat", CHAT | {"logprobs": True, "top_logprobs": 2, "logit_bias": {"5": 1}}),
        ("chat", CHAT | {"stream": True, "stream_options": {"include_usage": True}}),
        ("completion", {"prompt": "Hi", "logprobs": 2, "echo": False}),
        ("response", {"input": "Hi", "stream": True, "stream_options": {"include_obfuscation": False}}),
        ("response", {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]}),
        ("response", {"input": "Hi", "include": ["message.output_text.logprobs"], "top_logprobs": 2}),
        ("decide", {"input": "x", "candidates": ["a", {"text": "b"}], "utilities": [1, 2]}),
        ("decide", {"messages": CHAT["messages"], "sample": {"n": 2}, "input": None}),
        ("tokenize", {"prompt": "x", "messages": None}),
        ("tokenize", CHAT),
        ("run", {"input": "x", "limits": {"max_steps": 1}, "session_id": "a"}),
    ],
)  # fmt: skip
def test_good_bodies_are_good_by_the_document(body: str, value: Any) -> None:
    assert violations(BODIES[body], value) == []


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("chat", {}),
        ("chat", CHAT | {"unknown": 1}),
        ("chat", CHAT | {"model": "gpt-6"}),
        ("chat", CHAT | {"max_tokens": 513}),
        ("chat", CHAT | {"logit_bias": {"x": 1}}),
        ("chat", CHAT | {"top_logprobs": 2}),
        ("chat", CHAT | {"stream_options": {}}),
        ("chat", CHAT | {"tool_choice": "required"}),
        ("chat", {"messages": [{"role": "user"}]}),
        ("chat", {"messages": [{"role": "tool", "content": "x"}]}),
        ("chat", {"messages": [{"role": "user", "content": "x", "tool_call_id": "c"}]}),
        ("completion", {"prompt": "Hi", "echo": True}),
        ("response", {"input": []}),
        ("response", {"input": [{"type": "reasoning"}]}),
        ("response", {"input": "Hi", "max_output_tokens": 513}),
        ("response", {"input": "Hi", "top_logprobs": 2}),
        ("response", {"input": "Hi", "background": True}),
        ("response", {"input": "Hi", "tools": [{"type": "web_search"}]}),
        ("decide", {"input": "x"}),
        ("decide", {"input": "x", "candidates": ["a", "b"], "sample": {}}),
        ("decide", {"input": "x", "messages": CHAT["messages"], "candidates": ["a", "b"]}),
        ("decide", {"input": "x", "sample": {}, "utilities": [1, 2]}),
        ("decide", {"input": "x", "candidates": ["a", "a"]}),
        ("tokenize", {}),
        ("tokenize", {"prompt": "x"} | CHAT),
        ("run", {"input": "x"} | CHAT),
        ("run", {"input": "x", "session_id": "a b"}),
    ],
)
def test_bad_bodies_are_bad_by_the_document(body: str, value: Any) -> None:
    assert violations(BODIES[body], value) != []


# ---------------------------------------------------------------- what is answered

POSTS = [path for path, methods in DOCUMENT["paths"].items() if "requestBody" in methods.get("post", {})]
UNJUDGED = ["positive_data_acceptance"]
"""What fields must be for each other is more than a schema says, so some valid bodies are refused."""


def fuzzed(api: ServedApi, path: str, mode: GenerationMode) -> Counter[int]:
    """How often each status came; every answer is held against the document."""
    schema = schemathesis.openapi.from_dict(api.http.get("/openapi.json").json())
    unjudged = [schemathesis.checks.CHECKS.get_one(name) for name in UNJUDGED]
    statuses: Counter[int] = Counter()
    session = requests.Session()
    session.trust_env = False

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=schema[path]["POST"].as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case) -> None:
        answer = case.call(base_url=api.url, session=session)
        statuses[answer.status_code] += 1
        case.validate_response(answer, excluded_checks=unjudged)

    send()
    return statuses


@pytest.mark.parametrize("path", POSTS)
def test_valid_requests_are_answered_as_described(api: ServedApi, path: str) -> None:
    statuses = fuzzed(api, path, GenerationMode.POSITIVE)

    assert statuses.keys() <= {200, 202, 400, 404}
    assert "{id}" in path or statuses[200] > 0


@pytest.mark.parametrize("path", POSTS)
def test_invalid_requests_are_refused_as_described(api: ServedApi, path: str) -> None:
    statuses = fuzzed(api, path, GenerationMode.NEGATIVE)

    assert statuses.keys() <= {400, 404}


def test_every_answer_to_a_get_has_the_shape_described(api: ServedApi) -> None:
    run = api.http.post("/v1/agent/runs", json={"input": "Hi", "session_id": "s"}).json()
    response = api.http.post("/v1/responses", json={"input": "Hi"}).json()
    answers: dict[str, httpx2.Response] = {
        name: api.http.get(path)
        for name, path in {
            "ProbeObject": "/health/ready",
            "ModelListObject": "/v1/models",
            "ModelObject": "/v1/models/geography",
            "ResponseObject": f"/v1/responses/{response['id']}",
            "RunObject": f"/v1/agent/runs/{run['id']}",
            "SessionObject": "/v1/sessions/s",
            "ErrorObject": "/v1/sessions/unknown",
        }.items()
    }
    answers["DeletedObject"] = api.http.delete("/v1/sessions/s")

    assert [violations(name, answer.json()) for name, answer in answers.items()] == [[]] * len(answers)
