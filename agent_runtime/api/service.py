"""From a validated request to events: the path all generating endpoints share. Layer: api.

The one idea: everything between a request and the model happens once, here: readiness, keys, limits,
admission, deadlines, metrics, disconnects. An endpoint is left with the shapes of its own objects.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from agent_runtime.access.gate import Gate, principal_of, require_model
from agent_runtime.admission import Admission, QueueFullError
from agent_runtime.api import errors
from agent_runtime.api.answer import Answer
from agent_runtime.api.disconnect import until_disconnect
from agent_runtime.contract import Parameters, RuntimeConfig
from agent_runtime.llm.base import (
    Backend,
    Encoded,
    Generation,
    GenerationError,
    Grammar,
    Prompt,
    Sampling,
    Text,
)
from agent_runtime.observability.recorder import Recorder
from agent_runtime.observability.tracing import Operation
from agent_runtime.parameters import LiveParameters
from agent_runtime.state import Activity, State, Status, Work, work

if TYPE_CHECKING:
    from agent_runtime.agent.service import AgentService
    from agent_runtime.api.schema import Common

log = logging.getLogger("agent_runtime.api")

T = TypeVar("T")

TIMEOUT_HEADER = "x-request-timeout-seconds"
LONG_TEXT = 16_384
"""Characters above which tokens are counted in a thread: the event loop has probes to answer."""
CHARACTERS_PER_TOKEN = 128
"""No text of a natural language has tokens this long."""


@dataclass(slots=True)
class Serving:
    """What exists once the model is there."""

    backend: Backend
    created: int
    agent: AgentService | None = None


class Service:
    """Everything an endpoint needs; lives on the event loop."""

    def __init__(
        self,
        config: RuntimeConfig,
        recorder: Recorder,
        status: Callable[[], Status],
        parameters: LiveParameters,
        gate: Gate | None = None,
        *,
        on_load: Callable[[], None] = lambda: None,
    ) -> None:
        self.config, self.recorder, self.status, self.gate = config, recorder, status, gate
        self.live = parameters
        self.serving: Serving | None = None
        value = parameters.value
        self.admission = Admission(
            value.max_concurrency, value.max_queued_requests, value.max_queued_tokens, on_load
        )
        parameters.subscribe(
            "admission",
            ("max_concurrency", "max_queued_requests", "max_queued_tokens"),
            lambda new: self.admission.resize(
                new.max_concurrency, new.max_queued_requests, new.max_queued_tokens
            ),
        )
        # Read at each request, so there is nothing to take up.
        parameters.subscribe(
            "requests", ("max_input_tokens", "max_output_tokens", "request_timeout_seconds"), lambda new: None
        )

    @property
    def parameters(self) -> Parameters:
        """The parameters in force."""
        return self.live.value

    def activity(self) -> Activity:
        """What the engine is doing; idle while there is none."""
        return Activity(0, 0.0) if self.serving is None else self.serving.backend.progress.activity()

    def work(self) -> Work:
        """The engine's forward progress in one word."""
        return work(self.activity(), self.config.stall_seconds)

    def require_ready(self) -> Serving:
        """The model. Raises ApiError 503 when new requests are not welcome."""
        status = self.status()
        if status.state is State.READY and self.serving is not None:
            return self.serving
        if status.state is State.DRAINING:
            raise errors.unavailable("server_draining", "The server is shutting down; retry.", 1)
        if status.state is State.FAILED:
            raise errors.unavailable("server_failed", f"The server failed: {status.reason}", 5)
        raise errors.unavailable("model_loading", f"The model is not loaded yet: {status.reason}", 5)

    # ------------------------------------------------------------ checks

    def check_model(self, request: Request, model: str | None) -> None:
        """Raises ApiError 404 when another model than the served one is named, 403 when the key may not use
        it."""
        served = self.config.model.served_name
        if model is not None and model != served:
            raise errors.model_not_found(model, served)
        require_model(principal_of(request.scope), served)

    async def encode(self, backend: Backend, prompt: Prompt, param: str) -> Encoded:
        """The prompt's tokens. Raises ApiError when there are none or more than allowed."""
        size = characters(prompt)
        self.check_size(size, param)
        encoded = await beside_the_loop(size, lambda: backend.encode(prompt))
        self.check_length(encoded, param)
        return encoded

    def check_size(self, size: int, param: str) -> None:
        """Raises ApiError for a text of so many characters that it need not be counted in tokens: counting
        takes a second per megabyte."""
        most = max(LONG_TEXT, self.context() * CHARACTERS_PER_TOKEN)
        if size > most:
            raise errors.context_size(size, self.context(), param)

    def context(self) -> int:
        """The longest accepted input, in tokens."""
        limit = self.parameters.max_input_tokens
        serving = self.serving
        if serving is None or serving.backend.limits.context is None:
            return limit
        # A model that shares its context needs at least one position for an answer.
        return min(limit, serving.backend.limits.context - serving.backend.limits.shared_context)

    def check_length(self, encoded: Encoded, param: str) -> None:
        """Raises ApiError when a prompt is empty or has more tokens than the server or the model takes."""
        if encoded.count == 0:
            raise errors.invalid_field(param, "it has no tokens: write something.")
        limit = self.context()
        if encoded.count > limit:
            raise errors.context_length(encoded.count, limit, param)

    def sampling(self, backend: Backend, encoded: Encoded, body: Common, grammar_field: str = "") -> Sampling:
        """How to answer; without a temperature the likeliest tokens are taken. Raises ApiError for what this
        server or this model cannot do."""
        field, asked = body.token_limit
        if asked is not None and (body.min_tokens or 0) > asked:
            raise errors.invalid_field("min_tokens", f"it is above {field}, which is {asked}.")
        grammar, logprobs = body.grammar, body.logprobs_asked
        _check_capabilities(backend, grammar, grammar_field, logprobs)
        _check_tokens(backend, body)
        return Sampling(
            max_tokens=self.max_tokens(backend, encoded, field, asked),
            temperature=body.temperature or 0.0,
            top_p=1.0 if body.top_p is None else body.top_p,
            top_k=max(0, body.top_k or 0),
            seed=body.seed,
            stop=body.stop_strings,
            presence_penalty=body.presence_penalty or 0.0,
            frequency_penalty=body.frequency_penalty or 0.0,
            logit_bias=body.bias,
            top_logprobs=logprobs,
            grammar=grammar,
            min_tokens=body.min_tokens or 0,
            ignore_eos=bool(body.ignore_eos),
        )

    def max_tokens(self, backend: Backend, encoded: Encoded, field: str, asked: int | None) -> int:
        """The bound on generated tokens. Raises ApiError when what was asked for does not fit."""
        most = self.parameters.max_output_tokens
        if asked is not None and asked > most:
            raise errors.invalid_field(field, f"{asked} is above this server's limit of {most} tokens.")
        limits = backend.limits
        if limits.context is None or not limits.shared_context:
            room = limits.context or most
        else:
            room = limits.context - encoded.count
        if asked is not None and asked > room:
            raise errors.context_overflow(encoded.count, asked, limits.context or room, field)
        return min(most, room) if asked is None else asked

    def charge(self, owner: str | None, tokens: int) -> None:
        """Counts a run's tokens against the key that began it."""
        if self.gate is not None:
            self.gate.charge_owner(owner, tokens)

    def key_refused(self, code: str) -> None:
        """A request was turned away for its key or that key's limits."""
        self.recorder.error_answered(429 if code == "rate_limit_exceeded" else 401, code)

    def stream_failed(self, error: errors.ApiError) -> None:
        """An error was sent inside a stream, where no status can tell of it."""
        self.recorder.error_answered(error.status, error.code)

    # ------------------------------------------------------------ admission and answers

    def deadline(self, request: Request) -> float:
        """When this request must be answered, in seconds of `time.monotonic`: the server's bound, or an
        earlier one the client named in TIMEOUT_HEADER. Raises ApiError for a header that is no number."""
        seconds = self.parameters.request_timeout_seconds
        named = request.headers.get(TIMEOUT_HEADER)
        if named is not None:
            try:
                asked = float(named)
            except ValueError:
                asked = -1.0
            if not 0 < asked < float("inf"):
                raise errors.invalid_header(TIMEOUT_HEADER, "it must be a positive number of seconds")
            seconds = min(seconds, asked)
        return time.monotonic() + seconds

    @asynccontextmanager
    async def admitted(self, request: Request, tokens: int, slots: int = 1) -> AsyncIterator[float]:
        """Waits for slots and holds them for the block, which is given its deadline. Raises ApiError 429 or
        504, or ClientGoneError."""
        deadline = self.deadline(request)
        await self._acquire(request, tokens, slots, deadline)
        started = time.monotonic()
        try:
            yield deadline
        finally:
            self.admission.release(time.monotonic() - started, slots)

    @asynccontextmanager
    async def hold(self, tokens: int) -> AsyncIterator[None]:
        """A place for work that no single request stands for, a step of an agent's run. Raises
        GenerationError `overloaded`."""
        try:
            await self.admission.acquire(1, tokens)
        except QueueFullError as full:
            raise GenerationError(str(full), "overloaded", retry_after=full.retry_after) from full
        started = time.monotonic()
        try:
            yield
        finally:
            self.admission.release(time.monotonic() - started)

    async def start(
        self,
        request: Request,
        encoded: Encoded,
        sampling: Sampling,
        operation: Operation,
        *,
        choices: int = 1,
        stream: bool = False,
        grammar_field: str = "",
    ) -> Answer:
        """Waits for a place and starts generating. Raises ApiError 429 or 504, or ClientGoneError."""
        serving = self.require_ready()
        deadline = self.deadline(request)
        record = self.recorder.request(operation, sampling, encoded.count)
        tokens = choices * (encoded.count + sampling.max_tokens)
        try:
            await self._acquire(request, tokens, choices, deadline)
        except BaseException as error:
            record.failed(error.code) if isinstance(error, errors.ApiError) else record.aborted()
            raise
        record.scheduled()
        release = partial(self._release, time.monotonic(), choices)
        generations: list[Generation] = []
        try:
            for number in range(choices):
                rules = _seeded(sampling, number)
                generations.append(serving.backend.generate(encoded, rules, deadline, stream=stream))
        except BaseException:
            for generation in generations:
                generation.cancel()
            release()
            record.aborted()
            raise
        answer = Answer(record, generations, release, grammar_field)
        answer.watch(request.receive)
        if (gate := self.gate) is not None:
            principal = principal_of(request.scope)
            answer.on_tokens = lambda count: gate.charge(principal, count)
        return answer

    def _release(self, started: float, slots: int) -> None:
        self.admission.release(time.monotonic() - started, slots)

    async def _acquire(self, request: Request, tokens: int, slots: int, deadline: float) -> None:
        acquiring = self.admission.acquire(slots, tokens)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                if self.admission.would_wait(slots):
                    await until_disconnect(request.receive, acquiring)
                else:
                    await acquiring
        except QueueFullError as full:
            raise errors.overloaded(full.bound, full.retry_after) from full
        except TimeoutError as late:
            raise errors.deadline_exceeded() from late


