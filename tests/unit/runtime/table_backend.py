"""A backend whose probabilities are written down in the test. Layer: tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

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

Table = Mapping[str, Mapping[str, Sequence[float]]]
"""Token log-probabilities by prompt (as rendered plainly) and candidate."""


class TableGeneration:
    """One scripted answer: its pieces, then its Result; or, without a Result, the error or nothing at all."""

    def __init__(self, answer: Result | GenerationError | None) -> None:
        self._answer = answer
        self.cancelled = False

    async def events(self) -> AsyncIterator[Delta | Result]:
        """The answer's text as one piece, then the Result; None waits until it is cancelled from outside."""
        if self._answer is None:
            await asyncio.Event().wait()
        if isinstance(self._answer, GenerationError):
            raise self._answer
        if self._answer is not None:
            yield Delta(self._answer.text)
            yield self._answer

    def cancel(self) -> None:
        """Notes it."""
        self.cancelled = True

    async def ended(self) -> None:
        """At once."""


class TableBackend:
    """Scores from a table; generates the given answers in turn. One token per word, plus the end."""

    def __init__(
        self,
        table: Table,
        answers: Sequence[Result | GenerationError | None] = (),
        limits: Limits = Limits(context=None, vocabulary=None),  # noqa: B008 - frozen
        can_score: bool = True,
    ) -> None:
        self._table, self._answers = table, answers
        self.info = ModelInfo("Table", "cpu", "float64", 0)
        self.limits, self.progress = limits, Progress()
        self.capabilities = Capabilities(score=can_score)
        self.samplings: list[Sampling] = []
        self.generations: list[TableGeneration] = []
        self.deadlines: list[float | None] = []

    def encode(self, prompt: Prompt) -> Encoded:
        """Words as ids; like SentencePiece it does not see how many spaces lie between them."""
        text = prompt.text if isinstance(prompt, Text) else render_plain(prompt.messages)
        ids = (*(int.from_bytes(word.encode()) for word in text.split()), 1)
        return Encoded(prompt, ids, len(ids))

    def decode(self, ids: Sequence[int]) -> str:
        """The words again."""
        return " ".join(number.to_bytes((number.bit_length() + 7) // 8).decode() for number in ids[:-1])

    def generate(
        self, encoded: Encoded, sampling: Sampling, deadline: float | None = None, *, stream: bool = True
    ) -> TableGeneration:
        """The next scripted answer."""
        generation = TableGeneration(self._answers[len(self.generations) % len(self._answers)])
        self.samplings.append(sampling)
        self.generations.append(generation)
        self.deadlines.append(deadline)
        return generation

    async def score(
        self, encoded: Encoded, candidates: Sequence[str], deadline: float | None = None
    ) -> list[Score]:
        """The table's rows."""
        self.deadlines.append(deadline)
        assert not isinstance(encoded.prompt, Text)
        row = self._table[render_plain(encoded.prompt.messages)]
        return [Score(candidate, tuple(row[candidate])) for candidate in candidates]

    def close(self) -> None:
        """Nothing to do."""
