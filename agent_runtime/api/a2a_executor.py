"""What A2A's verbs mean for runs. Layer: api; needs the extra `a2a` and is imported by `a2a` only.

The one idea: the SDK keeps the protocol (ids, states, streams, two versions), the agent keeps the runs, and
this file is the translation between the two:

- a first message begins a run; the answer is an artifact and the task `completed`;
- a run that waits for a person is a task in `input-required`. The next message of the task decides: a data
  part `{"approve": true | false, "reason": ...}`, or the single word `approve` or `deny`; anything else
  asks again;
- an abstention is `rejected`, since the agent decided not to act; a used-up budget and an error are
  `failed`;
- tasks/cancel cancels the run;
- tasks are kept in the agent's store under the caller's key. They cannot be listed, and there are no push
  notifications; the card does not promise them.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

from a2a.auth.user import User
from a2a.helpers.proto_helpers import (
    get_data_parts,
    get_message_text,
    new_data_part,
    new_task_from_user_message,
    new_text_part,
)
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.context import ServerCallContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes
from a2a.server.routes.common import DefaultServerCallContextBuilder
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from a2a.server.tasks import TaskStore, TaskUpdater
from a2a.types.a2a_pb2 import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    HTTPAuthSecurityScheme,
    ListTasksRequest,
    ListTasksResponse,
    Part,
    SecurityRequirement,
    SecurityScheme,
    StringList,
    Task,
    TaskState,
)
from a2a.utils.errors import UnsupportedOperationError
from starlette.requests import Request

from agent_runtime.agent.errors import AgentError
from agent_runtime.agent.journal import RunEvent, events
from agent_runtime.agent.request import Caller, RunRequest
from agent_runtime.agent.run import Call, Run
from agent_runtime.agent.service import AgentService
from agent_runtime.agent.store import Store
from agent_runtime.api.a2a import CardFacts, Endpoints
from agent_runtime.api.agent_runs import caller_of
from agent_runtime.llm.chat import Message

TEXT = "text/plain"
WAITING_SECONDS = 3600.0
"""How long the SDK keeps a waiting task in memory; it comes back from the store."""


def endpoints(agent: AgentService, facts: CardFacts) -> Endpoints:
    """What answers for the card and for JSON-RPC."""
    card = agent_card(agent, facts)
    handler = DefaultRequestHandler(
        agent_executor=RunExecutor(agent),
        task_store=StoredTasks(agent.store),
        agent_card=card,
        validate_input_modes=True,
        interrupted_task_timeout=WAITING_SECONDS,
    )
    dispatcher = JsonRpcDispatcher(handler, CallerContextBuilder(), enable_v0_3_compat=True)
    (shown,) = create_agent_card_routes(card, lambda known: skills_of(agent, known))
    return Endpoints(shown.endpoint, dispatcher.handle_requests, handler.aclose)


def agent_card(agent: AgentService, facts: CardFacts) -> AgentCard:
    """What the agent is, for other agents."""
    card = AgentCard(
        name=agent.name,
        description=facts.description,
        version=facts.version,
        supported_interfaces=[
            AgentInterface(url=facts.url, protocol_binding="JSONRPC", protocol_version="1.0"),
            AgentInterface(url=facts.url, protocol_binding="JSONRPC", protocol_version="0.3"),
        ],
        capabilities=AgentCapabilities(streaming=True, push_notifications=False),
        default_input_modes=[TEXT],
        default_output_modes=[TEXT],
        skills=_skills(agent),
    )
    if facts.secured:
        bearer = SecurityScheme(http_auth_security_scheme=HTTPAuthSecurityScheme(scheme="bearer"))
        card.security_schemes["bearer"].CopyFrom(bearer)
        card.security_requirements.append(SecurityRequirement(schemes={"bearer": StringList()}))
    return card


async def skills_of(agent: AgentService, card: AgentCard) -> AgentCard:
    """The card with the tools there are now: tool servers come and go."""
    shown = AgentCard()
    shown.CopyFrom(card)
    del shown.skills[:]
    shown.skills.extend(_skills(agent))
    return shown


def _skills(agent: AgentService) -> list[AgentSkill]:
    skills = [AgentSkill(id="answer", name="answer", description="Answers questions.", tags=["chat"])]
    skills += [
        AgentSkill(id=tool.name, name=tool.name, description=tool.description, tags=["tool"])
        for tool in agent.registry.snapshot().values()
    ]
    return skills


class _KeyUser(User):
    """Who asks, as the SDK and the agent know it."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    @property
    def is_authenticated(self) -> bool:
        """Whether a key was sent."""
        return self.caller.name is not None

    @property
    def user_name(self) -> str:
        """The key's name."""
        return self.caller.name or ""


class CallerContextBuilder(DefaultServerCallContextBuilder):
    """Takes the caller from the request that our access control let through."""

    def build_user(self, request: Request) -> User:
        """See ServerCallContextBuilder."""
        return _KeyUser(caller_of(request))


def _caller(context: RequestContext) -> Caller:
    user = context.call_context.user
    return user.caller if isinstance(user, _KeyUser) else Caller()


