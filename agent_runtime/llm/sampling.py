"""Chooses one row's next token with its own random source. Layer: llm; imports torch and transformers.

The one idea: `generate(do_sample=True)` draws from the process-wide generator, so one request's seed would
change another's answer. Here the choice is made in a logits processor that leaves exactly one token
possible; `generate` then runs greedily and the request's generator is nobody else's.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

from agent_runtime.llm.base import Sampling


class RowSampler(LogitsProcessor):
    """Temperature, then nucleus, then one draw. Shapes: scores (1, vocabulary), float."""

    def __init__(self, sampling: Sampling) -> None:
        self._temperature = TemperatureLogitsWarper(sampling.temperature)
        self._top_p = TopPLogitsWarper(sampling.top_p) if sampling.top_p < 1 else None
        self._generator = torch.Generator(device="cpu")
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """The scores with every token but the drawn one made impossible."""
        shaped = self._temperature(input_ids, scores.float())
        if self._top_p is not None:
            shaped = self._top_p(input_ids, shaped)
        # Drawn on the CPU: the same seed then gives the same token whatever the device's generator is.
        drawn = torch.multinomial(torch.softmax(shaped, dim=-1).cpu(), 1, generator=self._generator)
        drawn = drawn.to(scores.device)
        return torch.full_like(scores, float("-inf")).scatter(-1, drawn, 0.0)
