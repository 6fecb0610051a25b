"""Scores and decisions against an enumeration of everything a tiny model can say.

The enumeration knows no candidates, caches, padding or teacher forcing: it walks the tree of all token
sequences with one plain forward pass per prefix. A sequence is complete at its first end-of-sequence token;
one of LENGTH other tokens is unfinished. Together they are all there is, so their probabilities sum to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from agent_runtime.decision import Greedy, decide, distribution
from agent_runtime.llm.base import Score

VOCABULARY, LENGTH = 7, 3
PAD, EOS, OTHER_EOS = 0, 1, 2
PROMPT = (3, 5, 4, 1)
AGREEMENT = 1e-5

Ids = tuple[int, ...]
NextToken = Callable[[Ids], list[float]]
"""Natural-log probabilities of each token after a prefix."""


@dataclass(frozen=True)
class Everything:
    """Token log-probabilities of each complete answer (without its end) and each unfinished one."""

    complete: dict[Ids, tuple[float, ...]]
    unfinished: dict[Ids, tuple[float, ...]]

    @property
    def mass(self) -> float:
        """The probability of all of it."""
        return math.fsum(
            math.exp(sum(logs)) for part in (self.complete, self.unfinished) for logs in part.values()
        )


def enumerate_all(next_token: NextToken, eos: frozenset[int], length: int = LENGTH) -> Everything:
    """Every sequence of at most `length` tokens, the end included. With several end tokens their
    probabilities are added: the answer before them is the same."""
    everything = Everything({}, {})

    def walk(prefix: Ids, logs: tuple[float, ...]) -> None:
        if len(prefix) == length:
            everything.unfinished[prefix] = logs
            return
        following = next_token(prefix)
        end = math.log(math.fsum(math.exp(following[token]) for token in eos))
        everything.complete[prefix] = (*logs, end)
        for token, log in enumerate(following):
            if token not in eos:
                walk((*prefix, token), (*logs, log))

    walk((), ())
    return everything


def log_softmax(logits: torch.Tensor) -> list[float]:
    """Of one position, in double precision."""
    found: list[float] = logits.double().log_softmax(dim=-1).tolist()
    return found


def tiny_seq2seq() -> tuple[Any, NextToken]:
    """A random encoder-decoder and its next-token distribution after PROMPT."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=2,
        pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=PAD, initializer_factor=3.0,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config).eval()

    @torch.inference_mode()
    def next_token(prefix: Ids) -> list[float]:
        return log_softmax(
            model(input_ids=torch.tensor([PROMPT]), decoder_input_ids=torch.tensor([(PAD, *prefix)])).logits[
                0, -1
            ]
        )

    return model, next_token


def tiny_causal(eos: int | list[int] = EOS) -> tuple[Any, NextToken]:
    """A random decoder-only model and its next-token distribution after PROMPT."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=32, initializer_range=1.0,
        pad_token_id=PAD, bos_token_id=PAD, eos_token_id=eos,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()

    @torch.inference_mode()
    def next_token(prefix: Ids) -> list[float]:
        return log_softmax(model(input_ids=torch.tensor([(*PROMPT, *prefix)])).logits[0, -1])

    return model, next_token


def seq2seq_case() -> tuple[Everything, Any]:
    """The enumeration, and the decoder whose scores must agree."""
    from agent_runtime.llm.seq2seq import Seq2SeqDecoder

    model, next_token = tiny_seq2seq()
    return enumerate_all(next_token, frozenset({EOS})), Seq2SeqDecoder(model, "cpu")


def causal_case() -> tuple[Everything, Any]:
    """The same for a decoder-only model."""
    from agent_runtime.llm.causal import CausalDecoder

    model, next_token = tiny_causal()
    return enumerate_all(next_token, frozenset({EOS})), CausalDecoder(model, "cpu")


def two_ends_case() -> tuple[Everything, Any]:
    """A decoder-only model whose answers may end in two ways."""
    from agent_runtime.llm.causal import CausalDecoder

    model, next_token = tiny_causal([EOS, OTHER_EOS])
    return enumerate_all(next_token, frozenset({EOS, OTHER_EOS})), CausalDecoder(model, "cpu")


@pytest.fixture(
    scope="module",
    params=[seq2seq_case, causal_case, two_ends_case],
    ids=["seq2seq", "causal", "two-ends"],
)
def case(request: pytest.FixtureRequest) -> tuple[Everything, Any]:
    """Each kind of model."""
    found: tuple[Everything, Any] = request.param()
    return found


def test_everything_the_model_can_say_has_probability_one(case: tuple[Everything, Any]) -> None:
    everything, decoder = case
    others = VOCABULARY - len(decoder.eos)

    assert everything.mass == pytest.approx(1, abs=1e-9)
    assert len(everything.complete) == 1 + others + others**2
    assert len(everything.unfinished) == others**3


def test_the_models_tell_answers_apart(case: tuple[Everything, Any]) -> None:
    """Otherwise agreement would show nothing."""
    totals = [sum(logs) for logs in case[0].complete.values()]

    assert max(totals) - min(totals) > 3


def test_scores_agree_with_the_enumeration_token_by_token(case: tuple[Everything, Any]) -> None:
    everything, decoder = case
    answers = list(everything.complete)

    scored = decoder.score(PROMPT, answers)

    assert [len(row) for row in scored] == [len(answer) + 1 for answer in answers]
    for answer, row in zip(answers, scored, strict=True):
        assert row == pytest.approx(everything.complete[answer], abs=AGREEMENT)


def test_decisions_agree_with_the_enumeration(case: tuple[Everything, Any]) -> None:
    everything, decoder = case
    answers = list(everything.complete)
    exact = [math.exp(sum(everything.complete[answer])) for answer in answers]

    scores = list(as_scores(answers, decoder.score(PROMPT, answers)))
    decision = decide([score.candidate for score in scores], scores, Greedy())

    total = math.fsum(exact)
    assert decision.probabilities == pytest.approx([p / total for p in exact], abs=AGREEMENT)
    assert decision.mass == pytest.approx(total, abs=AGREEMENT)
    assert decision.index == exact.index(max(exact))


def test_a_few_candidates_are_the_same_distribution_conditioned_on_them(case: tuple[Everything, Any]) -> None:
    everything, decoder = case
    answers = [(), (4,), (6, 3), (3, 3)]
    exact = [math.exp(sum(everything.complete[answer])) for answer in answers]

    found = distribution(list(as_scores(answers, decoder.score(PROMPT, answers))))

    assert found.probabilities == pytest.approx([p / math.fsum(exact) for p in exact], abs=AGREEMENT)
    assert found.mass == pytest.approx(math.fsum(exact), abs=AGREEMENT)


def test_what_the_candidates_miss_is_what_the_enumeration_left_unfinished(
    case: tuple[Everything, Any],
) -> None:
    everything, decoder = case
    answers = list(everything.complete)
    missed = math.fsum(math.exp(sum(logs)) for logs in everything.unfinished.values())

    mass = distribution(list(as_scores(answers, decoder.score(PROMPT, answers)))).mass

    assert mass is not None
    assert mass + missed == pytest.approx(1, abs=AGREEMENT)


def as_scores(answers: list[Ids], rows: list[list[float]]) -> Iterator[Score]:
    """What a backend makes of a decoder's rows."""
    for answer, row in zip(answers, rows, strict=True):
        yield Score(" ".join(map(str, answer)), tuple(row))
