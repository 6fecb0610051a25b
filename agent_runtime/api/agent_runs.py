"""POST /v1/agent/runs and what belongs to it: runs, their events, approvals, sessions. Layer: api.

The one idea: the agent knows no HTTP and HTTP knows no agent; this file maps verbs, shapes and errors. A
run that was not sent to the background belongs to its request: when the caller leaves it is cancelled. One
that waits for a person is answered 202 and no longer belongs to anybody; it is followed at `/events`, from
any point (Last-Event-ID) and on any replica.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from agent_runtime.access.gate import principal_of
from agent_runtime.agent.errors import AgentError
from agent_runtime.agent.journal import RunEvent, delta_sse, sse, verdict
from agent_runtime.agent.request import ANYBODY, Caller
from agent_runtime.agent.run import Call, Run, Step
from agent_runtime.agent.service import AgentService
from agent_runtime.agent.sessions import Session
from agent_runtime.api import errors
from agent_runtime.api.agent_schema import ApprovalBody, RunBody
from agent_runtime.api.disconnect import ClientGoneError, until_disconnect
from agent_runtime.api.parse import parse
from agent_runtime.api.service import Service
from agent_runtime.api.sse import event
from agent_runtime.llm.chat import Message

log = logging.getLogger("agent_runtime.api")

KEEP_ALIVE = b": nothing new\n\n"


def routes() -> list[Route]:
    """Every route of this file."""
    return [
        Route("/v1/agent/runs", create_run, methods=["POST"]),
        Route("/v1/agent/runs/{id}", get_run, methods=["GET"]),
        Route("/v1/agent/runs/{id}/events", run_events, methods=["GET"]),
        Route("/v1/agent/runs/{id}/cancel", cancel_run, methods=["POST"]),
        Route("/v1/agent/runs/{id}/approve", approve_call, methods=["POST"]),
        Route("/v1/sessions/{id}", get_session, methods=["GET"]),
        Route("/v1/sessions/{id}", delete_session, methods=["DELETE"]),
    ]


async def create_run(request: Request) -> Response:
    """Begins a run; answers when it has ended or waits, at once (background), or as a stream of events."""
    agent, caller = _agent(request), caller_of(request)
    body = await parse(request, RunBody)
    service: Service = request.app.state.service
    service.check_model(request, body.model)
    with _translated():
        run = await agent.begin(body.request(), caller)
    if body.stream:
        return _stream(agent, run.id, caller, until_approval=True, cancel=not body.background)
    if body.background:
        return _answer(run, service)
    try:
        run = await until_disconnect(request.receive, agent.wait(run.id, caller))
    except ClientGoneError:
        await agent.cancel(run.id, caller)
        raise
    return _answer(run, service)


async def get_run(request: Request) -> Response:
    """The run as it is now."""
    with _translated():
        run = await _agent(request).get(request.path_params["id"], caller_of(request))
    return JSONResponse(run_object(run, _model(request)))


async def run_events(request: Request) -> Response:
    """The run's events from the one after `Last-Event-ID`, as they come, until it ends."""
    agent, caller, run_id = _agent(request), caller_of(request), request.path_params["id"]
    last = request.headers.get("last-event-id", "0")
    if not (last.isascii() and last.isdigit() and len(last) <= 9):
        raise errors.invalid_header("Last-Event-ID", "it is the number of an event of this run")
    with _translated():
        await agent.get(run_id, caller)
    return _stream(agent, run_id, caller, after=int(last))


async def cancel_run(request: Request) -> Response:
    """Ends the run; one that has ended stays as it is."""
    with _translated():
        run = await _agent(request).cancel(request.path_params["id"], caller_of(request))
    return JSONResponse(run_object(run, _model(request)))


async def approve_call(request: Request) -> Response:
    """Approves or denies the call that the run waits with; the run goes on."""
    agent, caller = _agent(request), caller_of(request)
    body = await parse(request, ApprovalBody)
    with _translated():
        run = await agent.answer(request.path_params["id"], body.call_id, body.approve, body.reason, caller)
    return _answer(run, request.app.state.service)


async def get_session(request: Request) -> Response:
    """The conversation of a session."""
    with _translated():
        session = await _agent(request).session(request.path_params["id"], caller_of(request))
    return JSONResponse(session_object(session))


async def delete_session(request: Request) -> Response:
    """Forgets a session."""
    session_id = request.path_params["id"]
    with _translated():
        await _agent(request).forget_session(session_id, caller_of(request))
    return JSONResponse({"id": session_id, "object": "agent.session", "deleted": True})


def caller_of(request: Request) -> Caller:
    """Who asks, by the API key that the request carries."""
    principal = principal_of(request.scope)
    return ANYBODY if principal is None else Caller(principal.name, principal.tools, principal.admin)


# shapes


