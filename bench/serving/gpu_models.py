"""Models of published dimensions with random weights, for a GPU. Layer: tooling; torch.

The one idea: speed depends on a model's dimensions and not on its weights, so models that nobody can download
here are made: the real classes, bfloat16, drawn on the device. What they answer means nothing. The tokenizer
is the small benchmark models'; tokens it does not know are never said, because their scores are made 0.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path
from typing import Any

from bench.serving import models

FOLDER = Path(os.environ.get("BENCH_GPU_MODELS", models.ROOT / ".local" / "gpu-models"))
CONTEXT = 131_072


def llama_1b() -> Path:
    """meta-llama/Llama-3.2-1B's dimensions, the head not tied: 1.5 billion parameters."""
    return _made("llama-1b", models.causal, lambda: _llama(2048, 8192, 16, 32))


def llama_8b() -> Path:
    """meta-llama/Llama-3.1-8B's dimensions: 8.0 billion parameters."""
    return _made("llama-8b", models.causal, lambda: _llama(4096, 14336, 32, 32))


def flan_t5_xl() -> Path:
    """google/flan-t5-xl's dimensions: 2.8 billion parameters."""
    return _made("flan-t5-xl", models.seq2seq, _t5)


def _made(name: str, small: Any, build: Any) -> Path:
    folder = FOLDER / name
    if (folder / "config.json").exists() and (folder / "tokenizer.json").exists():
        return folder
    import torch
    from transformers import AutoTokenizer

    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(str(small()))
    torch.manual_seed(0)
    with torch.device("cuda"):
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            model = build()
        finally:
            torch.set_default_dtype(before)
    mute = [
        token
        for token in range(model.config.vocab_size)
        if token >= len(tokenizer) or not tokenizer.decode([token], True).strip().isalnum()
    ]
    with torch.no_grad():
        model.get_output_embeddings().weight[mute] = 0.0
    model.generation_config.eos_token_id = None
    model.config.eos_token_id = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()
    return folder


def _llama(width: int, inner: int, layers: int, heads: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(vocab_size=128_256, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
                    num_attention_heads=heads, num_key_value_heads=8, max_position_embeddings=CONTEXT,
                    rope_theta=500_000.0, tie_word_embeddings=False,
                    bos_token_id=None, eos_token_id=None, pad_token_id=0)
    )  # fmt: skip


def _t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(vocab_size=32_128, d_model=2048, d_kv=64, d_ff=5120, num_layers=24, num_decoder_layers=24,
                 num_heads=32, feed_forward_proj="gated-gelu", tie_word_embeddings=False, pad_token_id=0,
                 eos_token_id=None, decoder_start_token_id=0)
    )  # fmt: skip


def main() -> int:
    """Makes the models named, all when none is, and says how long each took."""
    every = {"llama-1b": llama_1b, "llama-8b": llama_8b, "flan-t5-xl": flan_t5_xl}
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(every), choices=list(every))
    for name in parser.parse_args().names:
        begun = time.monotonic()
        print(every[name](), f"{time.monotonic() - begun:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
