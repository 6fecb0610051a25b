"""How a run ends, and what it has used. Layer: agent, pure.

The one idea: whatever ends a run, its conversation can be gone on with: every call has a result and the
agent has the last word, because chat templates and OpenAI's API refuse anything else.
"""

from __future__ import annotations

from agent_runtime.agent import approval as approvals
from agent_runtime.agent.commands import Budget, Finish
from agent_runtime.agent.run import FinishReason, Observation, Run, RunError, Status, best_answer
from agent_runtime.llm.chat import Message


def read(run: Run, input_tokens: int, output_tokens: int) -> Run:
    """Accounts for what the model read and generated."""
    use = run.use.model_copy(
        update={
            "input_tokens": run.use.input_tokens + input_tokens,
            "output_tokens": run.use.output_tokens + output_tokens,
        }
    )
    step = run.steps[-1]
    return run.changed(use=use).with_step(
        input_tokens=step.input_tokens + input_tokens, output_tokens=step.output_tokens + output_tokens
    )


def observe(run: Run, call_id: str, seen: Observation) -> Run:
    """The call's result becomes part of the step and of the conversation."""
    run = run.with_call(call_id, observation=seen)
    call = next(call for call in run.steps[-1].calls if call.id == call_id)
    told = Message("tool", seen.text, tool_call_id=call.id, name=call.name)
    return run.changed(conversation=(*run.conversation, told))


def exhausted(run: Run, now: float, which: Budget) -> tuple[Run, Finish]:
    """Ends the run because a budget is used up, with the best answer so far."""
    limits = run.spec.limits
    message = f"The run's budget {which} ({getattr(limits, which):g}) is used up."
    error = RunError(code=which, message=message)
    return end(run, now, "exhausted", which, result=best_answer(run), error=error)


def failed(run: Run, now: float, reason: FinishReason, error: RunError) -> tuple[Run, Finish]:
    """Ends the run because of an error, with the best answer so far."""
    return end(run, now, "failed", reason, result=best_answer(run), error=error)


def end(
    run: Run,
    now: float,
    status: Status,
    reason: FinishReason,
    *,
    result: str | None = None,
    error: RunError | None = None,
) -> tuple[Run, Finish]:
    """Ends the run."""
    for call in run.steps[-1].calls if run.steps else ():
        if call.observation is not None:
            continue
        if call.approval is not None and call.approval.pending:
            run = run.with_call(call.id, approval=approvals.expired(call.approval, now))
        run = observe(run, call.id, _UNKNOWN if call.started is not None else _NOT_CALLED)
    if run.conversation and run.conversation[-1].role != "assistant":
        words = f"(The run ended without an answer: {reason}.)"
        run = run.changed(conversation=(*run.conversation, Message("assistant", words)))
    return run.changed(status=status, finish_reason=reason, result=result, error=error), Finish()


_UNKNOWN = Observation(
    text="The run ended during this call: it may have taken effect.", outcome="outcome_unknown"
)
_NOT_CALLED = Observation(text="The call was not made.", outcome="not_called", attempts=0)