def characters(prompt: Prompt) -> int:
    """How long a prompt's text is, tools left out: their schemas are bounded by the body."""
    if isinstance(prompt, Text):
        return len(prompt.text)
    return sum(
        len(message.content) + sum(len(call.arguments) for call in message.tool_calls)
        for message in prompt.messages
    )


async def beside_the_loop(size: int, work: Callable[[], T]) -> T:
    """The result of work on so many characters, done in a thread when it would hold up the event loop."""
    return await run_in_threadpool(work) if size > LONG_TEXT else work()


def _check_capabilities(
    backend: Backend, grammar: Grammar | None, grammar_field: str, logprobs: int | None
) -> None:
    able = backend.capabilities
    if grammar is not None and grammar.kind not in able.grammar:
        raise errors.unsupported_value(
            grammar_field, "structured output is not available with this model: leave it out."
        )
    if logprobs is not None and logprobs > able.top_logprobs:
        field = "logprobs" if able.top_logprobs < 0 else "top_logprobs"
        raise errors.unsupported_value(field, f"this model gives at most {max(0, able.top_logprobs)}.")


def _check_tokens(backend: Backend, body: Common) -> None:
    vocabulary = backend.limits.vocabulary
    if vocabulary is None:
        return
    if wrong := [token for token, _ in body.bias if token >= vocabulary]:
        raise errors.invalid_field(
            f"logit_bias.{wrong[0]}", f"the vocabulary has token ids from 0 to {vocabulary - 1}."
        )


def _seeded(sampling: Sampling, number: int) -> Sampling:
    """The rules of the n-th choice: with a seed, choices differ and are repeatable."""
    if number == 0 or sampling.seed is None:
        return sampling
    return replace(sampling, seed=sampling.seed + number)
