"""The task execution module: what a run does next. Layer: agent, pure.

The one idea: `advance(run, event, now, rules)` is the whole agent. It takes in what happened and gives the
run as it is now and the one thing to do next; no clock, no chance, no model and no tool is in here, so a
run can be replayed, interrupted and gone on with anywhere.

    plan     what the model will be shown, in tokens      Plan     -> Planned
    decide   which action (scored runs)                    Decide   -> Decided
    act      words, a call's arguments, or calls           Generate -> Generated
             a call, after a person's approval             AwaitApproval -> Answered, CallTool -> Observed
    observe  the result becomes part of the conversation

A native run plans, generates, and calls what the model asked for until it asks for nothing. A scored run
chooses among the tools and `answer` by the policy over the exact P(action | context), then generates the
arguments or the answer. An abstention completes the run without a result, with finish_reason `abstained`.

A tool's failure is an observation. A model's failure is retried where the same prompt may work later
(twice, a few seconds apart) and ends the run otherwise. Every command is checked against the budgets first;
when one forbids it the run ends `exhausted` with the best answer so far.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent_runtime.agent import approval as approvals
from agent_runtime.agent import budget
from agent_runtime.agent.arguments import ArgumentsError, parameters, parse_arguments, parse_json, validate
from agent_runtime.agent.commands import (
    Answered,
    AwaitApproval,
    CallTool,
    Cancelled,
    Command,
    Decide,
    Decided,
    Draft,
    Event,
    Failed,
    Generate,
    Generated,
    Observed,
    Outcome,
    Plan,
    Planned,
    Resumed,
    Started,
    Tick,
    TimedOut,
)
from agent_runtime.agent.ending import end, exhausted, failed, observe, read
from agent_runtime.agent.repetition import WARNING, repeats
from agent_runtime.agent.run import (
    ANSWER,
    Call,
    Observation,
    Run,
    RunError,
    Step,
    StepDecision,
)
from agent_runtime.llm.chat import Message, ToolCall
from agent_runtime.llm.tool_calls import parse_tool_calls

MODEL_RETRIES = 2
RETRYABLE = frozenset({"overloaded", "remote_overloaded", "remote_unreachable", "remote_failed"})
RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 30.0
LONGEST_MISTAKE = 500
"""Characters kept of arguments that are none; a model that got lost writes until it is stopped."""


@dataclass(frozen=True, slots=True)
class ToolRule:
    """A tool as the loop sees it. `requires_approval` looks at the arguments of one call and must be pure;
    when it raises, approval is required."""

    parameters: Mapping[str, Any]
    requires_approval: Callable[[Mapping[str, Any]], bool]
    idempotent: bool = False


Rules = Mapping[str, ToolRule]
"""The tools that can be called now, by name."""

Advanced = tuple[Run, Command | None]


def advance(run: Run, event: Event, now: float, rules: Rules) -> Advanced:
    """The run after the event, and the next command.

    None means that nothing new is to be done: the run has ended, or the event does not belong to what is
    being carried out, which goes on. `now` is in Unix seconds.
    """
    if run.ended:
        return run, None
    timed = _timed(run, event, now)
    after, command = _take_in(timed, event, now, rules)
    if after is timed and command is None:
        return run, None
    return after.changed(pending=None if after.ended else command, version=run.version + 1), command


def _take_in(run: Run, event: Event, now: float, rules: Rules) -> Advanced:  # noqa: PLR0911 - one per event
    match event, run.pending:
        case Started(), None if run.status == "queued":
            return _next_step(run.changed(status="running"), now, rules)
        case Planned(), Plan() as plan:
            return _planned(run, event, plan, now)
        case Decided(), Decide():
            return _decided(run, event, now, rules)
        case Generated(), Generate() as generate:
            return _generated(run, event, generate, now, rules)
        case Observed(), CallTool() as call if call.call_id == event.call_id:
            seen = Observation(
                text=event.text, outcome=event.outcome, seconds=event.seconds,
                attempts=event.attempts, cut_bytes=event.cut_bytes,
            )  # fmt: skip
            return _next_call(observe(run, call.call_id, seen), now, rules)
        case Answered(), AwaitApproval() as awaiting if awaiting.call_id == event.call_id:
            return _answered(run, event, now, rules)
        case Failed(), Plan() | Decide() | Generate():
            return _failed(run, event, now, rules)
        case Cancelled(), _:
            error = RunError(code="cancelled", message=event.reason)
            return end(run, now, "cancelled", "cancelled", error=error)
        case TimedOut(), _ if run.status == "running":
            return exhausted(run, now, "timeout_seconds")
        case Tick(), AwaitApproval() as awaiting if now >= awaiting.expires:
            return _expired(run, now, rules)
        case Tick(), _ if run.status == "running" and budget.used_up(run) == "timeout_seconds":
            return exhausted(run, now, "timeout_seconds")
        case Resumed(), _:
            return _resumed(run, now, rules)
    return run, None


def _timed(run: Run, event: Event, now: float) -> Run:
    """Adds the time since the last event, unless the run was waiting for a person or for its process."""
    running = run.status == "running" and not isinstance(event, Resumed)
    elapsed = max(0.0, now - run.updated) if running else 0.0
    run = run.changed(updated=now, use=run.use.model_copy(update={"seconds": run.use.seconds + elapsed}))
    return run.with_step(seconds=run.steps[-1].seconds + elapsed) if run.steps and elapsed else run


# plan


def _next_step(run: Run, now: float, rules: Rules) -> Advanced:
    if (forbidding := budget.forbids_step(run)) is not None:
        return exhausted(run, now, forbidding)
    run = run.changed(
        steps=(*run.steps, Step(index=len(run.steps), started=now)),
        use=run.use.model_copy(update={"steps": run.use.steps + 1}),
        failures=0,
    )
    return run, Plan(purpose="act") if run.spec.mode == "native" else _deciding(run, rules)


def _deciding(run: Run, rules: Rules) -> Plan:
    """A scored step chooses among the tools there are and the answer; without tools it answers."""
    tools = [tool.name for tool in run.spec.tools if tool.name in rules]
    return Plan(purpose="decide", candidates=(*tools, ANSWER)) if tools else Plan(purpose="answer")


def _planned(run: Run, event: Planned, plan: Plan, now: float) -> Advanced:
    run = run.with_step(prompt_tokens=max(run.steps[-1].prompt_tokens, event.prompt_tokens))
    seed = None if run.spec.seed is None else run.spec.seed + len(run.steps) - 1
    if plan.purpose == "decide":
        if (
            forbidding := budget.forbids_reading(run, event.prompt_tokens + event.candidate_tokens)
        ) is not None:
            return exhausted(run, now, forbidding)
        return run, Decide(candidates=plan.candidates, seed=seed)
    allowed = budget.allowance(run, event.prompt_tokens, event.room)
    if allowed.max_tokens < 1:
        return exhausted(run, now, allowed.limited_by or "max_tokens")
    return run, Generate(
        purpose=plan.purpose, tool=plan.tool, draft=plan.draft, seed=seed,
        max_tokens=allowed.max_tokens, limited_by=allowed.limited_by,
    )  # fmt: skip


def _failed(run: Run, event: Failed, now: float, rules: Rules) -> Advanced:
    if event.code == "deadline_exceeded":
        return exhausted(run, now, "timeout_seconds")
    if event.code in RETRYABLE and run.failures < MODEL_RETRIES:
        wanted = RETRY_SECONDS * 2**run.failures if event.retry_after is None else event.retry_after
        delay = min(wanted, LONGEST_RETRY_SECONDS)
        again = _planning(run, rules).model_copy(update={"delay": delay})
        return run.changed(failures=run.failures + 1), again
    return failed(run, now, "error", RunError(code=event.code, message=event.message))


def _planning(run: Run, rules: Rules) -> Plan:
    """The plan that leads to what is being carried out."""
    match run.pending:
        case Generate() as generate:
            return Plan(purpose=generate.purpose, tool=generate.tool, draft=generate.draft)
        case Plan() as plan if plan.purpose != "decide":
            return plan
    return _deciding(run, rules)


# decide


def _decided(run: Run, event: Decided, now: float, rules: Rules) -> Advanced:
    run = read(run, event.tokens, 0).with_step(
        decision=StepDecision(
            label=event.label, reason=event.reason, probabilities=dict(event.probabilities),
            confidence=event.confidence, entropy=event.entropy, seed=event.seed,
        )
    )  # fmt: skip
    if event.label is None:
        return end(run, now, "completed", "abstained")
    if event.label == ANSWER:
        return run, Plan(purpose="answer")
    tool = run.spec.tool(event.label)
    if tool is not None and not parameters(tool.parameters):
        return _act(run, "", ((event.label, "{}"),), now, rules)
    return run, Plan(purpose="arguments", tool=event.label)


# act


def _generated(run: Run, event: Generated, generate: Generate, now: float, rules: Rules) -> Advanced:
    run = read(run, event.prompt_tokens, event.completion_tokens).changed(failures=0)
    if generate.purpose == "arguments":
        return _arguments(run, event, generate, now, rules)
    content = event.text
    calls: tuple[tuple[str, str], ...] = ()
    if generate.purpose == "act":
        content, found = parse_tool_calls(event.text, run.spec.tools, str)
        calls = tuple((call.name, call.arguments) for call in found)
    run = run.with_step(text=content)
    if calls:
        return _act(run, content, calls, now, rules)
    run = run.changed(conversation=(*run.conversation, Message("assistant", content)))
    if event.complete:
        return end(run, now, "completed", "answer", result=content)
    if generate.limited_by is not None:
        return exhausted(run, now, generate.limited_by)
    return end(run, now, "completed", "length", result=content)


def _arguments(run: Run, event: Generated, generate: Generate, now: float, rules: Rules) -> Advanced:
    """Arguments of a scored action; a mistake is shown to the model once."""
    name = generate.tool or ""
    tool = run.spec.tool(name)
    try:
        arguments = parse_arguments(event.text, tool.parameters if tool else {})
    except ArgumentsError as error:
        if not event.complete and generate.limited_by is not None:
            return exhausted(run, now, generate.limited_by)
        if generate.draft is None:
            draft = Draft(text=event.text[:LONGEST_MISTAKE], error=str(error))
            return run, Plan(purpose="arguments", tool=name, draft=draft)
        return _act(run, "", ((name, event.text[:LONGEST_MISTAKE]),), now, rules)
    return _act(run, "", ((name, json.dumps(arguments, ensure_ascii=False)),), now, rules)


def _act(run: Run, content: str, wanted: tuple[tuple[str, str], ...], now: float, rules: Rules) -> Advanced:
    """The model's calls become the step's, to be made one after the other."""
    step = run.steps[-1].index
    calls = tuple(
        Call(id=f"call_{run.id[-12:]}_{step}_{number}", name=name, arguments=arguments)
        for number, (name, arguments) in enumerate(wanted)
    )
    said = Message("assistant", content, tuple(ToolCall(c.id, c.name, c.arguments) for c in calls))
    run = run.with_step(calls=calls).changed(conversation=(*run.conversation, said))
    return _next_call(run, now, rules)


def _next_call(run: Run, now: float, rules: Rules) -> Advanced:
    """The step's next call, or the next step when all of them were observed."""
    while (call := next((c for c in run.steps[-1].calls if c.observation is None), None)) is not None:
        refusal = _refusal(call, rules)
        if refusal is not None:
            run = observe(run, call.id, refusal)
            continue
        if call.approval is None and _needs_approval(call, rules):
            asked = approvals.requested(now, run.spec.approval_seconds)
            run = run.with_call(call.id, approval=asked).changed(status="awaiting_approval")
            return run, AwaitApproval(call_id=call.id, expires=asked.expires)
        return _call(run, call, now)
    if _in_circle(run):
        return _circle(run, now, rules)
    return _next_step(run, now, rules)


