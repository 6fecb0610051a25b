"""One answer inside the engine: its tokens, its text, and why it ended. Layer: llm; no torch of its own.

The one idea: everything about an answer but the key-value cache is here, so when a step fails the cache
can be thrown away and made again from `prompt` and `ids`, and nobody who reads the answer notices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from agent_runtime.llm.base import Delta, FinishReason, GenerationError, Result, Sampling, TokenLogprob
from agent_runtime.llm.sampling import Choice, RowSampler
from agent_runtime.llm.text import StopScanner
from agent_runtime.llm.tokens import TokenCodec

Event = Delta | Result | GenerationError

PACE_SECONDS = 0.02
"""A reader gets a piece at most so often: a chunk costs as much as a token of a small model, and nobody reads
fifty of them a second."""


class Row:
    """An answer being made. `cancelled` may be set from any thread; the rest is the engine thread's."""

    def __init__(
        self,
        prompt: Sequence[int],
        sampler: RowSampler,
        codec: TokenCodec,
        emit: Callable[[Row, Event], None],
        *,
        arrived: float,
        deadline: float | None,
        stream: bool,
    ) -> None:
        self.prompt = list(prompt)
        self.ids: list[int] = []
        self.sampler = sampler
        self.arrived, self.deadline = arrived, deadline
        self.cancelled = False
        self.done = False
        self.starts = 0
        """How often it was started: once, and again after each failure it survived."""
        self.made_here: list[int] = []
        """Tokens of the current start, for an engine that reports them all each time."""
        self.first_token_at: float | None = None
        self._codec, self._emit, self._stream = codec, emit, stream
        self._detokenizer = codec.detokenizer()
        self._scanner = StopScanner(sampler.sampling.stop)
        self._patient = not (stream or sampler.sampling.stop or sampler.sampling.top_logprobs is not None)
        """Nobody looks at the text before it is whole, so its tokens are decoded at the end."""
        self._text: list[str] = []
        self._held: list[str] = []
        self._spoken_at, self._spoken = -math.inf, 0
        self._logprobs: list[TokenLogprob] = []

    @property
    def sampling(self) -> Sampling:
        """The request's rules."""
        return self.sampler.sampling

    @property
    def tokens(self) -> int:
        """Positions to read when it starts: the prompt and what it has already made."""
        return len(self.prompt) + len(self.ids)

    @property
    def most_tokens(self) -> int:
        """Positions it may come to."""
        return len(self.prompt) + self.sampling.max_tokens

    def accept(self, choice: Choice, eos: frozenset[int], now: float) -> None:
        """Takes the next token, made `now`; afterwards `done` tells whether it was the last."""
        token = choice.token
        if self.first_token_at is None:
            self.first_token_at = now
        self.ids.append(token)
        self.sampler.accept(token)
        ended = token in eos and not self.sampling.ignore_eos
        if not (ended or self._patient):
            if choice.logprob is not None:
                self._logprobs.append(self._described(choice))
            self._say(self._scanner.feed(self._detokenizer.push(token)))
            if self._stream and self._held and now - self._spoken_at >= PACE_SECONDS:
                self._spoken_at = now
                self._speak()
        if ended or self._scanner.stopped:
            self._finish("stop")
        elif len(self.ids) >= self.sampling.max_tokens:
            self._finish("length")

    def fail(self, error: GenerationError) -> None:
        """Ends without an answer. Harmless when it has ended."""
        if not self.done:
            self.done = True
            self._emit(self, error)

    def _say(self, piece: str) -> None:
        if piece:
            self._text.append(piece)
            self._held.append(piece)

    def _speak(self) -> None:
        """Sends what is held; log-probabilities travel with the text they led to."""
        held, self._held = "".join(self._held), []
        tokens, self._spoken = len(self.ids) - self._spoken, len(self.ids)
        self._emit(self, Delta(held, self._taken(), tokens))

    def _taken(self) -> tuple[TokenLogprob, ...]:
        taken, self._logprobs = tuple(self._logprobs), []
        return taken

    def _finish(self, reason: FinishReason) -> None:
        if self._patient:
            # Without stop strings only the end token stops an answer.
            self._say(self._codec.text(self.ids[:-1] if reason == "stop" else self.ids))
        elif not self._scanner.stopped:
            self._say(self._scanner.feed(self._detokenizer.finish()))
            if not self._scanner.stopped:
                self._say(self._scanner.finish())
        self.done = True
        if self._held or self._logprobs:
            self._speak()
        finish: FinishReason = "stop" if self._scanner.stopped else reason
        result = Result("".join(self._text), finish, len(self.prompt), len(self.ids), self.first_token_at)
        self._emit(self, result)

    def _described(self, choice: Choice) -> TokenLogprob:
        text, raw = self._codec.token_text(choice.token)
        top = tuple((*self._codec.token_text(token), logprob) for token, logprob in choice.top)
        return TokenLogprob(text, raw, float(choice.logprob or 0.0), top)
