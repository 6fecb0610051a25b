"""The agent for other agents, asked by the A2A SDK's own client."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.helpers.proto_helpers import (
    get_artifact_text,
    get_message_text,
    new_data_part,
    new_message,
    new_text_part,
)
from a2a.types.a2a_pb2 import (
    AgentCard,
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Part,
    Role,
    SendMessageRequest,
    Task,
    TaskState,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from agent_runtime.agent.tools import function_tool
from agent_runtime.api import errors
from agent_runtime.api.a2a import RPC_PATH, a2a_routes
from agent_runtime.contract import AgentConfig, DecisionConfig
from agent_runtime.llm.base import Capabilities
from tests.fakes.scripted_backend import ScriptedBackend
from tests.support.loop_server import serving_here
from tests.unit.agent.agents import Gate, agent, call, patiently, weather
from tests.unit.agent.test_agent_runs_api import ByHeader

PARIS = call("weather", '{"city": "Paris"}')
PAY = call("pay", '{"euros": 100}')


def pay(euros: int) -> str:
    """Pays."""
    return f"paid {euros}"


PAYING = (function_tool(pay, require_approval=True),)


class Peer:
    """Another agent."""

    def __init__(self, url: str, http: httpx.AsyncClient, card: AgentCard, service: Any) -> None:
        self.url, self.http, self.card, self.agent = url, http, card, service

    def client(self, streaming: bool = False) -> Client:
        return ClientFactory(ClientConfig(streaming=streaming, httpx_client=self.http)).create(self.card)

    async def send(self, *parts: Part | str, streaming: bool = False, **ids: str) -> list[Any]:
        """The responses to one message: a task, or with `streaming` everything that happens."""
        made = [new_text_part(part) if isinstance(part, str) else part for part in parts]
        message = new_message(made, role=Role.ROLE_USER, **ids)
        return [
            event async for event in self.client(streaming).send_message(SendMessageRequest(message=message))
        ]

    async def task(self, *parts: Part | str, **ids: str) -> Task:
        (response,) = await self.send(*parts, **ids)
        return response.task


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.ApiError)
    return error.response()


@asynccontextmanager
async def peer(
    script: Any = (), tools: Any = (weather,), key: str | None = None, **options: Any
) -> AsyncIterator[Peer]:
    async with agent(script, tools, name="geography", **options) as service:
        app = Starlette(exception_handlers={errors.ApiError: _api_error})
        async with serving_here(ByHeader(app)) as url:
            made = a2a_routes(
                service, description="Knows capitals.", version="1", base_url=url, secured=key is not None
            )
            app.router.routes.extend(made)
            headers = {} if key is None else {"x-key": key}
            async with httpx.AsyncClient(headers=headers, timeout=20, trust_env=False) as http:
                card = await A2ACardResolver(http, url).get_agent_card()
                yield Peer(url, http, card, service)


def state(task: Task) -> str:
    return TaskState.Name(task.status.state).removeprefix("TASK_STATE_").lower()


def answer(task: Task) -> str:
    return get_artifact_text(task.artifacts[-1])


async def test_the_card_says_what_the_agent_is_and_can() -> None:
    async with peer() as other:
        card = other.card

        assert (card.name, card.description) == ("geography", "Knows capitals.")
        assert [interface.url for interface in card.supported_interfaces] == [f"{other.url}{RPC_PATH}"] * 2
        assert [skill.id for skill in card.skills] == ["answer", "weather"]
        assert card.capabilities.streaming and not card.security_requirements


async def test_the_card_names_the_key_that_is_needed() -> None:
    async with peer(key="web") as other:
        assert other.card.security_schemes["bearer"].http_auth_security_scheme.scheme == "bearer"
        assert "bearer" in other.card.security_requirements[0].schemes


async def test_a_message_is_a_run_and_its_answer_an_artifact() -> None:
    async with peer([PARIS, "It is sunny."]) as other:
        task = await other.task("Weather in Paris?")

        assert (state(task), answer(task)) == ("completed", "It is sunny.")
        stored = await other.client().get_task(GetTaskRequest(id=task.id))
        assert (state(stored), answer(stored)) == ("completed", "It is sunny.")
        assert (await other.agent.get(f"run_{task.id}")).result == "It is sunny."


async def test_a_stream_tells_what_the_agent_does() -> None:
    async with peer([PARIS, "It is sunny."]) as other:
        found = await other.send("Weather in Paris?", streaming=True)

    kinds = [event.WhichOneof("payload") for event in found]
    assert kinds == ["task", "status_update", "status_update", "artifact_update", "status_update"]
    assert get_message_text(found[2].status_update.status.message) == "Calling weather."
    assert found[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED


async def test_messages_of_one_context_share_a_conversation() -> None:
    async with peer(["Hello Ada.", "Ada."]) as other:
        first = await other.task("I am Ada.")
        await other.task("Who am I?", context_id=first.context_id)

        assert "User: I am Ada.\nAssistant: Hello Ada." in other.agent.backend.prompts[1]


async def test_a_task_is_cancelled_with_its_run() -> None:
    gate = Gate()
    async with peer([call("gate")], [gate.tool]) as other:
        sending = asyncio.create_task(other.task("Wait."))
        await gate.called.wait()
        (run_id,) = await other.agent._live._runs.live()

        cancelled = await other.client().cancel_task(CancelTaskRequest(id=run_id.removeprefix("run_")))

        assert state(cancelled) == "canceled"
        assert state(await sending) == "canceled"
        await patiently(lambda: gate.cancelled == 1)
        assert (await other.agent.get(run_id)).status == "cancelled"


@pytest.mark.parametrize(
    ("decision", "outcome"),
    [
        (new_data_part({"approve": True, "reason": "fine"}), "approved"),
        (new_data_part({"approve": False}), "denied"),
        ("approve", "approved"),
        (" Deny ", "denied"),
    ],
)
async def test_a_call_that_needs_approval_asks_and_goes_on_as_it_is_told(decision, outcome) -> None:
    async with peer([PAY, "Done."], PAYING) as other:
        waiting = await other.task("Pay 100.")
        assert state(waiting) == "input_required"
        assert 'pay({"euros": 100}) needs a person\'s approval' in get_message_text(waiting.status.message)

        task = await other.task(decision, task_id=waiting.id, context_id=waiting.context_id)

        assert (state(task), answer(task)) == ("completed", "Done.")
        run = await other.agent.get(f"run_{task.id}")
        assert run.calls[0].approval.verdict == outcome


async def test_anything_else_than_a_decision_is_asked_again() -> None:
    async with peer([PAY, "Done."], PAYING) as other:
        waiting = await other.task("Pay 100.")

        again = await other.task(
            "I approve of the weather", task_id=waiting.id, context_id=waiting.context_id
        )

        assert state(again) == "input_required"
        assert (await other.agent.get(f"run_{waiting.id}")).status == "awaiting_approval"


async def test_an_abstention_is_a_rejection() -> None:
    backend = ScriptedBackend(scorer=lambda prompt, candidate: 0.0, capabilities=Capabilities())
    config = AgentConfig(decision=DecisionConfig(abstain_below=0.9))
    async with peer(backend=backend, config=config) as other:
        task = await other.task("Weather?")

    assert state(task) == "rejected"
    assert "abstained: confidence 0.5 is below 0.9" in get_message_text(task.status.message)


async def test_a_run_that_cannot_begin_or_go_on_is_a_failed_task_that_says_why() -> None:
    async with peer(["word " * 5, PARIS, "never"], max_live_runs=0) as other:
        task = await other.task("Weather?")
        assert state(task) == "failed"
        assert get_message_text(task.status.message).startswith("too_many_runs: ")
    async with peer(["I think " + PARIS] * 9) as other:
        task = await other.task("Weather?")
        assert (state(task), answer(task)) == ("failed", "I think")
        assert "repeated the same calls" in get_message_text(task.status.message)


async def test_a_task_belongs_to_the_key_that_began_it() -> None:
    async with peer(["Fine."], key="web") as other:
        task = await other.task("Hello")
        other.http.headers["x-key"] = "other"

        with pytest.raises(Exception, match="not found"):
            await other.client().get_task(GetTaskRequest(id=task.id))


async def test_what_is_not_offered_is_refused() -> None:
    async with peer() as other:
        with pytest.raises(Exception, match="does not list tasks"):
            await other.client().list_tasks(ListTasksRequest())


async def rpc(other: Peer, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """A request as version 0.3 of the protocol writes it."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    async with httpx.AsyncClient(trust_env=False) as http:
        result: dict[str, Any] = (await http.post(f"{other.url}{RPC_PATH}", json=body)).json()
        return result


