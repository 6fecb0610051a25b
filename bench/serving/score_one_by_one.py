"""How candidates are scored with `generate` alone: each forced in turn, its scores added up. Layer: tooling.

`python -m bench.serving.score_one_by_one FOLDER --candidates N` prints milliseconds for all candidates,
the median of a few. The tokens are forced by `prefix_allowed_tokens_fn`, `compute_transition_scores` reads
their log-probabilities, as transformers' documentation does it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

from bench.serving.load import QUESTION, candidates

REPEATS = 3


def main() -> int:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--candidates", type=int, required=True)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if options.device == "cpu":
        torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(options.model).eval().to(options.device)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    prompt = tokenizer(QUESTION, return_tensors="pt")["input_ids"].to(options.device)
    forced = [
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in candidates(options.candidates)
    ]
    seconds = []
    for _ in range(REPEATS):
        begun = time.monotonic()
        for ids in forced:
            with torch.inference_mode():
                output = model.generate(
                    prompt, max_new_tokens=len(ids), do_sample=False, return_dict_in_generate=True,
                    output_logits=True,
                    prefix_allowed_tokens_fn=lambda _, so_far, ids=ids: [ids[len(so_far) - prompt.shape[1]]],
                )  # fmt: skip
                model.compute_transition_scores(
                    output.sequences, output.logits, normalize_logits=True
                ).sum().item()
        seconds.append(time.monotonic() - begun)
    print(json.dumps(statistics.median(seconds) * 1000))
    return 0


if __name__ == "__main__":
    sys.exit(main())
