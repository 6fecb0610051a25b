"""A model behind an OpenAI-compatible API as a Backend. Layer: llm.remote.

The one idea: the remote is somebody else's process, so nothing here waits without a bound, and whatever it
does becomes an answer or one GenerationError. Answers are always streamed from the remote, also for a caller
who wants them whole: so the time to the first token is real, a stall is seen, and cancelling closes the
connection, which stops the remote's work.

Liveness: a request waiting for the remote is not an engine that hangs, and restarting this process would not
mend the remote. Every wait here ends by itself (the time-out to the first event and between events, the
deadline), so requests fail while the process stays alive: `progress` counts events and never reports a
generation as running. While the remote is down requests fail at once (see breaker), and readiness is the
business of whoever decides whether another replica would do better.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace

from agent_runtime.contract import RemoteConfig
from agent_runtime.llm.base import (
    Capabilities,
    Delta,
    Encoded,
    GenerationError,
    Limits,
    ModelInfo,
    Prompt,
    Result,
    Sampling,
    Score,
    Text,
)
from agent_runtime.llm.remote import mapping
from agent_runtime.llm.remote.answer import AnswerReader
from agent_runtime.llm.remote.check import check_config, check_remote
from agent_runtime.llm.remote.client import RemoteClient
from agent_runtime.llm.remote.errors import Errors, RemoteError
from agent_runtime.llm.remote.estimate import Calibration, corrected, observe, raw_estimate
from agent_runtime.llm.remote.generation import Running
from agent_runtime.llm.remote.mapping import Lessons
from agent_runtime.llm.remote.scoring import Memory, Scorer
from agent_runtime.observability.logging import register_secret
from agent_runtime.progress import Progress

MAX_LESSONS = 4
"""Repetitions of one request after refusals that taught something; there are two such lessons."""
REFUSED = (400, 403, 422)
"""How servers refuse a field of a request."""
USAGE_SECONDS = 5.0
"""Longest wait for usage after the answer's end; the estimate stands in."""


def answer_bytes(sampling: Sampling) -> int:
    """Most bytes a stream for this request may have: 8 KiB per token, which holds a chunk with 20
    alternatives, and 1 MiB for everything else."""
    return 2**20 + sampling.max_tokens * 2**13


