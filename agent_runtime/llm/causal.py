"""Decoder-only models (Llama, Qwen, GPT-2, ...) as a Decoder. Layer: llm; torch and transformers.

The one idea: each row is told its own positions, so a row padded on the left computes what it would compute
alone, and rows of any age can share a step. Long prompts are read in pieces, so that the sign of life moves
while one is read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from agent_runtime.llm import kv
from agent_runtime.llm.decoder import (
    Cohort,
    Ids,
    has_padding,
    joining_is_exact,
    left_padded,
    right_padded,
    step_mask,
    takes_ready_masks,
)
from agent_runtime.llm.scoring import end_ids, gather, in_portions

PIECE = 2048
"""Positions read at once from a prompt."""


class CausalDecoder:
    """A model of `AutoModelForCausalLM` in evaluation mode."""

    shared_context = True

    def __init__(self, model: Any, device: str) -> None:
        self._model, self._device = model, device
        self._config = model.config.get_text_config(decoder=True)
        accepted = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self.eos = end_ids(model)
        self.vocabulary = int(self._config.vocab_size)
        self.context: int | None = getattr(self._config, "max_position_embeddings", None)
        self._plain = kv.is_plain(kv.empty(self._config))
        self._ready_masks = self._plain and takes_ready_masks(model)
        self.may_join = self._plain and joining_is_exact(self)

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor, cache: Any, **extra: Any
    ) -> torch.Tensor:
        if self._takes_positions:
            extra["position_ids"] = positions
        # Without a mask and a cache transformers would look for packed sequences in the positions.
        logits: torch.Tensor = self._model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=cache is not None, **extra
        ).logits
        return logits

    @torch.inference_mode()
    def start(
        self, prompts: Sequence[Ids], generated: Sequence[Ids], on_progress: Callable[[], None]
    ) -> Cohort:
        """Reads prompts and what was generated, PIECE positions at a time."""
        rows = [[*prompt, *done] for prompt, done in zip(prompts, generated, strict=True)]
        ids, mask = left_padded(rows, self._device)
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
        cache = kv.empty(self._config)
        logits = ids
        for begin in range(0, ids.shape[1], PIECE):
            end = min(begin + PIECE, ids.shape[1])
            piece = ids[:, begin:end], mask[:, :end], positions[:, begin:end]
            logits = self._forward(*piece, cache, **self._last_only)
            on_progress()
        return Cohort(cache, mask, mask.sum(dim=1), logits[:, -1], has_padding(mask))

    @torch.inference_mode()
    def step(self, cohort: Cohort, tokens: Ids) -> None:
        """Reads one more token of each row."""
        ids = torch.tensor(tokens, device=self._device)[:, None]
        cohort.mask = torch.cat([cohort.mask, torch.ones_like(ids)], dim=1)
        mask = step_mask(cohort.mask, cohort.padded, self._ready_masks)
        logits = self._forward(ids, mask, cohort.position[:, None], cohort.cache)
        cohort.position = cohort.position + 1
        cohort.last = logits[:, -1]

    @torch.inference_mode()
    def join(self, cohort: Cohort, other: Cohort) -> None:
        """Adds the rows of `other`, the younger padded on the left."""
        kv.append(cohort.cache, [other.cache], left=True)
        cohort.mask = kv.stack([cohort.mask, other.mask], 1, left=True)
        cohort.position = torch.cat([cohort.position, other.position])
        cohort.last = torch.cat([cohort.last, other.last])
        cohort.padded = has_padding(cohort.mask)

    @torch.inference_mode()
    def keep(self, cohort: Cohort, rows: Sequence[int]) -> None:
        """Leaves these rows and drops the columns that only others needed."""
        index = torch.tensor(rows, device=self._device)
        cohort.cache.reorder_cache(index)
        cohort.mask, cohort.position, cohort.last = (
            part.index_select(0, index) for part in (cohort.mask, cohort.position, cohort.last)
        )
        first = int(cohort.mask.argmax(dim=1).min())
        if first and self._plain:
            kv.keep_columns(cohort.cache, first)
            cohort.mask = cohort.mask[:, first:]
        cohort.padded = has_padding(cohort.mask)

    @torch.inference_mode()
    def score(self, prompt: Ids, candidates: Sequence[Ids]) -> list[list[float]]:
        """One pass over the prompt, whose cache all candidates share, one teacher-forced pass over them."""
        scores: list[list[float]] = []
        read = self.start([prompt], [[]], lambda: None) if self._plain else None
        for portion in in_portions(candidates):
            if read is not None:
                logits = self._continue(read, len(prompt), portion)
            else:
                logits = self._whole(prompt, portion)
            scores += gather(logits[:, 0], logits[:, 1:], portion, self.eos)
        return scores

    def _continue(self, read: Cohort, length: int, candidates: Sequence[Ids]) -> torch.Tensor:
        """Logits before, and after each token of, every candidate: (rows, 1 + longest, vocabulary)."""
        rows = len(candidates)
        # An empty candidate still needs a column; what the model says after it is not looked at.
        ids, mask = right_padded([candidate or [0] for candidate in candidates], self._device)
        mask = torch.cat([read.mask.expand(rows, -1), mask], dim=1)
        positions = length + torch.arange(ids.shape[1], device=ids.device).expand(rows, -1)
        cache = kv.expand(read.cache, rows, self._config)
        after = self._forward(ids, mask, positions, cache)
        return torch.cat([read.last.expand(rows, -1)[:, None], after], dim=1)

    def _whole(self, prompt: Ids, candidates: Sequence[Ids]) -> torch.Tensor:
        """The same without a shared cache, for models whose state is not a plain cache."""
        ids, mask = right_padded([[*prompt, *candidate] for candidate in candidates], self._device)
        positions = torch.arange(ids.shape[1], device=ids.device).expand(len(candidates), -1)
        return self._forward(ids, mask, positions, None)[:, len(prompt) - 1 :]
