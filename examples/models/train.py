"""Train an example model, a small T5 that knows what its dataset says. Layer: example, alone.

Imports torch, transformers and tokenizers, nothing of this project: what it saves is an ordinary
`save_pretrained` folder. The one idea: an end-to-end test of an agent is worth something only when the
answer comes from trained weights, so the weights are made here, from a dataset anybody can edit, in about
a minute on one CPU thread. Nothing but the dataset decides what the model answers. The training loop is
written out because transformers' Trainer needs accelerate and hides the twenty lines that matter.

    python train.py --dataset FILE --output DIR [--seed 0] [--threads 1] [--max-epochs 12]

The dataset is a JSON-lines file, or a Python script that prints one.

Exit code 1 when the model reproduces less than 99 % of the training answers; it is saved all the same.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

MAX_ANSWER_TOKENS = 48
REQUIRED = 0.99
"""Share of training questions the model must answer exactly for the script to succeed."""
PATIENCE = 1
"""Faultless evaluations of the training set in a row before training stops early."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the dataset: what is asked, what is right, and whether training may see it."""

    split: str
    topic: str
    question: str
    answer: str


def read_dataset(path: Path) -> list[Row]:
    """The rows of a JSON-lines file, or of what a script prints. Raises SystemExit naming file and line when
    one is malformed."""
    rows = []
    if path.suffix == ".py":
        text = subprocess.run([sys.executable, path], check=True, stdout=subprocess.PIPE, text=True).stdout
    else:
        text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append(Row(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise SystemExit(
                f"{path}:{number}: {error}. Expected an object with split, topic, question, answer."
            ) from error
    if not any(row.split == "train" for row in rows):
        raise SystemExit(f'{path}: no row has "split": "train", so there is nothing to learn.')
    return rows


def build_tokenizer(texts: Iterable[str], prefix_space: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on `texts` only; ids 0, 1, 2 are <pad>, </s>, <unk> as in every T5.

    Any white space separates words, as in T5's own tokenizer, and no input is ever unknown. With
    `prefix_space` a text's first word is the token it is elsewhere; JSON has to begin with its brace.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", int(prefix_space), 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        min_frequency=2,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
        padding_side="right",
    )


def build_model(vocabulary: int) -> T5ForConditionalGeneration:
    """A T5 of about a million parameters: two layers each side, width 128."""
    config = T5Config(
        vocab_size=vocabulary,
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        n_positions=512,
    )
    return T5ForConditionalGeneration(config)


def batches(rows: list[Row], size: int, rng: random.Random) -> Iterator[list[Row]]:
    """The rows in a new random order, `size` at a time; every row exactly once."""
    order = rows[:]
    rng.shuffle(order)
    for start in range(0, len(order), size):
        yield order[start : start + size]


def step_loss(
    model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, rows: list[Row]
) -> torch.Tensor:
    """Mean cross-entropy per answer token (nats) of one batch, padding masked out."""
    inputs = tokenizer([row.question for row in rows], return_tensors="pt", padding=True)
    labels = tokenizer([row.answer for row in rows], return_tensors="pt", padding=True)["input_ids"]
    labels = labels.masked_fill(labels == tokenizer.pad_token_id, -100)
    loss: torch.Tensor = model(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels
    ).loss
    return loss


@torch.no_grad()
def wrong_answers(
    model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, rows: list[Row]
) -> list[dict[str, str]]:
    """Every row whose greedy answer is not exactly the expected one, with what was said instead."""
    model.eval()
    wrong = []
    for start in range(0, len(rows), 256):
        part = rows[start : start + 256]
        inputs = tokenizer([row.question for row in part], return_tensors="pt", padding=True)
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=MAX_ANSWER_TOKENS,
            do_sample=False,
        )
        answers = tokenizer.batch_decode(output, skip_special_tokens=True)
        wrong += [
            {"question": row.question, "expected": row.answer, "answered": answer}
            for row, answer in zip(part, answers, strict=True)
            if answer != row.answer
        ]
    model.train()
    return wrong


def train(
    rows: list[Row], seed: int, max_epochs: int, batch_size: int, learning_rate: float
) -> tuple[T5ForConditionalGeneration, PreTrainedTokenizerFast, int]:
    """The trained model, its tokenizer and the number of epochs used. Sees only rows of split "train"."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    seen = [row for row in rows if row.split == "train"]
    texts = [text for row in seen for text in (row.question, row.answer)]
    tokenizer = build_tokenizer(texts, prefix_space=not any(text.startswith("{") for text in texts))
    model = build_model(len(tokenizer))
    model.train()
    steps = -(-len(seen) // batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=learning_rate, total_steps=steps * max_epochs, pct_start=0.1
    )
    started, clean = time.monotonic(), 0
    for epoch in range(1, max_epochs + 1):
        total = 0.0
        for batch in batches(seen, batch_size, rng):
            loss = step_loss(model, tokenizer, batch)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        mean, note = total / steps, ""
        if mean < 0.1 or epoch == max_epochs:
            mistakes = len(wrong_answers(model, tokenizer, seen))
            clean = clean + 1 if mistakes == 0 else 0
            note = f"  train {len(seen) - mistakes}/{len(seen)} exact"
        print(
            f"epoch {epoch:3d}/{max_epochs}  loss {mean:.4f}  {time.monotonic() - started:5.1f} s{note}",
            flush=True,
        )
        if clean >= PATIENCE:
            break
    return model, tokenizer, epoch


def evaluate(
    model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, rows: list[Row]
) -> dict[str, dict[str, object]]:
    """Exact match per split: right, of how many, the rate, and up to 100 mistakes to read."""
    report: dict[str, dict[str, object]] = {}
    for split in sorted({row.split for row in rows}):
        part = [row for row in rows if row.split == split]
        wrong = wrong_answers(model, tokenizer, part)
        right = len(part) - len(wrong)
        report[split] = {
            "exact": right,
            "of": len(part),
            "rate": round(right / len(part), 4),
            "mistakes": wrong[:100],
        }
    return report


def main(arguments: list[str] | None = None) -> int:
    """Train, evaluate, save. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--dataset", type=Path, required=True, help="what it shall know")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; more hardly help")
    parser.add_argument("--max-epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    started = time.monotonic()
    rows = read_dataset(options.dataset)
    model, tokenizer, epochs = train(
        rows, options.seed, options.max_epochs, options.batch_size, options.learning_rate
    )
    model.eval()
    accuracy = evaluate(model, tokenizer, rows)
    model.generation_config.max_new_tokens = MAX_ANSWER_TOKENS
    options.output.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    for file in options.output.iterdir():
        file.chmod(0o644)  # save_pretrained makes the weights private; a pod reads them as another user
    report = {
        "dataset": options.dataset.name,
        "seed": options.seed,
        "epochs": epochs,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(time.monotonic() - started, 1),
        "accuracy": accuracy,
    }
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    (options.output / "eval.json").write_text(text, encoding="utf-8")
    for split, result in accuracy.items():
        print(f"{split:8s} {result['exact']}/{result['of']} exact ({result['rate']:.1%})")
    print(f"saved to {options.output} after {report['seconds']} s, {report['parameters']:,} parameters")
    return 0 if float(str(accuracy["train"]["rate"])) >= REQUIRED else 1


if __name__ == "__main__":
    sys.exit(main())