def _call(run: Run, call: Call, now: float) -> Advanced:
    if (forbidding := budget.forbids_call(run)) is not None:
        return exhausted(run, now, forbidding)
    run = run.with_call(call.id, started=now)
    run = run.changed(use=run.use.model_copy(update={"tool_calls": run.use.tool_calls + 1}))
    approved = call.approval is not None and call.approval.verdict == "approved"
    return run, CallTool(call_id=call.id, name=call.name, arguments=call.arguments, approved=approved)


def _refusal(call: Call, rules: Rules) -> Observation | None:
    """Why a call must not be made at all; nobody is asked to approve one that cannot work."""
    rule = rules.get(call.name)
    if rule is None:
        text = f"There is no tool '{call.name}' at the moment."
        return Observation(text=text, outcome="unknown_tool", attempts=0)
    try:
        validate(rule.parameters, parse_json(call.arguments))
    except ArgumentsError as error:
        text = f"The call was not made: {error}."
        return Observation(text=text, outcome="invalid_arguments", attempts=0)
    return None


def _needs_approval(call: Call, rules: Rules) -> bool:
    try:
        return bool(rules[call.name].requires_approval(parse_json(call.arguments)))
    except Exception:
        return True  # whoever wrote the rule did not foresee this call: ask


def _answered(run: Run, event: Answered, now: float, rules: Rules) -> Advanced:
    call = run.awaited
    if call is None or call.approval is None:
        return run, None
    verdict = approvals.resolved(call.approval, event.approve, event.by, event.reason, now)
    return _verdict(run, call, verdict, now, rules)


