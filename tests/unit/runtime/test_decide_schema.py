"""POST /v1/decide: what may be asked, what is refused by its path, and what comes back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent_runtime.api.decide import Defaults, decide, prepare, run_decision
from agent_runtime.api.decide_schema import DecideRequest
from agent_runtime.api.disconnect import ClientGoneError
from agent_runtime.api.errors import ApiError, from_validation
from agent_runtime.api.service import Service, Serving
from agent_runtime.contract import RuntimeConfig
from agent_runtime.decision import CVaR, Greedy, Softmax
from agent_runtime.llm.base import GenerationError, Limits, Result
from agent_runtime.observability.metrics import Metrics
from agent_runtime.observability.recorder import Recorder
from agent_runtime.parameters import LiveParameters
from agent_runtime.state import State, Status
from tests.support.asgi_server import serving
from tests.support.waiting import wait_for
from tests.unit.runtime.table_backend import TableBackend

QUESTION = "What is the capital of France?"
TWO: dict[str, Any] = {"input": QUESTION, "candidates": ["Paris", "Lyon"]}
HALF, QUARTER, TENTH = math.log(0.5), math.log(0.25), math.log(0.1)
TABLE = {
    QUESTION: {"Paris": (HALF, 0.0), "Lyon": (HALF, HALF, 0.0), "Rome": (TENTH,)},
    "N/A": {"Paris": (QUARTER, 0.0), "Lyon": (TENTH, TENTH, 0.0)},
}


def refusal(body: Any) -> ApiError | None:
    """The error a body gives, or None when it is accepted."""
    try:
        DecideRequest.model_validate(body)
    except ValidationError as error:
        return from_validation(error)
    return None


def late_refusal(body: Any, backend: TableBackend | None = None, **defaults: Any) -> ApiError:
    """The error of a body whose shape is right."""
    request = DecideRequest.model_validate(body)
    with pytest.raises(ApiError) as refused:
        prepare(backend or TableBackend(TABLE), request, None, Defaults(**defaults))
    return refused.value


async def answer(
    body: Any, backend: TableBackend | None = None, system_prompt: str | None = None, **defaults: Any
) -> dict[str, Any]:
    """The response to a body, as JSON would carry it."""
    request = DecideRequest.model_validate(body)
    found = await run_decision(
        backend or TableBackend(TABLE), request, None, system_prompt, Defaults(**defaults)
    )
    read: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    return read


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"candidates": ["a", "b"]}, "messages", "invalid_value"),
        ({**TWO, "messages": [{"role": "user", "content": "x"}]}, "messages", "invalid_value"),
        ({**TWO, "input": ""}, "input", "invalid_value"),
        ({**TWO, "input": 5}, "input", "invalid_value"),
        ({"messages": [{"role": "user"}], "candidates": ["a", "b"]}, "messages[0].content", "invalid_value"),
        ({"input": "x"}, "sample", "invalid_value"),
        ({**TWO, "sample": {}}, "sample", "invalid_value"),
        ({**TWO, "candidates": ["a"]}, "candidates", "invalid_value"),
        ({**TWO, "candidates": [str(number) for number in range(257)]}, "candidates", "invalid_value"),
        ({**TWO, "candidates": "ab"}, "candidates", "invalid_value"),
        ({**TWO, "candidates": ["a", 5]}, "candidates[1]", "invalid_value"),
        ({**TWO, "candidates": ["a", ""]}, "candidates[1]", "invalid_value"),
        ({**TWO, "candidates": ["a", {"label": "b"}]}, "candidates[1].text", "invalid_value"),
        ({**TWO, "candidates": ["a", {"text": "b", "x": 1}]}, "candidates[1].x", "unsupported_field"),
        ({**TWO, "candidates": ["a", "a"]}, "candidates", "invalid_value"),
        ({**TWO, "candidates": ["a", {"text": "b", "label": "a"}]}, "candidates", "invalid_value"),
        ({"input": "x", "sample": {"n": 1}}, "sample.n", "invalid_value"),
        ({"input": "x", "sample": {"n": 65}}, "sample.n", "invalid_value"),
        ({"input": "x", "sample": {"temperature": 0}}, "sample.temperature", "invalid_value"),
        ({"input": "x", "sample": {"beam": 4}}, "sample.beam", "unsupported_field"),
        ({**TWO, "policy": "greedy"}, "policy", "invalid_value"),
        ({**TWO, "policy": {}}, "policy", "invalid_value"),
        ({**TWO, "policy": {"name": "best"}}, "policy", "invalid_value"),
        ({**TWO, "policy": {"name": ["greedy"]}}, "policy", "invalid_value"),
        ({**TWO, "policy": {"name": "greedy", "temperature": 1}}, "policy.temperature", "unsupported_field"),
        ({**TWO, "policy": {"name": "softmax", "temperature": 0}}, "policy.temperature", "invalid_value"),
        ({**TWO, "policy": {"name": "cvar"}}, "policy.risk_aversion", "invalid_value"),
        ({**TWO, "policy": {"name": "cvar", "risk_aversion": 1.5}}, "policy.risk_aversion", "invalid_value"),
        ({**TWO, "policy": {"name": "greedy", "abstain_below": 2}}, "policy.abstain_below", "invalid_value"),
        ({**TWO, "utilities": 5}, "utilities", "invalid_value"),
        ({**TWO, "utilities": [1]}, "utilities", "invalid_value"),
        ({**TWO, "utilities": [1, "2"]}, "utilities[1]", "invalid_value"),
        ({**TWO, "utilities": [1, 1e13]}, "utilities[1]", "invalid_value"),
        ({**TWO, "utilities": {"actions": ["a"]}}, "utilities.matrix", "invalid_value"),
        ({**TWO, "utilities": {"actions": ["a"], "matrix": []}}, "utilities.matrix", "invalid_value"),
        ({**TWO, "utilities": {"actions": ["a"], "matrix": [[1]]}}, "utilities", "invalid_value"),
        (
            {**TWO, "utilities": {"actions": ["a", "a"], "matrix": [[1, 2], [1, 2]]}},
            "utilities.actions",
            "invalid_value",
        ),
        ({"input": "x", "sample": {}, "utilities": [1, 2]}, "utilities", "invalid_value"),
        ({**TWO, "normalization": "max"}, "normalization", "unsupported_value"),
        ({**TWO, "calibration_prompt": ""}, "calibration_prompt", "invalid_value"),
        ({**TWO, "seed": 2**63}, "seed", "invalid_value"),
        ({**TWO, "stream": True}, "stream", "unsupported_field"),
        ({**TWO, "temperature": 1}, "temperature", "unsupported_field"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_path(body: Any, param: str, code: str) -> None:
    error = refusal(body)

    assert error is not None
    assert (error.status, error.param, error.code) == (400, param, code)
    assert param in error.message


@pytest.mark.parametrize(
    ("utilities", "words"),
    [
        ([1, 2, 3], "it has 3 numbers; expected 2, one per candidate"),
        ({"actions": ["a", "b"], "matrix": [[1, 2]]}, "it has 1 rows; expected 2, one per action"),
        ({"actions": ["a", "b"], "matrix": [[1, 2], [1]]}, "matrix[1] has 1 numbers; expected 2"),
    ],
)
def test_utilities_of_a_wrong_shape_are_told_the_right_one(utilities: Any, words: str) -> None:
    error = refusal({**TWO, "utilities": utilities})

    assert error is not None
    assert words in error.message


def test_the_matrix_is_bounded_as_a_whole() -> None:
    candidates = [str(number) for number in range(256)]
    actions = [f"action {number}" for number in range(17)]
    matrix = [[0.0] * 256] * 17

    body = {**TWO, "candidates": candidates, "utilities": {"actions": actions, "matrix": matrix}}

    error = refusal(body)
    assert error is not None
    assert error.param == "utilities"
    body["utilities"] = {"actions": actions[:16], "matrix": matrix[:16]}
    assert refusal(body) is None


def test_everything_that_is_supported_is_accepted() -> None:
    assert refusal(TWO) is None
    assert refusal({"messages": [{"role": "user", "content": "x"}], "sample": {"n": 4}}) is None
    full = {
        "model": "m", "input": "x", "candidates": ["a", {"text": "b", "label": "B"}],
        "policy": {"name": "cvar", "risk_aversion": 0.5, "abstain_below": 0.1}, "utilities": [1, 2.5],
        "normalization": "mean", "calibration_prompt": "N/A", "seed": -1, "user": "someone",
        "messages": None, "sample": None,
    }  # fmt: skip
    assert refusal(full) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
POLICIES = st.fixed_dictionaries(
    {"name": st.sampled_from(["greedy", "softmax", "expected_utility", "mean_variance", "cvar", "x"])},
    optional={"temperature": JSON, "risk_aversion": JSON | st.just(0.5), "abstain_below": JSON},
)
FIELDS = dict.fromkeys([*DecideRequest.model_fields, "unknown"], JSON)
SENSIBLE = {
    "input": st.text(max_size=3),
    "candidates": st.lists(st.text(max_size=2), max_size=4),
    "policy": POLICIES,
    "utilities": st.lists(st.integers(-2, 2), max_size=4),
}


@given(st.fixed_dictionaries({}, optional=FIELDS) | st.fixed_dictionaries(SENSIBLE, optional={"seed": JSON}))
def test_any_json_is_accepted_or_refused_with_a_named_field(body: dict[str, Any]) -> None:
    error = refusal(body)

    assert error is None or (error.status == 400 and error.param)


def test_utilities_under_a_policy_that_ignores_them_are_refused() -> None:
    error = late_refusal({**TWO, "utilities": [1, 2]})

    assert (error.status, error.param) == (400, "utilities")
    assert "greedy" in error.message


def test_candidates_the_model_cannot_tell_apart_are_refused() -> None:
    error = late_refusal({**TWO, "candidates": ["Paris", "Lyon", "Paris "]})

    assert error.param == "candidates[2]"
    assert "candidates[0]" in error.message


def test_a_candidate_longer_than_the_server_generates_is_refused() -> None:
    error = late_refusal({**TWO, "candidates": ["Paris", "Lyon on the Rhone"]}, max_output_tokens=4)

    assert error.param == "candidates[1]"
    assert "5 tokens; at most 4" in error.message


def test_prompt_and_candidate_must_fit_a_shared_context() -> None:
    tight = TableBackend(TABLE, limits=Limits(context=9, vocabulary=None))
    tighter = TableBackend(TABLE, limits=Limits(context=7, vocabulary=None))
    unshared = TableBackend(TABLE, limits=Limits(context=7, vocabulary=None, shared_context=False))

    assert late_refusal({**TWO, "candidates": ["Paris", "Lyon on Rhone"]}, tight).param == "candidates[1]"
    assert late_refusal(TWO, tighter).code == "context_length_exceeded"
    assert prepare(unshared, DecideRequest.model_validate(TWO), None, Defaults()).tokens == 7 + 4


def test_samples_longer_than_the_server_generates_are_refused() -> None:
    error = late_refusal({"input": QUESTION, "sample": {"max_tokens": 600}})

    assert error.param == "sample.max_tokens"


def test_a_backend_that_cannot_score_says_so() -> None:
    error = late_refusal(TWO, TableBackend(TABLE, can_score=False))

    assert (error.status, error.param) == (400, "model")


# ---------------------------------------------------------------- what comes back


async def test_the_answer_holds_the_choice_and_all_it_rests_on() -> None:
    found = await answer({**TWO, "candidates": [{"text": "Paris", "label": "A"}, {"text": "Lyon"}]})

    assert found["choice"] == {"index": 0, "label": "A", "text": "Paris"}
    assert (found["label"], found["abstained"]) == ("A", False)
    assert found["confidence"] == pytest.approx(2 / 3)
    assert found["probabilities"] == {"A": pytest.approx(2 / 3), "Lyon": pytest.approx(1 / 3)}
    assert found["candidates"][1] == {
        "label": "Lyon",
        "text": "Lyon",
        "probability": pytest.approx(1 / 3),
        "logprob": pytest.approx(QUARTER),
        "mean_logprob": pytest.approx(QUARTER / 3),
        "tokens": 3,
    }
    assert found["candidate_mass"] == pytest.approx(0.75)
    assert found["margin"] == pytest.approx(1 / 3)
    assert found["policy"] == {"name": "greedy", "abstain_below": 0.0}
    assert found["seed"] is None
    assert found["usage"] == {
        "prompt_tokens": 7,
        "candidate_tokens": 5,
        "completion_tokens": 0,
        "total_tokens": 12,
    }


async def test_the_arithmetic_adds_up_to_the_value_it_reports() -> None:
    policy = {"name": "cvar", "risk_aversion": 0.5}
    utilities = {"actions": ["go", "stay"], "matrix": [[10, -20], [0, 0]]}

    found = await answer({**TWO, "policy": policy, "utilities": utilities})

    arithmetic = found["arithmetic"]
    for value in arithmetic["values"]:
        terms = value["terms"]
        assert math.fsum(term["weight"] for term in terms) == pytest.approx(1)
        assert value["value"] == pytest.approx(math.fsum(term["weight"] * term["utility"] for term in terms))
    assert found["choice"] == {"index": 1, "label": "stay", "text": None}
    assert arithmetic["chosen"] == 1
    assert found["policy"] == {"name": "cvar", "risk_aversion": 0.5, "abstain_below": 0.0}


async def test_an_abstention_has_no_choice_and_a_reason() -> None:
    found = await answer({**TWO, "policy": {"name": "greedy", "abstain_below": 0.9}})

    assert (found["choice"], found["label"], found["abstained"]) == (None, None, True)
    assert "below 0.9" in found["reason"]


async def test_the_returned_seed_repeats_the_answer() -> None:
    body = {**TWO, "policy": {"name": "softmax"}}
    first = await answer(body)

    again = await answer({**body, "seed": first["seed"]})

    assert again == first
    start, end = first["arithmetic"]["values"][first["choice"]["index"]]["interval"]
    assert start <= first["arithmetic"]["uniform"] < end


async def test_the_configured_policy_is_the_default() -> None:
    found = await answer(TWO, policy=CVaR(risk_aversion=0.25))

    assert found["policy"]["name"] == "cvar"
    assert (await answer({**TWO, "policy": {"name": "greedy"}}, policy=Softmax()))["seed"] is None


async def test_calibration_asks_the_model_without_the_question() -> None:
    found = await answer({**TWO, "calibration_prompt": "N/A"})

    assert found["probabilities"] == {"Paris": pytest.approx(2 / 27), "Lyon": pytest.approx(25 / 27)}
    assert found["candidates"][0]["baseline_logprob"] == pytest.approx(QUARTER)
    assert found["candidate_mass"] is None
    assert found["usage"]["prompt_tokens"] == 9


async def test_the_agents_system_prompt_comes_before_the_question() -> None:
    backend = TableBackend({f"Be brief.\n{QUESTION}": TABLE[QUESTION]})

    found = await answer(TWO, backend, system_prompt="Be brief.")

    assert found["label"] == "Paris"


async def test_a_conversation_is_decided_on_as_the_model_reads_it() -> None:
    turns = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    backend = TableBackend({f"Be brief.\n{QUESTION}": TABLE[QUESTION]})

    found = await answer({"messages": turns, "candidates": ["Paris", "Lyon"]}, backend)

    assert found["label"] == "Paris"


async def test_sampled_candidates_are_scored_like_given_ones() -> None:
    drawn = [Result(text, "stop", 7, 2) for text in ("Lyon", "Paris", "Lyon")]
    cut_off = Result("Par", "length", 7, 5)
    backend = TableBackend(TABLE, [*drawn, cut_off])

    found = await answer({"input": QUESTION, "sample": {"n": 4, "max_tokens": 5}}, backend)

    assert [row["text"] for row in found["candidates"]] == ["Lyon", "Paris"]
    assert found["label"] == "Paris"
    assert found["unfinished_samples"] == 1
    assert found["usage"]["completion_tokens"] == 11
    assert isinstance(found["seed"], int)


async def test_when_no_sample_is_complete_the_limit_is_named() -> None:
    backend = TableBackend(TABLE, [Result("Par", "length", 7, 5)])

    with pytest.raises(ApiError) as refused:
        await answer({"input": QUESTION, "sample": {"n": 2, "max_tokens": 5}}, backend)

    assert refused.value.param == "sample.max_tokens"


async def test_an_impossible_candidate_is_null_in_json_and_not_infinite() -> None:
    backend = TableBackend({QUESTION: {"Paris": (-1.0,), "Lyon": (-math.inf,)}})

    found = await answer(TWO, backend)

    assert found["candidates"][1]["logprob"] is None
    assert found["probabilities"]["Lyon"] == 0.0


async def test_scores_that_are_not_numbers_are_the_models_failure() -> None:
    backend = TableBackend({QUESTION: {"Paris": (math.nan,), "Lyon": (-1.0,)}})

    with pytest.raises(GenerationError):
        await answer(TWO, backend)


# ---------------------------------------------------------------- over HTTP


def service_of(backend: TableBackend, **settings: Any) -> Service:
    """The real service around a backend."""
    config = RuntimeConfig.model_validate(
        {
            "name": "agent",
            "namespace": "default",
            "revision": "abcd1234",
            "model": {"uri": "/models/geography", "served_name": "geography"},
            **settings,
        }
    )
    recorder = Recorder(Metrics("geography"), "geography")
    ready = Status(State.READY, 0.0, "")
    service = Service(config, recorder, lambda: ready, LiveParameters(config.parameters))
    service.serving = Serving(backend, 0)
    return service


@contextmanager
def serving_decisions(service: Service) -> Iterator[httpx2.Client]:
    """A client of a real server with this endpoint alone."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error.response()

    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=499)

    app = Starlette(
        routes=[Route("/v1/decide", decide, methods=["POST"])],
        exception_handlers={ApiError: refused, ClientGoneError: gone},
    )
    app.state.service = service
    with serving(app) as url, httpx2.Client(base_url=url, timeout=60, trust_env=False) as client:
        yield client


