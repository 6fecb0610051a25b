"""Encoder-decoder models (T5, BART, ...) behind the engine protocol. Layer: llm; torch and transformers.

The one idea: everything a server needs from `generate` (text as it grows, stop strings, cancellation, a sign
of life) is seen from one place, a stopping criterion called after each decode step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from agent_runtime.llm.base import FinishReason, GenerationError, ModelInfo, Result, Sampling
from agent_runtime.llm.chat import Message, render_plain
from agent_runtime.llm.load import LoadedModel
from agent_runtime.llm.sampling import RowSampler
from agent_runtime.llm.text import StopScanner
from agent_runtime.progress import Progress


class _Row(StoppingCriteria):
    """Watches one generation step by step."""

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        scanner: StopScanner,
        emit: Callable[[str], None],
        cancelled: Callable[[], bool],
        on_step: Callable[[], None],
    ) -> None:
        self.ids: list[int] = []
        self.was_cancelled = False
        self._decode, self._scanner, self._emit = decode, scanner, emit
        self._cancelled, self._on_step = cancelled, on_step

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Takes the newest token of `input_ids` (1, length); answers whether to stop, as a bool (1,)."""
        self._on_step()
        self.ids.append(int(input_ids[0, -1]))
        piece = self._scanner.feed(self._decode(self.ids))
        if piece:
            self._emit(piece)
        self.was_cancelled = self._cancelled()
        return torch.tensor([self._scanner.stopped or self.was_cancelled], device=input_ids.device)


class Seq2SeqEngine:
    """A loaded `AutoModelForSeq2SeqLM`. Safe for concurrent `generate` calls: the weights are only read."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.progress = Progress()
        self._model: Any = loaded.model
        self._tokenizer: Any = loaded.tokenizer
        self._device = loaded.device
        self.info = ModelInfo(
            architecture=type(loaded.model).__name__,
            device=loaded.device,
            dtype=str(loaded.model.dtype).removeprefix("torch."),
            parameters=sum(parameter.numel() for parameter in loaded.model.parameters()),
        )
        eos = loaded.model.generation_config.eos_token_id
        self._eos = frozenset(eos if isinstance(eos, list) else [eos])

    def encode(self, text: str) -> list[int]:
        """Token ids of raw text, nothing cut off."""
        return list(self._tokenizer(text, truncation=False, verbose=False)["input_ids"])

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids by the tokenizer's chat template; without one (T5) by `chat.render_plain`."""
        if self._tokenizer.chat_template is None:
            return self.encode(render_plain(messages))
        turns = [{"role": message.role, "content": message.content} for message in messages]
        encoded = self._tokenizer.apply_chat_template(
            turns,
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            sanitize_control_tokens=True,
        )
        return list(encoded["input_ids"])

    def on_step(self) -> None:
        """Called after each decode step of each request."""
        self.progress.advance()

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        emit: Callable[[str], None] = lambda text: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Result:
        """Blocks until the answer is complete. Raises GenerationError when the model cannot answer."""
        scanner = StopScanner(sampling.stop)
        row = _Row(self._decode, scanner, emit, cancelled, self.on_step)
        with self.progress.generation():
            try:
                self._run(prompt, sampling, row)
            except Exception as error:
                raise GenerationError(f"{type(error).__name__}: {error}") from error
        rest = scanner.finish()
        if rest:
            emit(rest)
        return Result(scanner.text, self._why(row, scanner), len(prompt), len(row.ids))

    def _run(self, prompt: Sequence[int], sampling: Sampling, row: _Row) -> None:
        ids = torch.tensor([list(prompt)], device=self._device)
        processors = LogitsProcessorList([RowSampler(sampling)] if sampling.temperature > 0 else [])
        with torch.inference_mode():
            self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=sampling.max_tokens,
                do_sample=False,
                num_beams=1,
                logits_processor=processors,
                stopping_criteria=StoppingCriteriaList([row]),
            )

    def _decode(self, ids: list[int]) -> str:
        # Clean-up of spaces would change text that was already sent ("a ." becomes "a.").
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _why(self, row: _Row, scanner: StopScanner) -> FinishReason:
        if scanner.stopped or (row.ids and row.ids[-1] in self._eos):
            return "stop"
        return "cancelled" if row.was_cancelled else "length"
