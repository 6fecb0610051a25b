"""Structured output: only tokens that keep the answer well-formed. Layer: llm; llguidance (extra `grammar`).

The one idea: a grammar is compiled once and followed token by token; what may not follow is impossible,
whatever the model would have liked, so a complete answer is always valid. llguidance does the work.
"""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from agent_runtime.llm.base import GenerationError, Grammar

MAX_GRAMMAR_CHARACTERS = 100_000
_PROBE = '{"a": ["b", -1.5, true, null]}'


class GrammarUnavailableError(Exception):
    """Structured output is not to be had here; the text says why."""


class GrammarCompiler:
    """Compiles grammars for one tokenizer. Safe to use from several threads.

    llguidance is loaded for the first grammar: it takes ten MiB and, with a large vocabulary, a second.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, eos: frozenset[int]) -> None:
        """Raises GrammarUnavailableError when no answer of this model could follow a grammar."""
        if importlib.util.find_spec("llguidance") is None:
            raise GrammarUnavailableError("the extra `grammar` (llguidance) is not installed")
        if not eos:
            raise GrammarUnavailableError("the model has no end-of-sequence token")
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise GrammarUnavailableError("llguidance reads only tokenizers of the tokenizers library")
        if not _spells(tokenizer, _PROBE):
            raise GrammarUnavailableError("the model's vocabulary cannot spell JSON (T5's has no braces)")
        self._tokenizer, self._vocabulary, self._eos = tokenizer, vocabulary, eos
        self._lock = threading.Lock()
        self._wrapped: Any = None
        self._source: Callable[[Grammar], str] = lru_cache(maxsize=256)(_source)

    def matcher(self, grammar: Grammar) -> GrammarMatcher:
        """A matcher at the beginning of an answer. Raises GenerationError `invalid_grammar`."""
        from llguidance import LLMatcher

        if len(grammar.text) > MAX_GRAMMAR_CHARACTERS:
            raise GenerationError(
                f"the grammar is longer than {MAX_GRAMMAR_CHARACTERS} characters", "invalid_grammar"
            )
        with self._lock:
            wrapped = self._wrapped = self._wrapped or self._wrap()
            matcher = LLMatcher(wrapped, self._source(grammar), log_level=0)
        if matcher.is_error():
            raise GenerationError(_first_line(matcher.get_error()), "invalid_grammar")
        return GrammarMatcher(matcher, min(self._vocabulary, wrapped.vocab_size))

    def _wrap(self) -> Any:
        from llguidance import LLTokenizer

        try:
            return LLTokenizer(_unprefixed(self._tokenizer.backend_tokenizer), eos_token=sorted(self._eos))
        except Exception as error:
            why = f"structured output is not available: llguidance cannot read this tokenizer: {error}"
            raise GenerationError(why, "invalid_grammar") from error


class GrammarMatcher:
    """Follows one answer; a TokenMask of agent_runtime.llm.sampling."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self._matcher, self._vocabulary = matcher, vocabulary

    def allowed(self) -> torch.Tensor:
        """Bool (vocabulary,): what may come next. Raises GenerationError when the matcher gave up."""
        if self._matcher.is_error():
            raise GenerationError(_first_line(self._matcher.get_error()), "invalid_grammar")
        # llguidance.torch would do this too, at the price of importing torch's compiler.
        packed = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)
        bits = packed[:, None] >> torch.arange(8, dtype=torch.uint8) & 1
        return bits.flatten()[: self._vocabulary].bool()

    def accept(self, token: int) -> None:
        """The token was chosen. One that ends the answer is fine."""
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token)


def _spells(tokenizer: Any, text: str) -> bool:
    """Whether the vocabulary can write this text."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    back = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return bool(str(back).strip() == text)


def _unprefixed(tokenizer: Any) -> str:
    """The tokenizer's JSON without the space it would put before a text: grammars speak of exact bytes, and
    llguidance tokenises what a grammar forces."""
    description = json.loads(tokenizer.to_str())
    description |= {"padding": None, "truncation": None}
    return json.dumps(_without_prefix(description))


def _without_prefix(part: Any) -> Any:
    if isinstance(part, list):
        return [_without_prefix(item) for item in part if not _prepends(item)]
    if not isinstance(part, dict):
        return part
    changed = {name: None if _prepends(value) else _without_prefix(value) for name, value in part.items()}
    if changed.get("type") == "ByteLevel" and "add_prefix_space" in changed:
        changed["add_prefix_space"] = False
    if changed.get("type") == "Metaspace":
        changed["prepend_scheme"] = "never"
    return changed


def _prepends(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "Prepend"


def _source(grammar: Grammar) -> str:
    from llguidance import LLMatcher

    try:
        if grammar.kind == "json_schema":
            # Compact: a small model given the choice of white space may never stop making it.
            return str(LLMatcher.grammar_from_json_schema(grammar.text, {"whitespace_flexible": False}))
        make = LLMatcher.grammar_from_regex if grammar.kind == "regex" else LLMatcher.grammar_from_lark
        return str(make(grammar.text))
    except (ValueError, TypeError) as error:
        raise GenerationError(_first_line(str(error)), "invalid_grammar") from error


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["the grammar was refused without a reason"])[0][:500]
