"""The agent's HTTP interface, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from agent_runtime.agent.service import AgentService
from agent_runtime.agent.tools import function_tool
from agent_runtime.api import errors
from agent_runtime.api.agent_runs import routes
from agent_runtime.api.disconnect import ClientGoneError
from agent_runtime.api_keys import Principal
from tests.support.loop_server import serving_here
from tests.unit.agent.agents import Gate, agent, call, patiently, weather

PARIS = call("weather", '{"city": "Paris"}')
PAY = call("pay", '{"euros": 100}')


def pay(euros: int) -> str:
    """Pays."""
    return f"paid {euros}"


@dataclass
class Runtime:
    """What the endpoints need of the server's Service."""

    agent: AgentService | None

    config = SimpleNamespace(model=SimpleNamespace(served_name="scripted"))

    def require_ready(self) -> Runtime:
        return self

    def check_model(self, request: Request, model: str | None) -> None:
        if model not in (None, "scripted"):
            raise errors.model_not_found(model, "scripted")


class ByHeader:
    """Stands for access control: the header names the key."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = dict(scope.get("headers", ())).get(b"x-key")
        if name is not None:
            principal = Principal(name.decode(), tools=frozenset({"weather", "pay"}), admin=name == b"boss")
            scope.setdefault("state", {})["principal"] = principal
        await self._app(scope, receive, send)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.ApiError)
    return error.response()


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


TOOLS = (weather, function_tool(pay, require_approval=True))


@asynccontextmanager
async def client(script: Any, tools=TOOLS, **options: Any):
    """A client of a server with an agent; `client.agent` is the agent."""
    async with agent(script, tools, **options) as service:
        app = Starlette(
            routes=routes(), exception_handlers={errors.ApiError: _api_error, ClientGoneError: _gone}
        )
        app.state.service = Runtime(service)
        async with serving_here(ByHeader(app)) as url, httpx2.AsyncClient(base_url=url, timeout=20) as http:
            http.agent = service
            yield http


async def run(http, **body: Any) -> httpx2.Response:
    return await http.post("/v1/agent/runs", json={"input": "Weather in Paris?"} | body)


def sse(text: str) -> list[tuple[str | None, dict[str, Any]]]:
    """(id, data) of each event."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            assert json.loads(fields["data"])["type"] == fields["event"]
            found.append((fields.get("id"), json.loads(fields["data"])))
    return found


async def test_a_run_is_answered_when_it_has_ended() -> None:
    async with client(["Let me see. " + PARIS, "It is sunny."]) as http:
        response = await run(http, metadata={"ticket": "7"}, session_id="s", seed=3)
        assert response.status_code == 200
        body = response.json()

        assert (body["object"], body["status"], body["output"]) == ("agent.run", "completed", "It is sunny.")
        assert (body["model"], body["session_id"], body["metadata"]) == ("scripted", "s", {"ticket": "7"})
        step = body["steps"][0]
        assert step["message"] == "Let me see."
        assert step["tool_calls"][0]["observation"]["text"] == "sunny in Paris"
        assert body["usage"]["steps"] == 2 and body["usage"]["tool_calls"] == 1
        assert body["usage"]["total_tokens"] == body["usage"]["input_tokens"] + body["usage"]["output_tokens"]
        assert (await http.get(f"/v1/agent/runs/{body['id']}")).json() == body


async def test_a_session_is_shown_and_forgotten() -> None:
    async with client([PARIS, "It is sunny."]) as http:
        await run(http, session_id="s")

        shown = (await http.get("/v1/sessions/s")).json()
        assert [message["role"] for message in shown["messages"]] == [
            "user",
            "assistant",
            "tool",
            "assistant",
        ]
        assert shown["messages"][1]["tool_calls"][0]["function"]["name"] == "weather"
        assert (await http.delete("/v1/sessions/s")).json()["deleted"] is True
        assert (await http.get("/v1/sessions/s")).status_code == 404


async def test_a_stream_tells_events_with_numbers_and_text_without() -> None:
    async with client([PARIS, "It is sunny."]) as http:
        response = await run(http, stream=True)

    assert response.headers["content-type"].startswith("text/event-stream")
    found = sse(response.text)
    numbered = [(number, data["type"]) for number, data in found if number is not None]
    assert numbered == [
        ("1", "run.created"), ("2", "step.started"), ("3", "tool_call.created"), ("4", "tool_call.started"),
        ("5", "tool_call.completed"), ("6", "step.started"), ("7", "message"), ("8", "run.completed"),
    ]  # fmt: skip
    assert "".join(data["content"] for number, data in found if number is None) == "It is sunny."


