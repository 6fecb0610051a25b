"""The models the runtime is measured with: tiny, random, and without an end. Layer: tooling; torch.

The one idea: a model of a million parameters spends its time in the server around it, which is what is
measured; one that never ends an answer makes every request the same number of tokens for everybody.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".local" / "bench-models"
CONTEXT = 1024


def causal() -> Path:
    """A Llama of two layers, width 128."""
    return _made("llama", _llama)


def seq2seq() -> Path:
    """A T5 of two layers each side, width 128."""
    return _made("t5", _t5)


def _made(name: str, build: Any) -> Path:
    folder = FOLDER / name
    if (folder / "model.safetensors").exists():
        return folder
    import torch
    from transformers import AutoTokenizer

    from tests.model.training import trained

    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(str(trained()))
    model = build(len(tokenizer))
    # Special tokens and parts of characters have no text, and an answer of them has nothing to stream.
    mute = [token for token in range(len(tokenizer)) if not tokenizer.decode([token], True).strip().isalnum()]
    with torch.no_grad():
        model.get_output_embeddings().weight[mute] = 0.0
    model.generation_config.eos_token_id = None
    model.config.eos_token_id = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _llama(vocabulary: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(vocab_size=vocabulary, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=CONTEXT,
                    bos_token_id=None, eos_token_id=None, pad_token_id=0)
    )  # fmt: skip


def _t5(vocabulary: int) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(vocab_size=vocabulary, d_model=128, d_kv=32, d_ff=256, num_layers=2, num_decoder_layers=2,
                 num_heads=4, feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=None,
                 decoder_start_token_id=0, n_positions=512)
    )  # fmt: skip
