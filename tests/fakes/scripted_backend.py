"""A model whose answers are written down beforehand. Layer: tests.

The one idea: everything around the model is real (streaming, budgets, deadlines, cancellation), and its
tokens are words, so a test can count them by reading. It also records every prompt as the text a model
would have read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

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
from agent_runtime.llm.chat import render_plain
from agent_runtime.progress import Progress

Answer = str | GenerationError
Script = Sequence[Answer] | Callable[[str], Answer]
Scorer = Callable[[str, str], float]
"""log P(candidate | prompt), of the whole candidate."""


def prompt_text(prompt: Prompt) -> str:
    """What the model reads."""
    return prompt.text if isinstance(prompt, Text) else render_plain(prompt.messages, prompt.tools)


def words(text: str) -> list[str]:
    """The tokens of a text: words, each with the blank before it."""
    parts = text.split(" ")
    return [parts[0], *(f" {part}" for part in parts[1:])] if text else []


class ScriptedGeneration:
    """One answer, a word at a time."""

    def __init__(self, backend: ScriptedBackend, encoded: Encoded, sampling: Sampling) -> None:
        self._backend, self._encoded, self._sampling = backend, encoded, sampling
        self._cancelled = asyncio.Event()
        self._over = asyncio.Event()

    async def events(self) -> AsyncIterator[Delta | Result]:
        """The words, then the result. The end-of-sequence token counts."""
        try:
            await self._gate()
            answer = self._backend.next_answer(prompt_text(self._encoded.prompt))
            if isinstance(answer, GenerationError):
                raise answer
            tokens = words(answer)
            kept = tokens[: self._sampling.max_tokens]
            for token in kept:
                await asyncio.sleep(0)
                if self._cancelled.is_set():
                    raise GenerationError("cancelled", "cancelled")
                yield Delta(token)
            complete = len(tokens) < self._sampling.max_tokens
            generated = len(kept) + complete
            yield Result("".join(kept), "stop" if complete else "length", self._encoded.count, generated)
        finally:
            self._over.set()

    async def _gate(self) -> None:
        if self._backend.hold is not None:
            self._backend.held.set()
            await self._backend.hold.wait()

    def cancel(self) -> None:
        """Stops at the next word."""
        self._cancelled.set()
        self._over.set()

    async def ended(self) -> None:
        """Returns once it is over."""
        await self._over.wait()


@dataclass
class ScriptedBackend:
    """A Backend. `script` is the answers in order, or a function of the prompt's text; `scorer` gives
    log-probabilities. While `hold` is set to an event, answers wait for it and `held` tells that one
    does."""

    script: Script = ()
    scorer: Scorer = lambda prompt, candidate: -1.0
    capabilities: Capabilities = field(default_factory=lambda: Capabilities(chat_tools=True))
    limits: Limits = field(default_factory=lambda: Limits(None, None))
    info: ModelInfo = field(default_factory=lambda: ModelInfo("Scripted", "cpu", "float32", 0))
    progress: Progress = field(default_factory=Progress)
    prompts: list[str] = field(default_factory=list)
    samplings: list[Sampling] = field(default_factory=list)
    hold: asyncio.Event | None = None
    held: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False

    def next_answer(self, prompt: str) -> Answer:
        """The answer to the n-th prompt."""
        self.prompts.append(prompt)
        if callable(self.script):
            return self.script(prompt)
        return self.script[len(self.prompts) - 1]

    def encode(self, prompt: Prompt) -> Encoded:
        """Words are tokens."""
        return Encoded(prompt, None, max(1, len(prompt_text(prompt).split())))

    def decode(self, ids: Sequence[int]) -> str:
        """There are no ids."""
        raise NotImplementedError

    def generate(
        self, encoded: Encoded, sampling: Sampling, deadline: float | None = None, *, stream: bool = True
    ) -> ScriptedGeneration:
        """The next answer of the script."""
        self.samplings.append(sampling)
        return ScriptedGeneration(self, encoded, sampling)

    async def score(
        self, encoded: Encoded, candidates: Sequence[str], deadline: float | None = None
    ) -> list[Score]:
        """The scorer's log-probabilities."""
        await asyncio.sleep(0)
        text = prompt_text(encoded.prompt)
        return [Score(candidate, (self.scorer(text, candidate),)) for candidate in candidates]

    def rows(self) -> tuple[int, int]:
        """Unknown."""
        return 0, 0

    def close(self) -> None:
        """Remembers it."""
        self.closed = True