async def test_a_broken_stream_is_gone_on_with() -> None:
    async with client([PARIS, "It is sunny."]) as http:
        run_id = (await run(http)).json()["id"]

        rest = await http.get(f"/v1/agent/runs/{run_id}/events", headers={"Last-Event-ID": "5"})
        whole = await http.get(f"/v1/agent/runs/{run_id}/events")
        wrong = await http.get(f"/v1/agent/runs/{run_id}/events", headers={"Last-Event-ID": "x"})

    assert [number for number, _ in sse(rest.text)] == ["6", "7", "8"]
    assert len(sse(whole.text)) == 8
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_header")


async def test_a_background_run_is_answered_at_once() -> None:
    gate = Gate()
    async with client([call("gate"), "Done."], [gate.tool]) as http:
        response = await run(http, background=True)
        assert (response.status_code, response.json()["status"]) == (202, "queued")

        await gate.called.wait()
        gate.open.set()
        events = await http.get(f"/v1/agent/runs/{response.json()['id']}/events")

    assert sse(events.text)[-1][1]["type"] == "run.completed"


async def test_a_background_run_outlives_a_client_that_stops_reading_its_stream() -> None:
    gate = Gate()
    async with client([call("gate"), "Done."], [gate.tool]) as http:
        body = {"input": "x", "background": True, "stream": True}
        async with http.stream("POST", "/v1/agent/runs", json=body) as response:
            run_id = json.loads((await anext(response.aiter_text())).split("data: ")[1].split("\n")[0])[
                "run_id"
            ]

        await gate.called.wait()
        gate.open.set()
        events = await http.get(f"/v1/agent/runs/{run_id}/events")

    assert sse(events.text)[-1][1]["type"] == "run.completed"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_cancels_its_run(stream: bool) -> None:
    gate = Gate()
    async with client([call("gate")], [gate.tool]) as http:
        request = asyncio.create_task(run(http, stream=stream))
        await gate.called.wait()

        request.cancel()

        await patiently(lambda: gate.cancelled == 1)
        await patiently(lambda: http.agent.facts().runs_live == 0)


async def test_a_run_is_cancelled_by_request() -> None:
    gate = Gate()
    async with client([call("gate")], [gate.tool]) as http:
        run_id = (await run(http, background=True)).json()["id"]
        await gate.called.wait()

        body = (await http.post(f"/v1/agent/runs/{run_id}/cancel")).json()

    assert (body["status"], body["error"]["code"]) == ("cancelled", "cancelled")


async def test_a_call_that_needs_approval_is_shown_approved_by_name_and_made() -> None:
    async with client([PAY, "Paid."]) as http:
        response = await run(http)
        assert response.status_code == 202
        wanted = response.json()["required_action"]
        assert (wanted["type"], wanted["name"], wanted["arguments"]) == (
            "approve_tool_call", "pay", '{"euros": 100}',
        )  # fmt: skip
        path = f"/v1/agent/runs/{response.json()['id']}"

        answer = {"call_id": wanted["call_id"], "approve": True, "reason": "fine"}
        assert (await http.post(f"{path}/approve", json=answer)).status_code in (200, 202)
        events = sse((await http.get(f"{path}/events")).text)
        again = await http.post(f"{path}/approve", json=answer)

    assert next(data for _, data in events if data["type"] == "approval.resolved")["verdict"] == "approved"
    assert events[-1][1]["output"] == "Paid."
    assert (again.status_code, again.json()["error"]["code"]) == (409, "not_awaiting_approval")


async def test_a_streamed_run_ends_its_stream_where_it_must_wait() -> None:
    async with client([PAY, "Paid."]) as http:
        found = sse((await run(http, stream=True)).text)

        assert found[-1][1]["type"] == "approval.requested"
        assert http.agent.facts().awaiting_approval == 1


