"""The ceiling: one batch that `generate` computes, nothing else in the process. Layer: tooling; torch.

`python -m bench.serving.static_batch FOLDER --rows N [--milliseconds]` prints tokens per second, or the
milliseconds of one batch: the median of a few. With `--each 1,8` it prints every repeat, by number of rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

from bench.serving.load import TOKENS, prompt

REPEATS = 7


def main() -> int:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
    from transformers.utils import logging

    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--each")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--words", type=int, default=0)
    parser.add_argument("--milliseconds", action="store_true")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if options.device == "cpu":
        torch.set_num_threads(1)
    encoder = AutoConfig.from_pretrained(options.model).is_encoder_decoder
    family = AutoModelForSeq2SeqLM if encoder else AutoModelForCausalLM
    model = family.from_pretrained(options.model).eval().to(options.device)
    tokenizer = AutoTokenizer.from_pretrained(options.model, padding_side="right" if encoder else "left")

    def seconds(rows: int) -> float:
        prompts = [prompt(number, options.words) for number in range(rows)]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True).to(options.device)
        begun = time.monotonic()
        with torch.inference_mode():
            output = model.generate(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"],
                max_new_tokens=TOKENS, do_sample=False,
            )  # fmt: skip
        tokenizer.batch_decode(output.tolist(), skip_special_tokens=True)
        return time.monotonic() - begun

    def figures(rows: int) -> list[float]:
        taken = [seconds(rows) for _ in range(options.repeats)][1:]
        return [one * 1000 if options.milliseconds else rows * TOKENS / one for one in taken]

    if options.each:
        print(json.dumps({rows: figures(int(rows)) for rows in options.each.split(",")}))
    else:
        print(json.dumps(statistics.median(figures(options.rows))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
