"""What a model family must be able to do for the batcher. Layer: llm; torch.

The one idea: a cohort is some rows in one cache, all at their newest position; it can be started, stepped,
joined with another and thinned, and nothing else. Encoder-decoder and decoder-only models differ below this
line and nowhere above it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

Ids = Sequence[int]


@dataclass(slots=True)
class Source:
    """What an encoder made of the prompts. Shapes: states (rows, source, width), mask (rows, source)."""

    states: torch.Tensor
    mask: torch.Tensor
    padded: bool


@dataclass(slots=True)
class Cohort:
    """Rows decoded together. Shapes: mask (rows, positions), 1 where the cache holds a real token;
    position (rows,), the position of each row's next token; `last` (rows, vocabulary), the newest logits;
    `padded`, whether the mask holds a 0: reading it back from a GPU at every step would stop the GPU."""

    cache: Any
    mask: torch.Tensor
    position: torch.Tensor
    last: torch.Tensor
    padded: bool
    source: Source | None = None

    @property
    def rows(self) -> int:
        """How many rows."""
        return int(self.mask.shape[0])

    @property
    def positions(self) -> int:
        """Cached positions of each row, source included: what a row costs."""
        return int(self.mask.shape[1]) + (int(self.source.mask.shape[1]) if self.source else 0)


class Decoder(Protocol):
    """One loaded model. Called from one thread."""

    eos: frozenset[int]
    context: int | None
    shared_context: bool
    vocabulary: int
    may_join: bool
    """Whether cohorts of different age may be put together without changing any answer."""

    def start(
        self, prompts: Sequence[Ids], generated: Sequence[Ids], on_progress: Callable[[], None]
    ) -> Cohort:
        """A cohort that has read the prompts and what was generated so far (nothing, or before a failure)."""
        ...

    def step(self, cohort: Cohort, tokens: Ids) -> None:
        """Reads one more token of each row."""
        ...

    def join(self, cohort: Cohort, other: Cohort) -> None:
        """Adds the rows of `other` below those of `cohort`; `other` is used up. Needs `may_join`."""
        ...

    def keep(self, cohort: Cohort, rows: Sequence[int]) -> None:
        """Leaves only these rows, in this order."""
        ...

    def score(self, prompt: Ids, candidates: Sequence[Ids]) -> list[list[float]]:
        """Log-probability of each token of each candidate as the whole answer, and of its end."""
        ...


def left_padded(rows: Sequence[Ids], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, both (rows, longest), the rows ending at the right edge."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def right_padded(rows: Sequence[Ids], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, both (rows, longest), the rows beginning at the left edge."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *([0] * (width - len(row)))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return ids, mask


def has_padding(mask: torch.Tensor) -> bool:
    """Whether any position is padded. Where none is, the model is spared building a mask."""
    return not bool(mask.all())


def step_mask(mask: torch.Tensor, padded: bool, ready: bool) -> torch.Tensor | None:
    """What the model is given for one step; None when nothing is padded. `ready`: as scaled dot product
    attention takes it, (rows, 1, 1, positions), which transformers would otherwise make of the plain mask at
    every step, for a tenth of a small model's time."""
    if not padded:
        return None
    return mask[:, None, None, :].to(torch.bool) if ready else mask


def takes_ready_masks(model: Any) -> bool:
    """Whether this model's attention is the one that ready masks are for."""
    return getattr(model.config, "_attn_implementation", None) == "sdpa"


@torch.inference_mode()
def joining_is_exact(decoder: Decoder) -> bool:
    """Measures whether rows of different age may share a cohort of this model.

    Two rows run apart, then together; their logits must agree. Asking the numbers is safer than a list of
    architectures: a model with absolute positions (BART) differs in the first decimal, T5 in the sixth.
    """
    first = max(decoder.eos, default=0) + 1
    span = max(1, min(decoder.vocabulary - first, 97))
    young, old = ([first + (step * number) % span for number in range(1, 7)] for step in (3, 7))
    apart = [decoder.start([ids], [[]], _nothing) for ids in (old, young)]
    together = decoder.start([old], [[]], _nothing)
    path = [old[number % len(old)] for number in range(4)]
    for token in path[:3]:
        decoder.step(apart[0], [token])
        decoder.step(together, [token])
    decoder.join(together, decoder.start([young], [[]], _nothing))
    for cohort, tokens in ((apart[0], path[3:]), (apart[1], path[3:]), (together, path[3:] * 2)):
        decoder.step(cohort, tokens)
    expected = torch.cat([cohort.last for cohort in apart]).float()
    return agree(together.last, expected)


def agree(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether logits are the same but for rounding, which differs with the shape of a batch.

    In single precision every one must be within a thousandth of the row's spread. In half precision it is
    the root of the mean square, within a tenth: rounding alone makes that 0.015 in a bfloat16 Llama of 32
    layers, wrong positions 0.7, while the worst of 128,000 tokens is 5 times the mean and tells nothing.
    """
    spread = expected.std(dim=-1, keepdim=True).clamp_min(1e-6)
    apart = (found.float() - expected) / spread
    if found.dtype in (torch.float32, torch.float64):
        return bool(apart.abs().max() < 1e-3)
    return bool(apart.square().mean(dim=-1).sqrt().max() < 0.1)


def _nothing() -> None:
    pass
