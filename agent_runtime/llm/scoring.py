"""How probable the model finds given answers: exact P(y|x). Layer: llm; torch.

The one idea: an answer's probability is a product the model computes in one teacher-forced pass,

    log P(y | x) = sum_t log P(y_t | x, y_<t) + log P(end | x, y),

where `end` is any of the model's end-of-sequence tokens (their probabilities are added) and nothing after the
first of them counts: adding up the padding behind it is a known way to be wrong. Source: the chain
rule; Sutskever et al. 2014, "Sequence to Sequence Learning with Neural Networks", eq. 1. Sampling would
estimate the same number, with noise and at many times the cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from agent_runtime.llm.decoder import Ids

PORTION_TOKENS = 4096
"""Padded candidate tokens of one pass: bounds the logits, (tokens, vocabulary) numbers of 4 bytes."""


def end_ids(model: Any) -> frozenset[int]:
    """The tokens that end an answer, by the generation configuration, else by the model's."""
    for config in (model.generation_config, model.config):
        found = getattr(config, "eos_token_id", None)
        if found is not None:
            return frozenset(found if isinstance(found, list) else [found])
    return frozenset()


def until_end(candidate: Ids, eos: frozenset[int]) -> list[int]:
    """The candidate before its first end-of-sequence token."""
    for number, token in enumerate(candidate):
        if token in eos:
            return list(candidate[:number])
    return list(candidate)


def in_portions(candidates: Sequence[Ids]) -> Iterator[Sequence[Ids]]:
    """The candidates in order, so many at a time that a pass stays within PORTION_TOKENS."""
    begin = 0
    while begin < len(candidates):
        end, width = begin, 1
        while end < len(candidates):
            width = max(width, len(candidates[end]) + 1)
            if end > begin and (end + 1 - begin) * width > PORTION_TOKENS:
                break
            end += 1
        yield candidates[begin:end]
        begin = end


def gather(
    first: torch.Tensor, rest: torch.Tensor, candidates: Sequence[Ids], eos: frozenset[int]
) -> list[list[float]]:
    """Log-probabilities (natural) of each candidate's tokens, then of its end when the model has one.

    Shapes: first (rows, vocabulary), the logits before any candidate token; rest (rows, length, vocabulary),
    the logits after each of them. Candidates hold no end token (`until_end`).
    """
    length = max((len(candidate) for candidate in candidates), default=0)
    table = torch.cat([first[:, None].float(), rest[:, :length].float()], dim=1).log_softmax(dim=-1)
    ids = torch.zeros(len(candidates), length + 1, dtype=torch.long)
    for number, candidate in enumerate(candidates):
        ids[number, : len(candidate)] = torch.tensor(candidate, dtype=torch.long)
    chosen = table.gather(2, ids.to(table.device)[:, :, None]).squeeze(2).tolist()
    if not eos:
        return [row[: len(candidate)] for row, candidate in zip(chosen, candidates, strict=True)]
    ends = table[:, :, sorted(eos)].logsumexp(dim=-1).tolist()
    return [
        [*row[: len(candidate)], end[len(candidate)]]
        for row, end, candidate in zip(chosen, ends, candidates, strict=True)
    ]
