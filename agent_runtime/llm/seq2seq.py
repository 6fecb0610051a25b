"""Encoder-decoder models (T5, BART, ...) as a Decoder. Layer: llm; torch and transformers.

The one idea: the encoder reads a prompt once and the decoder's cache grows a token at a time, as in
`generate`, but rows come and go between steps. No serving system does that for encoder-decoder models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from agent_runtime.llm import kv
from agent_runtime.llm.decoder import (
    Cohort,
    Ids,
    Source,
    has_padding,
    joining_is_exact,
    left_padded,
    right_padded,
    step_mask,
    takes_ready_masks,
)
from agent_runtime.llm.scoring import end_ids, gather, in_portions


class Seq2SeqDecoder:
    """A model of `AutoModelForSeq2SeqLM` in evaluation mode."""

    shared_context = False

    def __init__(self, model: Any, device: str) -> None:
        self._model, self._device = model, device
        self._config = model.config.get_text_config(decoder=True)
        self.eos = end_ids(model)
        self.vocabulary = int(self._config.vocab_size)
        # T5's positions are relative and unbounded; a learned table (BART) ends.
        self.context: int | None = getattr(model.config, "max_position_embeddings", None)
        self.start_token = _start_token(model)
        self._plain = kv.is_plain(self._cache().self_attention_cache)
        self._ready_masks = self._plain and takes_ready_masks(model)
        self.may_join = self._plain and joining_is_exact(self)

    def _cache(self) -> EncoderDecoderCache:
        return EncoderDecoderCache(kv.empty(self._config), kv.empty(self._config))

    @torch.inference_mode()
    def start(
        self, prompts: Sequence[Ids], generated: Sequence[Ids], on_progress: Callable[[], None]
    ) -> Cohort:
        """Reads the prompts; `generated` of different lengths need `may_join`."""
        source = self._encode(prompts)
        on_progress()
        ids, mask = left_padded([[self.start_token, *row] for row in generated], self._device)
        cache = self._cache()
        padded = has_padding(mask)
        last = self._forward(source, ids, mask if padded else None, cache)[:, -1]
        return Cohort(cache, mask, mask.sum(dim=1), last, padded, source)

    def _encode(self, prompts: Sequence[Ids]) -> Source:
        ids, mask = right_padded(prompts, self._device)
        states = self._model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        return Source(states, mask, has_padding(mask))

    def _forward(
        self, source: Source, ids: torch.Tensor, mask: torch.Tensor | None, cache: Any, ready: bool = False
    ) -> torch.Tensor:
        logits: torch.Tensor = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=source.states),
            attention_mask=step_mask(source.mask, source.padded, ready),
            decoder_input_ids=ids,
            decoder_attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
        ).logits
        return logits

    @torch.inference_mode()
    def step(self, cohort: Cohort, tokens: Ids) -> None:
        """Reads one more token of each row."""
        assert cohort.source is not None  # noqa: S101 - this family's cohorts have one
        ids = torch.tensor(tokens, device=self._device)[:, None]
        cohort.mask = torch.cat([cohort.mask, torch.ones_like(ids)], dim=1)
        cohort.position = cohort.position + 1
        ready = self._ready_masks
        mask = step_mask(cohort.mask, cohort.padded, ready)
        cohort.last = self._forward(cohort.source, ids, mask, cohort.cache, ready)[:, -1]

    @torch.inference_mode()
    def join(self, cohort: Cohort, other: Cohort) -> None:
        """Adds the rows of `other`: its decoder side padded on the left, its source on the right."""
        assert cohort.source is not None and other.source is not None  # noqa: S101
        kv.append(cohort.cache.self_attention_cache, [other.cache.self_attention_cache], left=True)
        kv.append(cohort.cache.cross_attention_cache, [other.cache.cross_attention_cache], left=False)
        states = kv.stack([cohort.source.states, other.source.states], 1, left=False)
        mask = kv.stack([cohort.source.mask, other.source.mask], 1, left=False)
        cohort.source = Source(states, mask, has_padding(mask))
        cohort.mask = kv.stack([cohort.mask, other.mask], 1, left=True)
        cohort.position = torch.cat([cohort.position, other.position])
        cohort.last = torch.cat([cohort.last, other.last])
        cohort.padded = has_padding(cohort.mask)

    @torch.inference_mode()
    def keep(self, cohort: Cohort, rows: Sequence[int]) -> None:
        """Leaves these rows and drops the columns that only others needed."""
        assert cohort.source is not None  # noqa: S101
        index = torch.tensor(rows, device=self._device)
        cohort.cache.reorder_cache(index)
        cohort.mask, cohort.position, cohort.last = (
            part.index_select(0, index) for part in (cohort.mask, cohort.position, cohort.last)
        )
        mask = cohort.source.mask.index_select(0, index)
        states = cohort.source.states.index_select(0, index)
        if self._plain:
            first = int(cohort.mask.argmax(dim=1).min())
            end = int(mask.sum(dim=1).max())
            if first:
                kv.keep_columns(cohort.cache.self_attention_cache, first)
                cohort.mask = cohort.mask[:, first:]
            if end < mask.shape[1]:
                kv.keep_columns(cohort.cache.cross_attention_cache, 0, end)
                mask, states = mask[:, :end], states[:, :end]
        cohort.padded = has_padding(cohort.mask)
        cohort.source = Source(states, mask, has_padding(mask))

    @torch.inference_mode()
    def score(self, prompt: Ids, candidates: Sequence[Ids]) -> list[list[float]]:
        """One encoder pass for the prompt, one teacher-forced decoder pass for all candidates."""
        source = self._encode([prompt])
        scores: list[list[float]] = []
        for portion in in_portions(candidates):
            ids, mask = right_padded([[self.start_token, *candidate] for candidate in portion], self._device)
            rows = len(portion)
            shared = Source(source.states.expand(rows, -1, -1), source.mask.expand(rows, -1), False)
            logits = self._forward(shared, ids, mask if has_padding(mask) else None, None)
            scores += gather(logits[:, 0], logits[:, 1:], portion, self.eos)
        return scores


def _start_token(model: Any) -> int:
    """What the decoder reads first, as `generate` finds it."""
    for config in (model.generation_config, model.config):
        for name in ("decoder_start_token_id", "bos_token_id"):
            found = getattr(config, name, None)
            if found is not None:
                return int(found[0] if isinstance(found, list) else found)
    raise ValueError("the model names neither decoder_start_token_id nor bos_token_id")
