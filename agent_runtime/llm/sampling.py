"""Chooses the next token of every row of a batch, each by its own rules. Layer: llm; torch.

The one idea: rows share the matrix, never the dice. A row draws one uniform number per step from its own
generator and looks it up in its own cumulative distribution, so its seed gives the same answer alone and
in any company. `generate(do_sample=True)` draws from the process-wide generator instead.

The order is that of transformers and vLLM: an early end forbidden, bias, penalties, grammar, then
temperature, top-k, top-p. Log-probabilities that are reported are the model's own, before all of it.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from agent_runtime.llm.base import GenerationError, Sampling

LEAST_TOP_P = 1e-9
"""A smaller one could be zero in single precision, and not even the likeliest token would stay."""


class TokenMask(Protocol):
    """What a grammar allows next."""

    def allowed(self) -> torch.Tensor:
        """Bool (vocabulary,): the tokens that may follow, on the CPU."""
        ...

    def accept(self, token: int) -> None:
        """The token was chosen."""
        ...


class RowSampler:
    """One row's rules and dice. `processors` are logits processors of transformers that the model's own
    generation configuration asks for; they see (1, length) ids, beginning with `prefix` (what stands in the
    decoder before the answer), and (1, vocabulary) scores."""

    def __init__(
        self,
        sampling: Sampling,
        mask: TokenMask | None = None,
        processors: Sequence[Any] = (),
        prefix: Sequence[int] = (),
    ) -> None:
        self.sampling, self._mask = sampling, mask
        self._processors, self._prefix = tuple(processors), tuple(prefix)
        self._random: random.Random | None = None
        self._counts: Counter[int] = Counter()
        self._penalised = sampling.presence_penalty != 0 or sampling.frequency_penalty != 0

    @property
    def plain(self) -> bool:
        """Whether the row needs nothing but the likeliest token."""
        return self.sampling.greedy and not self.shapes

    @property
    def shapes(self) -> bool:
        """Whether the scores are changed before temperature."""
        sampling = self.sampling
        return bool(self._penalised or sampling.logit_bias or self._mask is not None or self._processors)

    def must_go_on(self, generated: int) -> bool:
        """Whether the answer may not end yet, after so many tokens."""
        return self.sampling.ignore_eos or generated < self.sampling.min_tokens

    def uniform(self) -> float:
        """The row's next number in [0, 1)."""
        if self._random is None:  # seeding takes a tenth of a millisecond, and most rows never draw
            self._random = random.Random(self.sampling.seed)  # noqa: S311 - dice, not secrets
        return self._random.random()

    def accept(self, token: int) -> None:
        """The token was chosen."""
        if self._penalised:
            self._counts[token] += 1
        if self._mask is not None:
            self._mask.accept(token)

    def shape(self, scores: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
        """The row's scores (vocabulary,) after bias, penalties and prohibitions; `ids` were generated."""
        scores = scores.clone()
        sampling, device = self.sampling, scores.device
        if sampling.logit_bias:
            tokens = torch.tensor([token for token, _ in sampling.logit_bias], device=device)
            scores[tokens] += torch.tensor([bias for _, bias in sampling.logit_bias], device=device)
        if self._penalised and self._counts:
            # OpenAI's rule: score - count * frequency_penalty - (count > 0) * presence_penalty
            tokens = torch.tensor(list(self._counts), device=device)
            counts = torch.tensor(list(self._counts.values()), device=device, dtype=scores.dtype)
            scores[tokens] -= counts * sampling.frequency_penalty + sampling.presence_penalty
        if self._processors:
            history = torch.tensor([[*self._prefix, *ids]], dtype=torch.long, device=device)
            for processor in self._processors:
                scores = processor(history, scores[None])[0]
        if self._mask is not None:
            allowed = self._mask.allowed().to(device)
            scores[: len(allowed)].masked_fill_(~allowed, -math.inf)
            scores[len(allowed) :] = -math.inf
        return scores


@dataclass(frozen=True, slots=True)
class Choice:
    """A row's next token. `logprob` and `top` (token, log-probability) are set when the row asked."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def choose(
    logits: torch.Tensor, rows: Sequence[RowSampler], ids: Sequence[Sequence[int]], eos: frozenset[int]
) -> list[Choice | GenerationError]:
    """The next token of each row, or why it has none. Shapes: logits (rows, vocabulary), any float; `ids[i]`
    were generated."""
    raw = logits.float()
    scores = _without_end(raw, rows, ids, eos)
    best, greedy = scores.max(dim=-1)
    tokens, fine = torch.stack([greedy, torch.isfinite(best).long()]).tolist()  # one wait for the device
    failed: dict[int, GenerationError] = {
        number: GenerationError("the model's output is not a number for this prompt")
        for number, finite in enumerate(fine)
        if not finite
    }
    shaped: dict[int, torch.Tensor] = {}
    for number, row in enumerate(rows):
        if row.shapes and number not in failed:
            try:
                shaped[number] = row.shape(scores[number], ids[number])
            except GenerationError as error:
                failed[number] = error
    drawn = [n for n, row in enumerate(rows) if not row.sampling.greedy and n not in failed]
    for number, changed in shaped.items():
        if rows[number].sampling.greedy:
            tokens[number] = int(changed.argmax())
    if drawn:
        table = torch.stack([shaped.get(number, scores[number]) for number in drawn])
        picks = draw(table, [rows[number].sampling for number in drawn], [rows[n].uniform() for n in drawn])
        for number, token in zip(drawn, picks, strict=True):
            tokens[number] = token
    asked = [n for n, row in enumerate(rows) if row.sampling.top_logprobs is not None and n not in failed]
    reported = _logprobs(raw, rows, tokens, asked)
    return [
        failed.get(number) or reported.get(number) or Choice(token) for number, token in enumerate(tokens)
    ]


def _without_end(
    scores: torch.Tensor, rows: Sequence[RowSampler], ids: Sequence[Sequence[int]], eos: frozenset[int]
) -> torch.Tensor:
    going_on = [n for n, row in enumerate(rows) if eos and row.must_go_on(len(ids[n]))]
    if not going_on:
        return scores
    scores = scores.clone()
    lines = torch.tensor(going_on, device=scores.device)[:, None]
    scores[lines, torch.tensor(sorted(eos), device=scores.device)] = -math.inf
    return scores


def draw(scores: torch.Tensor, samplings: Sequence[Sampling], uniforms: Sequence[float]) -> list[int]:
    """One token per row by inverse transform sampling: the first whose cumulative probability, likeliest
    token first, exceeds the row's uniform number. Shapes: scores (rows, vocabulary)."""
    device = scores.device
    temperature = torch.tensor([sampling.temperature for sampling in samplings], device=device)
    ordered, order = (scores / temperature[:, None]).sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    rank = torch.arange(scores.shape[-1], device=device)
    keep = torch.ones_like(probabilities, dtype=torch.bool)
    if any(sampling.top_k for sampling in samplings):
        most = torch.tensor([sampling.top_k or scores.shape[-1] for sampling in samplings], device=device)
        keep &= rank < most[:, None]
    if any(sampling.top_p < 1 for sampling in samplings):
        # A token stays while the mass before it is below top_p, so the likeliest one always does.
        bound = torch.tensor([max(sampling.top_p, LEAST_TOP_P) for sampling in samplings], device=device)
        mass = probabilities.masked_fill(~keep, 0.0)
        mass = mass / mass.sum(dim=-1, keepdim=True)
        keep &= (mass.cumsum(dim=-1) - mass) < bound[:, None]
    cumulative = probabilities.masked_fill(~keep, 0.0).double().cumsum(dim=-1)
    target = torch.tensor(uniforms, dtype=torch.float64, device=device) * cumulative[:, -1]
    column = torch.searchsorted(cumulative, target[:, None], right=True).squeeze(-1)
    last = keep.sum(dim=-1) - 1  # rounding must not choose a token that was cut off
    return [int(token) for token in order.gather(1, torch.minimum(column, last)[:, None]).squeeze(1).tolist()]


def _logprobs(
    scores: torch.Tensor, rows: Sequence[RowSampler], tokens: Sequence[int], asked: Sequence[int]
) -> dict[int, Choice]:
    if not asked:
        return {}
    table = scores[list(asked)].log_softmax(dim=-1)
    chosen = table.gather(1, torch.tensor([tokens[n] for n in asked], device=table.device)[:, None])
    most = max(rows[number].sampling.top_logprobs or 0 for number in asked)
    values, indices = (part.tolist() for part in table.topk(min(most, table.shape[-1]), dim=-1))
    found = {}
    for line, number in enumerate(asked):
        count = rows[number].sampling.top_logprobs or 0
        top = tuple(zip(indices[line][:count], values[line][:count], strict=True))
        found[number] = Choice(tokens[number], float(chosen[line, 0]), top)
    return found