def _expired(run: Run, now: float, rules: Rules) -> Advanced:
    call = run.awaited
    if call is None or call.approval is None:
        return run, None
    return _verdict(run, call, approvals.expired(call.approval, now), now, rules)


def _verdict(run: Run, call: Call, verdict: approvals.Approval, now: float, rules: Rules) -> Advanced:
    run = run.with_call(call.id, approval=verdict).changed(status="running")
    if verdict.verdict != "approved":
        outcome: Outcome = "approval_expired" if verdict.verdict == "expired" else "denied"
        denied = Observation(text=approvals.denial(verdict), outcome=outcome, attempts=0)
        run = observe(run, call.id, denied)
    return _next_call(run, now, rules)


# observe


def _in_circle(run: Run) -> bool:
    return bool(run.steps[-1].calls) and repeats(run.calls)


def _circle(run: Run, now: float, rules: Rules) -> Advanced:
    if run.warned:
        message = "The agent repeated the same calls with the same results."
        return failed(run, now, "loop_detected", RunError(code="loop_detected", message=message))
    last = run.conversation[-1]
    hint = Message("tool", f"{last.content}\n{WARNING}", tool_call_id=last.tool_call_id, name=last.name)
    run = run.changed(warned=True, conversation=(*run.conversation[:-1], hint))
    return _next_step(run, now, rules)


def _resumed(run: Run, now: float, rules: Rules) -> Advanced:
    match run.pending:
        case None if run.status == "queued":
            return _next_step(run.changed(status="running"), now, rules)
        case Plan() | Decide() | Generate():
            return run, _planning(run, rules)
        case CallTool() as sent:
            rule = rules.get(sent.name)
            if rule is not None and rule.idempotent:
                return _call(run, next(c for c in run.calls if c.id == sent.call_id), now)
            lost = "The process restarted during this call: it may or may not have taken effect."
            unknown = Observation(text=lost, outcome="outcome_unknown")
            return _next_call(observe(run, sent.call_id, unknown), now, rules)
    return run, None
