"""What a model's own generation configuration asks of every answer. Layer: llm; torch and transformers.

The one idea: `generate` honours generation_config.json, so a server that ignored it would give other answers
than the model's page shows. The rules below are honoured per row by transformers' own processors; what
cannot be (beam search) is said in the log once, when the model is loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from transformers import (
    ForcedBOSTokenLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

log = logging.getLogger("agent_runtime.engine")


class ModelDefaults:
    """The rules of one model. Sampling settings (temperature and the like) are the request's alone."""

    def __init__(self, model: Any, is_seq2seq: bool) -> None:
        self._config = model.generation_config
        start = self._config.decoder_start_token_id if is_seq2seq else None
        self._start: tuple[int, ...] | None = None
        if is_seq2seq:
            self._start = (start[0] if isinstance(start, list) else start,) if start is not None else (0,)
        beams = getattr(self._config, "num_beams", None) or 1
        if beams > 1:
            log.warning(
                "the model's generation configuration asks for beam search; answers are decoded greedily or "
                "sampled", extra={"fields": {"num_beams": beams}},
            )  # fmt: skip

    def prefix(self, prompt: Sequence[int]) -> Sequence[int]:
        """What stands before the answer in the sequence the rules look at."""
        return prompt if self._start is None else self._start

    def processors(self) -> list[Any]:
        """Fresh processors for one row; most models need none."""
        config, found = self._config, []
        if (penalty := getattr(config, "repetition_penalty", None)) and penalty != 1.0:
            found.append(RepetitionPenaltyLogitsProcessor(penalty))
        if size := getattr(config, "no_repeat_ngram_size", None):
            found.append(NoRepeatNGramLogitsProcessor(size))
        if words := getattr(config, "bad_words_ids", None):
            found.append(NoBadWordsLogitsProcessor(words, config.eos_token_id))
        if tokens := getattr(config, "suppress_tokens", None):
            found.append(SuppressTokensLogitsProcessor(tokens))
        if tokens := getattr(config, "begin_suppress_tokens", None):
            found.append(SuppressTokensAtBeginLogitsProcessor(tokens, 1 if self._start else 0))
        if self._start is not None and (token := getattr(config, "forced_bos_token_id", None)) is not None:
            found.append(ForcedBOSTokenLogitsProcessor(token))
        return found