async def test_who_approved_is_the_callers_key() -> None:
    async with client([PAY, "Paid."]) as http:
        body = (await http.post("/v1/agent/runs", json={"input": "Pay."}, headers={"x-key": "web"})).json()
        path, call_id = f"/v1/agent/runs/{body['id']}", body["required_action"]["call_id"]
        answer = {"call_id": call_id, "approve": False, "reason": "no"}

        stranger = await http.post(f"{path}/approve", json=answer, headers={"x-key": "other"})
        await http.post(f"{path}/approve", json=answer, headers={"x-key": "boss"})
        await http.get(f"{path}/events", headers={"x-key": "web"})
        body = (await http.get(path, headers={"x-key": "web"})).json()

    assert stranger.status_code == 404
    assert body["steps"][0]["tool_calls"][0]["approval"] == {
        "verdict": "denied",
        "by": "boss",
        "reason": "no",
    }


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({}, 400, "invalid_value", "body"),
        ({"input": "x", "messages": [{"role": "user", "content": "x"}]}, 400, "invalid_value", "body"),
        ({"input": ""}, 400, "invalid_value", "input"),
        ({"input": "x", "colour": 1}, 400, "unsupported_field", "colour"),
        ({"input": "x", "model": "other"}, 404, "model_not_found", "model"),
        ({"input": "x", "session_id": "a b"}, 400, "invalid_value", "session_id"),
        ({"input": "x", "tools": ["other"]}, 400, "tool_not_found", "tools[0]"),
        ({"input": "x", "tools": ["with blank"]}, 400, "invalid_value", "tools[0]"),
        ({"input": "x", "limits": {"max_steps": 9}}, 400, "limit_not_tightened", "limits.max_steps"),
        ({"input": "x", "limits": {"max_steps": 0}}, 400, "invalid_value", "limits.max_steps"),
        ({"input": "x", "limits": {"max_cost": -1}}, 400, "invalid_value", "limits.max_cost"),
        ({"input": "x", "limits": {"max_cost": float("inf")}}, 400, "invalid_json", None),
        ({"input": "x", "decision": {"policy": "Luck"}}, 400, "unsupported_value", "decision.policy"),
        ({"input": "x", "decision": {"policy": "Softmax", "temperature": 0}}, 400, "invalid_value",
         "decision.temperature"),
        ({"input": "x", "metadata": {"k": 1}}, 400, "invalid_value", "metadata.k"),
        ({"input": "x", "seed": 1.5}, 400, "invalid_value", "seed"),
    ],
)  # fmt: skip
async def test_a_wrong_request_is_refused_by_field_and_begins_nothing(body, status, code, param) -> None:
    async with client(["never"]) as http:
        raw = json.dumps(body).encode()
        response = await http.post("/v1/agent/runs", content=raw)

        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (status, code, param)
        assert http.agent.backend.prompts == []


async def test_what_is_not_there_is_404_and_what_is_full_is_429() -> None:
    gate = Gate()
    async with client([call("gate")], [gate.tool], max_live_runs=1) as http:
        for path in ("/v1/agent/runs/run_x", "/v1/agent/runs/run_x/events", "/v1/sessions/none"):
            response = await http.get(path)
            assert response.status_code == 404, path
        await run(http, background=True)

        full = await run(http)

    assert (full.status_code, full.json()["error"]["code"]) == (429, "too_many_runs")
    assert full.headers["retry-after"] == "1"


async def test_approval_takes_no_arguments_instead() -> None:
    async with client([PAY]) as http:
        body = (await run(http)).json()
        answer = {"call_id": body["required_action"]["call_id"], "approve": True, "arguments": {"euros": 1}}

        response = await http.post(f"/v1/agent/runs/{body['id']}/approve", json=answer)

    assert (response.status_code, response.json()["error"]["param"]) == (400, "arguments")


async def test_without_its_session_store_a_session_is_503_and_the_rest_works() -> None:
    from agent_runtime.agent.redis_store import RedisStore

    store = RedisStore("redis://127.0.0.1:1/0", "p:")
    async with client(["Fine.", "Fine."], store=store) as http:
        refused = await run(http, session_id="s")
        shown = await http.get("/v1/sessions/s")
        served = await run(http)

    for response in (refused, shown):
        assert (response.status_code, response.json()["error"]["code"]) == (503, "session_store_unavailable")
        assert response.headers["retry-after"] == "5"
    assert served.json()["output"] == "Fine."


async def test_while_there_is_no_agent_the_answer_is_503() -> None:
    app = Starlette(routes=routes(), exception_handlers={errors.ApiError: _api_error})
    app.state.service = Runtime(None)
    async with serving_here(app) as url, httpx2.AsyncClient(base_url=url) as http:
        assert (await run(http)).status_code == 503
