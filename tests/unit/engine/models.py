"""Small models of many families, with random weights. Layer: tests.

What is checked with them holds for any weights: that a batch gives what `generate` gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf

VOCABULARY = 200


def _t5() -> Any:
    return hf.T5ForConditionalGeneration(
        hf.T5Config(vocab_size=VOCABULARY, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2,
                    decoder_start_token_id=0, eos_token_id=1, pad_token_id=0)
    )  # fmt: skip


def _bart(kind: str) -> Any:
    sizes = {
        "vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64, "max_position_embeddings": 128,
    }  # fmt: skip
    if kind == "bart":
        return hf.BartForConditionalGeneration(hf.BartConfig(**sizes))
    return hf.MarianMTModel(hf.MarianConfig(**sizes, pad_token_id=199, decoder_start_token_id=199))


def _decoder_only(config: Callable[..., Any], model: Callable[..., Any], **extra: Any) -> Any:
    sizes = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1,
    }  # fmt: skip
    return model(config(**(sizes | extra)))


SEQ2SEQ: dict[str, Callable[[], Any]] = {
    "t5": _t5,
    "bart": lambda: _bart("bart"),
    "marian": lambda: _bart("marian"),
}
CAUSAL: dict[str, Callable[[], Any]] = {
    "llama": lambda: _decoder_only(hf.LlamaConfig, hf.LlamaForCausalLM, max_position_embeddings=256),
    "qwen3": lambda: _decoder_only(hf.Qwen3Config, hf.Qwen3ForCausalLM, head_dim=16),
    "mistral": lambda: _decoder_only(hf.MistralConfig, hf.MistralForCausalLM, sliding_window=8),
    "gemma3": lambda: _decoder_only(
        hf.Gemma3TextConfig, hf.Gemma3ForCausalLM, num_hidden_layers=6, head_dim=16, sliding_window=8
    ),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=256,
                      bos_token_id=1, eos_token_id=2)
    ),
    "bloom": lambda: hf.BloomForCausalLM(
        hf.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=2)
    ),
    "mamba": lambda: hf.MambaForCausalLM(
        hf.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2)
    ),
}  # fmt: skip
JOINING = frozenset({"t5", "llama", "qwen3", "gpt2", "bloom"})
"""Families whose positions are relative or told, and whose cache is a plain rectangle."""


def build(family: str) -> Any:
    """The model of a family, the same weights each time."""
    torch.manual_seed(0)
    return (SEQ2SEQ | CAUSAL)[family]().eval()