class StoredTasks(TaskStore):
    """Tasks in the agent's own store, one entry each, by key name and task id."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def save(self, task: Task, context: ServerCallContext) -> None:
        """See TaskStore."""
        await self._store.update(self._key(task.id, context), lambda _: bytes(task.SerializeToString()))

    async def get(self, task_id: str, context: ServerCallContext) -> Task | None:
        """See TaskStore."""
        raw = await self._store.get(self._key(task_id, context))
        return None if raw is None else Task.FromString(raw)

    async def list(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """Not offered."""
        raise UnsupportedOperationError(message="This agent does not list tasks: ask for one by its id.")

    async def delete(self, task_id: str, context: ServerCallContext) -> None:
        """See TaskStore."""
        await self._store.delete(self._key(task_id, context))

    @staticmethod
    def _key(task_id: str, context: ServerCallContext) -> str:
        return f"a2a-task:{_digest(context.user.user_name)}:{task_id}"


class RunExecutor(AgentExecutor):
    """Runs tasks as the agent's runs."""

    def __init__(self, agent: AgentService) -> None:
        self._agent = agent

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """See AgentExecutor."""
        task = context.current_task
        if task is None and context.message is not None:
            task = new_task_from_user_message(context.message)
            await event_queue.enqueue_event(task)
        if task is None:
            return
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        caller = _caller(context)
        try:
            if task.status.state == TaskState.TASK_STATE_INPUT_REQUIRED:
                run = await self._decided(context, task, caller)
            else:
                run = await self._agent.begin(_request(context, task), caller, _run_id(task.id))
            if run is not None:
                await self._follow(run, updater, caller)
            run = await self._agent.get(_run_id(task.id), caller)
        except AgentError as error:
            await updater.failed(updater.new_agent_message([new_text_part(f"{error.code}: {error.message}")]))
            return
        await _tell(run, updater)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """See AgentExecutor."""
        task_id, context_id = context.task_id or "", context.context_id or ""
        with contextlib.suppress(AgentError):  # it is gone, which is what was wanted
            await self._agent.cancel(_run_id(task_id), _caller(context))
        await TaskUpdater(event_queue, task_id, context_id).cancel()

    async def _decided(self, context: RequestContext, task: Task, caller: Caller) -> Run | None:
        """The run that goes on after a person's decision; None when the message holds none."""
        run = await self._agent.get(_run_id(task.id), caller)
        verdict, reason = decision_in(context)
        if verdict is None or run.awaited is None:
            return None
        return await self._agent.answer(run.id, run.awaited.id, verdict, reason, caller)

    async def _follow(self, run: Run, updater: TaskUpdater, caller: Caller) -> None:
        """Tells of tool calls until the run has ended or waits."""
        await updater.start_work()
        names = {call.id: call.name for call in run.calls}
        told = len(events(run))
        async for event in self._agent.follow(run.id, caller, after=told, until_approval=True, text=False):
            if not isinstance(event, RunEvent):
                continue
            if event.type == "tool_call.created":
                names[event.data["call_id"]] = event.data["name"]
            if event.type == "tool_call.started":
                said = new_text_part(f"Calling {names[event.data['call_id']]}.")
                await updater.update_status(TaskState.TASK_STATE_WORKING, updater.new_agent_message([said]))


async def _tell(run: Run, updater: TaskUpdater) -> None:
    """The task's state after the run has ended or waits."""

    def said(*parts: Part) -> Any:
        return updater.new_agent_message(list(parts))

    if run.awaited is not None:
        await updater.requires_input(said(*_question(run.awaited)))
    elif run.status == "completed" and run.finish_reason == "abstained":
        why = run.steps[-1].decision.reason if run.steps and run.steps[-1].decision else "abstained"
        await updater.reject(said(new_text_part(why)))
    elif run.status == "completed":
        await updater.add_artifact([new_text_part(run.result or "")], name="answer", last_chunk=True)
        await updater.complete()
    elif run.status == "cancelled":
        await updater.cancel()
    else:
        if run.result:
            await updater.add_artifact(
                [new_text_part(run.result)], name="best answer so far", last_chunk=True
            )
        why = run.error.message if run.error is not None else run.status
        await updater.failed(said(new_text_part(why)))


def _question(call: Call) -> list[Part]:
    text = (
        f"The call {call.name}({call.arguments}) needs a person's approval: "
        "answer 'approve' or 'deny', or send a data part {\"approve\": true}."
    )
    return [
        new_text_part(text),
        new_data_part({"call_id": call.id, "name": call.name, "arguments": call.arguments}),
    ]


def decision_in(context: RequestContext) -> tuple[bool | None, str | None]:
    """Whether the message approves (True), denies (False) or does not say (None), and the reason if one is
    given."""
    if context.message is None:
        return None, None
    for data in get_data_parts(context.message.parts):
        if isinstance(data, dict) and isinstance(data.get("approve"), bool):
            reason = data.get("reason")
            return data["approve"], reason if isinstance(reason, str) else None
    word = get_message_text(context.message).strip().lower()
    return {"approve": True, "deny": False}.get(word), None


def _request(context: RequestContext, task: Task) -> RunRequest:
    text = context.get_user_input()
    session_id = f"a2a-{_digest(task.context_id)}"
    return RunRequest((Message("user", text),), session_id=session_id, background=True)


def _run_id(task_id: str) -> str:
    return f"run_{task_id}"


def _digest(text: str) -> str:
    """A name of fixed letters for text that others chose."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]