async def test_the_older_version_of_the_protocol_is_served_too() -> None:
    message = {
        "role": "user",
        "messageId": "m1",
        "kind": "message",
        "parts": [{"kind": "text", "text": "Hello"}],
    }
    async with peer(["Fine."]) as other:
        task = (await rpc(other, "message/send", {"message": message}))["result"]
        stored = (await rpc(other, "tasks/get", {"id": task["id"]}))["result"]
        unknown = await rpc(other, "tasks/cancel", {"id": "none"})

    assert task["status"]["state"] == stored["status"]["state"] == "completed"
    assert task["artifacts"][0]["parts"][0]["text"] == "Fine."
    assert unknown["error"]["code"] == -32001


async def test_a_body_too_large_is_not_read_to_its_end() -> None:
    async with peer() as other:
        response = await other.http.post(f"{other.url}{RPC_PATH}", content=b" " * (5 * 2**20))

    assert response.status_code == 413


async def test_without_the_extra_there_are_no_routes_and_the_log_says_why(monkeypatch, caplog) -> None:
    monkeypatch.setitem(sys.modules, "a2a", None)
    async with agent() as service:
        with caplog.at_level(logging.INFO, "agent_runtime.api"):
            assert a2a_routes(service, description="d", version="1", base_url="http://x", secured=False) == []

    assert "install 'agent-operator[a2a]'" in caplog.text
