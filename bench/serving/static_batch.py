"""The ceiling: one batch that `generate` computes, nothing else in the process. Layer: tooling; torch.

`python -m bench.serving.static_batch FOLDER --rows N [--milliseconds]` prints tokens per second, or the
milliseconds of one batch: the median of a few.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

from bench.serving.load import TOKENS, body

REPEATS = 7


def main() -> int:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
    from transformers.utils import logging

    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--milliseconds", action="store_true")
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    encoder = AutoConfig.from_pretrained(options.model).is_encoder_decoder
    family = AutoModelForSeq2SeqLM if encoder else AutoModelForCausalLM
    model = family.from_pretrained(options.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model, padding_side="right" if encoder else "left")
    prompts = [str(body("", number, False, False)["prompt"]) for number in range(options.rows)]
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    seconds = []
    for _ in range(REPEATS):
        begun = time.monotonic()
        with torch.inference_mode():
            output = model.generate(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"],
                max_new_tokens=TOKENS, do_sample=False,
            )  # fmt: skip
        tokenizer.batch_decode(output, skip_special_tokens=True)
        seconds.append(time.monotonic() - begun)
    median = statistics.median(seconds[1:])
    print(json.dumps(median * 1000 if options.milliseconds else options.rows * TOKENS / median))
    return 0


if __name__ == "__main__":
    sys.exit(main())