class RemoteBackend:
    """Implements base.Backend. Create it in any thread (it reads the certificate bundle, some ten
    milliseconds); use it on one event loop. `served_name` is the model's name in messages to callers.

    Raises LoadError for a base URL or key that cannot work; `check` asks the remote itself.
    """

    def __init__(
        self,
        config: RemoteConfig,
        served_name: str,
        *,
        api_key: str | None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        api_key = api_key.strip() if api_key is not None else None
        check_config(config, api_key)
        if api_key is not None:
            register_secret(api_key)
        self.info = ModelInfo(architecture="remote", device="remote", dtype="remote", parameters=0)
        self.limits = Limits(context=config.context_tokens, vocabulary=None)
        self.progress = Progress(clock)
        self.calibration = Calibration()
        self._config, self._clock, self._has_key = config, clock, api_key is not None
        self._errors = Errors(served_name)
        self._client = RemoteClient(
            config,
            self._errors,
            api_key=api_key,
            clock=clock,
            rng=rng or random.Random(),  # noqa: S311 - jitter is no secret
            sleep=sleep,
        )
        self._memory = Memory(self._learnt)
        self._scorer = Scorer(self._client, self._errors, config.model, self._memory)
        self._learnt(self._memory.lessons)
        self._running: set[Running[Delta | Result] | Running[list[Score]]] = set()
        self._closed = False

    async def check(self) -> None:
        """Asks the remote for its models. Raises LoadError when it cannot be reached, denies access or does
        not have the model; a remote that lists no models passes."""
        await check_remote(self._client, self._config, self._errors, self._has_key)

    def encode(self, prompt: Prompt) -> Encoded:
        """The prompt with an estimate of its tokens (see estimate), corrected by what the remote reported
        for earlier ones."""
        return Encoded(prompt, None, corrected(self.calibration, raw_estimate(prompt)))

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids are the remote's business (`capabilities.token_ids`). Raises GenerationError."""
        raise self._errors.refused("keeps its tokenizer to itself: token ids cannot be decoded here.")

    def generate(
        self, encoded: Encoded, sampling: Sampling, deadline: float | None = None, *, stream: bool = True
    ) -> Running[Delta | Result]:
        """Starts answering; see base.Backend. The remote streams whatever `stream` says."""
        running = Running(self._answer(encoded, sampling, deadline), self._running.discard)
        self._running.add(running)
        return running

    def rows(self) -> tuple[int, int]:
        """The remote's batches are not known here."""
        return 0, 0

    async def score(
        self, encoded: Encoded, candidates: Sequence[str], deadline: float | None = None
    ) -> list[Score]:
        """The score of each candidate, from the remote's log-probabilities; what exactly they are the scores
        of is said in the docstring of scoring. Raises GenerationError."""
        running = Running(self._scores(encoded, candidates, deadline), self._running.discard)
        self._running.add(running)
        try:
            async for scores in running.events():
                return scores
        finally:
            running.cancel()
        raise GenerationError("The generation failed; see the log.")

    def close(self) -> None:
        """Fails what is running with `server_draining` at once, and everything later."""
        self._closed = True
        for running in list(self._running):
            running.fail(_draining())

    async def aclose(self) -> None:
        """`close`, and then closes every connection."""
        self.close()
        for running in list(self._running):
            await running.ended()
        await self._client.aclose()

    async def _scores(
        self, encoded: Encoded, candidates: Sequence[str], deadline: float | None
    ) -> AsyncGenerator[list[Score], None]:
        async with self._until(deadline):
            scores = await self._scorer.scores(encoded.prompt, candidates, deadline)
        self.progress.advance()
        yield scores

    async def _answer(
        self, encoded: Encoded, sampling: Sampling, deadline: float | None
    ) -> AsyncGenerator[Delta | Result, None]:
        async with self._until(deadline):
            for _ in range(MAX_LESSONS):
                lessons, begun = self._memory.lessons, False
                try:
                    async with aclosing(self._stream(encoded, sampling, lessons, deadline)) as events:
                        async for event in events:
                            begun = True
                            yield event
                except RemoteError as error:
                    if begun or not self._learns(error, encoded, sampling, lessons):
                        raise
                else:
                    return
        raise self._errors.refused("refused the request whichever way it was put.")

    async def _stream(
        self, encoded: Encoded, sampling: Sampling, lessons: Lessons, deadline: float | None
    ) -> AsyncGenerator[Delta | Result, None]:
        path, body = self._request(encoded.prompt, sampling, lessons)
        reader = AnswerReader(
            self._errors,
            chat=path == "chat/completions",
            want_logprobs=sampling.top_logprobs is not None,
            want_json=sampling.grammar is not None,
            prompt_tokens=encoded.count,
        )
        first: float | None = None
        stream = self._client.stream(path, body, deadline=deadline, max_bytes=answer_bytes(sampling))
        async with stream as events:
            async for data in events:
                self.progress.advance()
                for delta in reader.feed(data):
                    first = self._clock() if first is None else first
                    yield delta
                if reader.finished:
                    break
            # The answer is whole; usage follows, and what goes wrong with it harms nobody.
            with suppress(TimeoutError, RemoteError):
                async with asyncio.timeout(USAGE_SECONDS):
                    async for data in events:
                        for delta in reader.feed(data):
                            yield delta
            if reader.lacks_logprobs:
                self._memory.learn(mapping.without_logprobs(self._memory.lessons))
            rest, result = reader.finish()
        if reader.usage is not None:
            raw = raw_estimate(encoded.prompt)
            self.calibration = observe(self.calibration, raw, reader.usage.prompt_tokens)
        for delta in rest:
            yield delta
        yield replace(result, first_token_at=first)

    def _request(self, prompt: Prompt, sampling: Sampling, lessons: Lessons) -> tuple[str, mapping.Body]:
        if sampling.top_logprobs is not None and sampling.top_logprobs > lessons.top_logprobs:
            if lessons.top_logprobs < 0:
                raise self._errors.no_logprobs()
            raise self._errors.refused(
                f"reports at most {lessons.top_logprobs} alternatives per token: lower top_logprobs."
            )
        try:
            if isinstance(prompt, Text):
                return "completions", mapping.text_body(self._config.model, prompt, sampling, lessons)
            return "chat/completions", mapping.chat_body(self._config.model, prompt, sampling, lessons)
        except ValueError as error:
            raise self._errors.bad_grammar(f"{error}.") from None

    def _learns(self, error: RemoteError, encoded: Encoded, sampling: Sampling, used: Lessons) -> bool:
        """Remembers what a refusal teaches; whether the same request, put differently, may be answered."""
        if error.status not in REFUSED:
            return False
        now = self._memory.lessons
        lesson = mapping.lesson_of(now, error.said)
        if lesson is not None:
            self._memory.learn(lesson)
            return True
        # A server may refuse log-probabilities together with tools and give them otherwise (llama.cpp).
        tools = not isinstance(encoded.prompt, Text) and encoded.prompt.tools
        if sampling.top_logprobs is not None and not tools:
            refused = mapping.logprobs_lesson(now, error.said, sampling.top_logprobs)
            if refused is not None:
                self._memory.learn(refused)
            return False
        # Another request may have learnt meanwhile what this one was refused for.
        return (used.token_limit, used.stream_options) != (now.token_limit, now.stream_options)

    @asynccontextmanager
    async def _until(self, deadline: float | None) -> AsyncIterator[None]:
        """Ends the work at the deadline with its own error; refuses to begin once closed."""
        if self._closed:
            raise _draining()
        left = None if deadline is None else deadline - self._clock()
        if left is not None and left <= 0:
            raise self._errors.deadline()
        try:
            async with asyncio.timeout(left):
                yield
        except TimeoutError:
            raise self._errors.deadline() from None

    def _learnt(self, lessons: Lessons) -> None:
        self.capabilities = Capabilities(
            chat_tools=True,
            top_logprobs=lessons.top_logprobs,
            grammar=frozenset({"json_schema"}),
            score=lessons.top_logprobs > 0 or lessons.echo,
            token_ids=False,
        )


def _draining() -> GenerationError:
    return GenerationError("The server is shutting down.", "server_draining")