def run_object(run: Run, model: str) -> dict[str, Any]:
    """A run as the API shows it."""
    return {
        "id": run.id,
        "object": "agent.run",
        "created_at": int(run.created),
        "updated_at": int(run.updated),
        "model": model,
        "status": run.status,
        "finish_reason": run.finish_reason,
        "output": run.result,
        "error": None if run.error is None else run.error.model_dump(),
        "required_action": None if run.awaited is None else _required(run.awaited),
        "session_id": run.session_id,
        "metadata": run.metadata,
        "steps": [_step(step) for step in run.steps],
        "usage": {
            "steps": run.use.steps,
            "tool_calls": run.use.tool_calls,
            "input_tokens": run.use.input_tokens,
            "output_tokens": run.use.output_tokens,
            "total_tokens": run.use.tokens,
            "seconds": round(run.use.seconds, 6),
            "cost": run.cost,
        },
    }


def session_object(session: Session) -> dict[str, Any]:
    """A session as the API shows it."""
    return {
        "id": session.id,
        "object": "agent.session",
        "created_at": int(session.created),
        "updated_at": int(session.updated),
        "messages": [_message(message) for message in session.messages],
    }


def _required(call: Call) -> dict[str, Any]:
    expires = None if call.approval is None else int(call.approval.expires)
    return {
        "type": "approve_tool_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "expires_at": expires,
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "index": step.index,
        "plan": {"prompt_tokens": step.prompt_tokens},
        "decision": None if step.decision is None else step.decision.model_dump(),
        "message": step.text or None,
        "tool_calls": [_call(call) for call in step.calls],
        "usage": {"input_tokens": step.input_tokens, "output_tokens": step.output_tokens},
        "seconds": round(step.seconds, 6),
    }


def _call(call: Call) -> dict[str, Any]:
    return {
        "id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "approval": None if call.approval is None else verdict(call.approval),
        "observation": None if call.observation is None else call.observation.model_dump(),
    }


def _message(message: Message) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        shown["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        shown |= {"tool_call_id": message.tool_call_id, "name": message.name}
    return shown


# streams


class RunStream(Response):
    """Sends a run's events; calls `gone` when the client leaves before the end."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncIterator[RunEvent | str], gone: Callable[[], Awaitable[Any]] | None = None
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._gone = events, gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the stream to its end."""
        try:
            await until_disconnect(receive, self._send(send))
        except (ClientGoneError, OSError):
            log.info("client disconnected while a run was streamed")
            if self._gone is not None:
                await self._gone()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

        async def body(data: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        try:
            async with aclosing(self._events) as found:  # type: ignore[type-var]
                async for item in found:
                    await body(_encoded(item))
        except (asyncio.CancelledError, OSError):
            raise
        except AgentError as error:
            await body(event(from_agent(error).body(), "error"))
        except Exception:
            log.exception("a run's stream failed")
            await body(event(errors.internal().body(), "error"))
        await body(b"", more=False)


def _encoded(item: RunEvent | str) -> bytes:
    if isinstance(item, str):
        return delta_sse(item) if item else KEEP_ALIVE
    return sse(item)


def _stream(
    agent: AgentService,
    run_id: str,
    caller: Caller,
    *,
    after: int = 0,
    until_approval: bool = False,
    cancel: bool = False,
) -> Response:
    found = agent.follow(run_id, caller, after=after, until_approval=until_approval)
    return RunStream(found, (lambda: agent.cancel(run_id, caller)) if cancel else None)


def _answer(run: Run, service: Service) -> Response:
    """200 for a run that has ended, 202 for one that goes on or waits."""
    status = 200 if run.ended else 202
    return JSONResponse(run_object(run, service.config.model.served_name), status)


# errors

_STATUS: Mapping[str, int] = {
    "run_not_found": 404,
    "session_not_found": 404,
    "too_many_runs": 429,
    "not_awaiting_approval": 409,
    "call_not_awaiting_approval": 409,
    "run_conflict": 409,
    "tool_not_allowed": 403,
    "session_store_unavailable": 503,
}
"""HTTP status by error code; 400 otherwise."""

_KIND: Mapping[int, str] = {429: "rate_limit_error", 503: "service_unavailable_error"}


def from_agent(error: AgentError) -> errors.ApiError:
    """An error of the agent as an HTTP answer."""
    status = _STATUS.get(error.code, 400)
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    kind = _KIND.get(status, "invalid_request_error")
    return errors.ApiError(status, error.code, error.message, kind=kind, param=error.param, headers=headers)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except AgentError as error:
        raise from_agent(error) from error


def _agent(request: Request) -> AgentService:
    """The agent. Raises ApiError 503 while there is none."""
    service: Service = request.app.state.service
    agent = service.require_ready().agent
    if agent is None:
        raise errors.unavailable("model_loading", "The agent is not ready yet; retry.", 5)
    return agent


def _model(request: Request) -> str:
    service: Service = request.app.state.service
    return service.config.model.served_name
