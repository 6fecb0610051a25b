"""Carries out a run's commands. Layer: agent, shell: the model, the tools, the clock and the store meet
here.

The one idea: the driver decides nothing. It asks `loop.advance` for the next command, carries it out under
the run's remaining seconds, and hands back what came of it; a checkpoint is written before every tool call
and at the beginning of every step, so a process that dies has lost no effect on the world without a trace.

A run can be cancelled at any moment: what is being carried out is cancelled, and waited for a little.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

from agent_runtime.agent.commands import (
    AwaitApproval,
    CallTool,
    Cancelled,
    Command,
    Decide,
    Decided,
    Event,
    Failed,
    Finish,
    Generate,
    Generated,
    Plan,
    Planned,
    TimedOut,
)
from agent_runtime.agent.compaction import compact
from agent_runtime.agent.environment import Environment
from agent_runtime.agent.errors import context_length
from agent_runtime.agent.loop import advance
from agent_runtime.agent.observer import AgentObserver, NoObserver
from agent_runtime.agent.prompts import prompt
from agent_runtime.agent.run import Run, RunSpec
from agent_runtime.decision import decide, policy_from
from agent_runtime.llm.base import (
    Backend,
    Encoded,
    GenerationError,
    Grammar,
    Limits,
    Result,
    Sampling,
    Text,
)
from agent_runtime.llm.chat import Message
from agent_runtime.llm.tool_calls import ToolCallStream

log = logging.getLogger("agent_runtime.agent")

ABANDON_SECONDS = 5.0
"""How long a cancelled command may take to stop before it is left alone."""

Admit = Callable[[int], AbstractAsyncContextManager[None]]
"""Waits for the right to use the model for a request of so many tokens. Raises GenerationError when there
is none."""

Save = Callable[[Run], Awaitable[Run]]
"""Writes a checkpoint; gives the run as it was written."""

Summarize = Callable[[Sequence[Message]], Awaitable[str]]
"""A short text in the place of messages that no longer fit."""


@asynccontextmanager
async def unlimited(tokens: int) -> AsyncIterator[None]:
    """Admits everything at once."""
    yield


def input_limit(limits: Limits, spec: RunSpec, max_input_tokens: int | None) -> int | None:
    """How long a prompt may be, in tokens. Where input and output share the context, a quarter of it at
    most is kept free for the answer."""
    bounds = [] if max_input_tokens is None else [max_input_tokens]
    if limits.context is not None:
        reserve = min(spec.max_output_tokens, limits.context // 4) if limits.shared_context else 0
        bounds.append(limits.context - reserve)
    return min(bounds, default=None)


class Driver:
    """Drives one run."""

    def __init__(
        self,
        backend: Backend,
        environment: Environment,
        save: Save,
        *,
        changed: Callable[[Run], None] = lambda run: None,
        delta: Callable[[str], None] = lambda text: None,
        watched: Callable[[], bool] = lambda: True,
        admit: Admit = unlimited,
        summarize: Summarize | None = None,
        max_input_tokens: int | None = None,
        observer: AgentObserver | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._backend, self._environment, self._save = backend, environment, save
        self._changed, self._delta, self._watched = changed, delta, watched
        self._admit, self._summarize = admit, summarize
        self._max_input_tokens = max_input_tokens
        self._observer = observer or NoObserver()
        self._clock = clock
        self._cancel: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._encoded: Encoded | None = None

    def cancel(self, reason: str) -> None:
        """The run ends as soon as what it is doing has stopped. Harmless when it has ended."""
        if not self._cancel.done():
            self._cancel.set_result(reason)

    async def drive(self, run: Run, event: Event) -> Run:
        """Takes the event in and goes on until the run has ended or waits for a person; both are saved."""
        return await self.carry_on(*await self.take_in(run, event))

    async def take_in(self, run: Run, event: Event) -> tuple[Run, Command | None]:
        """The run after the event, saved where that matters, and what is to be done next."""
        before = run
        run, command = advance(run, event, self._clock(), self._environment.rules)
        if run is before:
            return run, command
        began = len(run.steps) > len(before.steps)
        if began or isinstance(command, CallTool | AwaitApproval | Finish):
            run = await self._save(run)
        self._tell(run, command)
        return run, command

    async def carry_on(self, run: Run, command: Command | None) -> Run:
        """Carries out the command and whatever follows from it."""
        while not (command is None or isinstance(command, AwaitApproval | Finish)):
            event = await self._carry_out(run, command)
            run, command = await self.take_in(run, event)
        return run

    def _tell(self, run: Run, command: Command | None) -> None:
        if isinstance(command, AwaitApproval) and run.awaited is not None:
            self._observer.approval_requested(run.awaited.name)
        if isinstance(command, Finish) and run.finish_reason is not None:
            self._observer.run_finished(run.status, run.finish_reason, run.use.seconds, run.use.steps)
        self._changed(run)

    async def _carry_out(self, run: Run, command: Command) -> Event:
        """What came of the command, or of its being cancelled or out of time."""
        seconds = max(0.0, run.spec.limits.timeout_seconds - run.use.seconds)
        job = asyncio.create_task(self._execute(run, command, time.monotonic() + seconds))
        either: set[asyncio.Future[Any]] = {job, self._cancel}
        try:
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if job.done():
                return job.result()
        finally:
            await _stopped(job)
        return Cancelled(self._cancel.result()) if self._cancel.done() else TimedOut()

    async def _execute(self, run: Run, command: Command, deadline: float) -> Event:
        try:
            match command:
                case Plan():
                    await asyncio.sleep(command.delay)
                    return await self._plan(run, command)
                case Decide():
                    return await self._decide(run, command, deadline)
                case Generate():
                    return await self._generate(run, command, deadline)
                case CallTool():
                    return await self._environment.execute(command)
        except GenerationError as error:
            return Failed(error.code, str(error), error.retry_after)
        except Exception:
            log.exception("run %s failed at %s", run.id, command.kind)
        return Failed("internal_error", "The agent failed; see the server's log.")

    async def _plan(self, run: Run, plan: Plan) -> Event:
        """What the model will be shown, shortened when it is too long."""

        def encode(messages: Sequence[Message]) -> Encoded:
            return self._backend.encode(prompt(plan, messages, run.spec))

        limits = self._backend.limits
        bound = input_limit(limits, run.spec, self._max_input_tokens)
        self._encoded = encode(run.conversation)
        if bound is not None and self._encoded.count > bound:
            self._encoded = encode(await self._shortened(run, lambda kept: encode(kept).count <= bound))
            if self._encoded.count > bound:
                error = context_length(self._encoded.count, bound)
                return Failed(error.code, error.message)
        tokens = sum(self._backend.encode(Text(candidate)).count + 1 for candidate in plan.candidates)
        shared = limits.shared_context and limits.context is not None
        room = (limits.context or 0) - self._encoded.count if shared else None
        return Planned(self._encoded.count, tokens, room)

    async def _shortened(self, run: Run, fits: Callable[[Sequence[Message]], bool]) -> tuple[Message, ...]:
        compacted = compact(run.conversation, fits)
        if self._summarize is not None and compacted.dropped:
            compacted = compact(run.conversation, fits, await self._summarize(compacted.dropped))
        log.info("run %s: %d messages no longer fit", run.id, len(compacted.dropped))
        return compacted.messages

    def _planned(self) -> Encoded:
        if self._encoded is None:
            raise RuntimeError("the loop always plans before it asks the model")
        return self._encoded

    async def _decide(self, run: Run, command: Decide, deadline: float) -> Event:
        encoded = self._planned()
        async with self._admit(encoded.count):
            scores = await self._backend.score(encoded, command.candidates, deadline)
        policy = policy_from(run.spec.decision)
        decision = decide(command.candidates, scores, policy, seed=command.seed)
        self._observer.decision_made(policy.name, decision.label, decision.confidence, decision.entropy)
        return Decided(
            label=decision.label,
            reason=decision.reason,
            probabilities=dict(zip(command.candidates, decision.probabilities, strict=True)),
            confidence=decision.confidence,
            entropy=decision.entropy,
            seed=decision.seed,
            tokens=encoded.count + sum(len(score.token_logprobs) for score in scores),
        )

    async def _generate(self, run: Run, command: Generate, deadline: float) -> Event:
        grammar = _grammar(run, command)
        sampling = Sampling(command.max_tokens, seed=command.seed, grammar=grammar)
        try:
            return await self._generated(run, command, sampling, deadline)
        except GenerationError as error:
            if grammar is None or error.code != "invalid_grammar":
                raise
            # Tools are other people's: a schema that no grammar covers is checked afterwards instead.
            log.warning("the schema of tool %s cannot guide the model: %s", command.tool, error)
        return await self._generated(run, command, replace(sampling, grammar=None), deadline)

    async def _generated(self, run: Run, command: Generate, sampling: Sampling, deadline: float) -> Generated:
        encoded = self._planned()
        shown = ToolCallStream(run.spec.tools if command.purpose == "act" else (), str)
        stream = command.purpose != "arguments" and self._watched()
        async with self._admit(encoded.count + command.max_tokens):
            generation = self._backend.generate(encoded, sampling, deadline, stream=stream)
            try:
                async for event in generation.events():
                    if isinstance(event, Result):
                        self._show(command, shown.finish())
                        complete = event.finish_reason == "stop"
                        return Generated(event.text, event.prompt_tokens, event.completion_tokens, complete)
                    self._show(command, shown.feed(event.text))
            finally:
                generation.cancel()
                await generation.ended()
        raise GenerationError("the model's answer ended without a result")

    def _show(self, command: Generate, text: str) -> None:
        if text and command.purpose != "arguments":
            self._delta(text)


def _grammar(run: Run, command: Generate) -> Grammar | None:
    """A scored action's arguments are generated under the tool's schema, where the backend can."""
    tool = run.spec.tool(command.tool or "")
    if command.purpose != "arguments" or tool is None or not run.spec.grammar:
        return None
    return Grammar("json_schema", json.dumps(dict(tool.parameters)))


async def _stopped(job: asyncio.Task[Event]) -> None:
    """Cancels the job and waits a little; one that does not stop is left alone and logged."""
    if job.done():
        return
    job.cancel()
    await asyncio.wait({job}, timeout=ABANDON_SECONDS)
    if not job.done():
        log.error("a cancelled command does not stop; it is left alone")
        _abandoned.add(job)
        job.add_done_callback(_abandoned.discard)


_abandoned: set[asyncio.Task[Event]] = set()
"""Keeps them from being collected while they run."""
