"""What a run's followers are told. Layer: agent, pure.

The one idea: the events are read off the run itself and never stored beside it. The list only grows: what
`events(run)` gives at one moment is the beginning of what it gives at any later one, so a position in it is
all that a client needs to go on after a broken connection (`Last-Event-ID`), and on another replica as
well.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from agent_runtime.agent.approval import Approval
from agent_runtime.agent.run import Call, Run, Step


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that happened; `number` counts from 1."""

    number: int
    type: str
    data: dict[str, Any]


def events(run: Run) -> tuple[RunEvent, ...]:
    """Everything that has happened so far, in order.

    Types: run.created; per step step.started, decision.made, message; per call tool_call.created,
    approval.requested, approval.resolved, tool_call.started, tool_call.completed; at the end run.completed,
    run.failed, run.cancelled or run.exhausted.
    """
    found: list[tuple[str, dict[str, Any]]] = [
        ("run.created", {"run_id": run.id, "created_at": int(run.created)})
    ]
    for step in run.steps:
        found += _step(step)
    if run.ended:
        found.append((f"run.{run.status}", ended(run)))
    return tuple(RunEvent(number, kind, data) for number, (kind, data) in enumerate(found, 1))


def ended(run: Run) -> dict[str, Any]:
    """What came of the run."""
    error = None if run.error is None else run.error.model_dump()
    return {"status": run.status, "finish_reason": run.finish_reason, "output": run.result, "error": error}


def _step(step: Step) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = [("step.started", {"step": step.index})]
    if step.decision is not None:
        found.append(("decision.made", {"step": step.index, **step.decision.model_dump()}))
    if step.text:
        found.append(("message", {"step": step.index, "content": step.text}))
    for call in step.calls:
        found += _call(step, call)
        if call.observation is None:
            break  # the calls are made one after the other: nothing has happened to the later ones
    return found


def _call(step: Step, call: Call) -> list[tuple[str, dict[str, Any]]]:
    where = {"step": step.index, "call_id": call.id}
    made = {"name": call.name, "arguments": call.arguments}
    found: list[tuple[str, dict[str, Any]]] = [("tool_call.created", where | made)]
    if call.approval is not None:
        found.append(("approval.requested", where | made | {"expires_at": int(call.approval.expires)}))
        if not call.approval.pending:
            found.append(("approval.resolved", where | verdict(call.approval)))
    if call.started is not None:
        found.append(("tool_call.started", dict(where)))
    if call.observation is not None:
        found.append(("tool_call.completed", where | call.observation.model_dump()))
    return found


def verdict(approval: Approval) -> dict[str, Any]:
    """Who decided what, and why."""
    return {"verdict": approval.verdict, "by": approval.by, "reason": approval.reason}


def sse(event: RunEvent) -> bytes:
    """The event as a server-sent event, with its number as id."""
    return _sse(event.type, event.data, event.number)


def delta_sse(text: str) -> bytes:
    """A piece of the text being generated. It has no id: after a reconnect the whole text comes as
    `message`."""
    return _sse("message.delta", {"content": text}, None)


def _sse(kind: str, data: dict[str, Any], number: int | None) -> bytes:
    head = "" if number is None else f"id: {number}\n"
    body = json.dumps({"type": kind, **data}, ensure_ascii=False, separators=(",", ":"))
    return f"{head}event: {kind}\ndata: {body}\n\n".encode()
