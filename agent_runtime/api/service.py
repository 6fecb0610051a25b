"""From a validated request to tokens: the path both OpenAI endpoints share. Layer: api.

The one idea: an answer is a sequence of events (pieces of text, then a result); a streamed response sends
them as they come, a plain one collects them, and everything between (readiness, limits, admission, metrics,
disconnects) happens once, here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive

from agent_runtime.admission import Admission, QueueFullError
from agent_runtime.api import errors
from agent_runtime.contract import RuntimeConfig
from agent_runtime.llm.base import Engine, GenerationError, Result, Sampling
from agent_runtime.llm.pool import EnginePool, Generation
from agent_runtime.observability.metrics import Metrics
from agent_runtime.state import Activity, State, Status

log = logging.getLogger("agent_runtime.api")


class ClientGoneError(Exception):
    """The client closed the connection before it had its answer."""


@dataclass(slots=True)
class Serving:
    """What exists once the model is loaded."""

    engine: Engine
    pool: EnginePool
    created: int


class Service:
    """Everything an endpoint needs; lives on the event loop."""

    def __init__(self, config: RuntimeConfig, metrics: Metrics, status: Callable[[], Status]) -> None:
        self.config = config
        self.metrics = metrics
        self.status = status
        self.serving: Serving | None = None
        parameters = config.parameters
        self.admission = Admission(parameters.max_concurrency, parameters.max_queued_requests)

    def activity(self) -> Activity:
        """What the engine is doing; idle while there is none."""
        return Activity(0, 0.0) if self.serving is None else self.serving.engine.progress.activity()

    def require_ready(self) -> Serving:
        """The loaded model. Raises ApiError 503 when new requests are not welcome."""
        status = self.status()
        if status.state is State.READY and self.serving is not None:
            return self.serving
        if status.state is State.DRAINING:
            raise errors.unavailable("server_draining", "The server is shutting down; retry.", 1)
        if status.state is State.FAILED:
            raise errors.unavailable("server_failed", f"The server failed: {status.reason}", 5)
        raise errors.unavailable("model_loading", f"The model is not loaded yet: {status.reason}", 5)

    def sampling(
        self,
        limit: tuple[str, int | None],
        temperature: float | None,
        top_p: float | None,
        seed: int | None,
        stop: tuple[str, ...],
    ) -> Sampling:
        """How to generate. Without a temperature the likeliest tokens are taken. Raises ApiError."""
        most = self.config.parameters.max_output_tokens
        name, asked = limit
        if asked is not None and asked > most:
            raise errors.invalid_field(name, f"{asked} is above this server's limit of {most} tokens.")
        return Sampling(
            max_tokens=most if asked is None else asked,
            temperature=0.0 if temperature is None else temperature,
            top_p=1.0 if top_p is None else top_p,
            seed=seed,
            stop=stop,
        )

    def check_model(self, model: str | None) -> None:
        """Raises ApiError 404 when another model than the served one is named."""
        served = self.config.model.served_name
        if model is not None and model != served:
            raise errors.model_not_found(model, served)

    def check_length(self, prompt: Sequence[int], param: str) -> None:
        """Raises ApiError when the prompt has more tokens than allowed."""
        limit = self.config.parameters.max_input_tokens
        if len(prompt) > limit:
            raise errors.context_length(len(prompt), limit, param)

    async def start(
        self, receive: Receive, serving: Serving, prompt: Sequence[int], sampling: Sampling
    ) -> Answer:
        """Waits for a slot and starts generating. Raises ApiError 429, or ClientGoneError."""
        arrived = time.monotonic()
        try:
            await until_disconnect(receive, self.admission.acquire())
        except QueueFullError as full:
            raise errors.overloaded(full.retry_after) from full
        started = time.monotonic()
        generation = serving.pool.submit(prompt, sampling)
        # The slot is free when the engine's thread is, which is later than the client's leaving.
        generation.ended.add_done_callback(lambda _: self.admission.release(time.monotonic() - started))
        return Answer(self.metrics, generation, arrived)


class Answer:
    """A generation in progress."""

    def __init__(self, metrics: Metrics, generation: Generation, arrived: float) -> None:
        self._metrics, self._generation, self._arrived = metrics, generation, arrived

    async def events(self) -> AsyncIterator[str | Result]:
        """Pieces of text, then the Result. Raises ApiError when the model fails or is shut down."""
        first = True
        try:
            async for event in self._generation.events():
                if first:
                    self._metrics.first_token.observe(time.monotonic() - self._arrived)
                    first = False
                if isinstance(event, Result):
                    self._account(event)
                yield event
        except GenerationError as error:
            raise errors.generation_failed() from error

    def _account(self, result: Result) -> None:
        if result.finish_reason == "cancelled":
            raise errors.unavailable("server_draining", "The server shut down mid-answer; retry.", 1)
        seconds = time.monotonic() - self._arrived
        self._metrics.finished(result.finish_reason, result.prompt_tokens, result.completion_tokens, seconds)

    async def collect(self, receive: Receive) -> Result:
        """The finished Result. Raises ApiError, or ClientGoneError after cancelling the generation."""
        try:
            result: Result = await until_disconnect(receive, self._last_event())
            return result
        finally:
            self.cancel()

    async def _last_event(self) -> Result:
        async for event in self.events():
            if isinstance(event, Result):
                return event
        raise errors.generation_failed()

    def refused(self, code: str) -> None:
        """Count an error that was sent inside a stream, after its status."""
        self._metrics.refused(code)

    def cancel(self) -> None:
        """Nobody reads on; the engine stops at its next decode step. Harmless when it is done."""
        self._generation.cancel()


async def until_disconnect(receive: Receive, work: Any) -> Any:
    """The result of a coroutine, which is cancelled when the client goes away first (ClientGoneError)."""
    job, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({job, gone}, return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            return job.result()
        raise ClientGoneError
    finally:
        for task in (job, gone):
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