def test_a_decision_over_http() -> None:
    backend = TableBackend(TABLE)
    agent = {"decision": {"policy": "Greedy", "abstain_below": 0.1}}

    service = service_of(backend, agent=agent)
    with serving_decisions(service) as client:
        response = client.post("/v1/decide", json={**TWO, "model": "geography"})

    counted = {"policy": "greedy", "abstained": "false"}
    value = service.recorder.metrics.registry.get_sample_value("agent_runtime_decisions_total", counted)
    assert value == 1
    body = response.json()
    assert response.status_code == 200
    assert body["id"].startswith("dec-")
    assert (body["object"], body["model"], body["label"]) == ("decision", "geography", "Paris")
    assert body["policy"]["abstain_below"] == 0.1
    assert backend.deadlines[0] is not None


def test_refusals_over_http_reach_no_model() -> None:
    backend = TableBackend(TABLE)

    with serving_decisions(service_of(backend, parameters={"max_input_tokens": 3})) as client:
        answers = [
            client.post("/v1/decide", json=body).json()["error"]
            for body in (
                {**TWO, "input": "x", "calibration_prompt": QUESTION},
                TWO,
                {**TWO, "model": "other"},
                {**TWO, "input": "x", "utilities": [1, 2]},
                {**TWO, "stream": True},
            )
        ]

    assert [(error["param"], error["code"]) for error in answers] == [
        ("calibration_prompt", "context_length_exceeded"),
        ("input", "context_length_exceeded"),
        ("model", "model_not_found"),
        ("utilities", "invalid_value"),
        ("stream", "unsupported_field"),
    ]
    assert backend.deadlines == []


def test_the_failure_of_the_model_is_a_500_without_its_details() -> None:
    backend = TableBackend({QUESTION: {"Paris": (math.nan,), "Lyon": (-1.0,)}})

    with serving_decisions(service_of(backend)) as client:
        response = client.post("/v1/decide", json=TWO)

    assert (response.status_code, response.json()["error"]["code"]) == (500, "generation_failed")
    assert "nan" not in response.text


def test_a_client_that_leaves_cancels_its_samples_and_frees_its_slots() -> None:
    backend = TableBackend(TABLE, [None])
    service = service_of(backend)

    with serving_decisions(service) as client:
        with pytest.raises(httpx2.ReadTimeout):
            client.post("/v1/decide", json={"input": QUESTION, "sample": {"n": 4}}, timeout=0.5)
        wait_for("the slots are free", lambda: service.admission.load.running == 0)

    assert [generation.cancelled for generation in backend.generations] == [True] * 4


def test_the_default_policy_of_a_server_is_greedy() -> None:
    assert Defaults().policy == Greedy()
