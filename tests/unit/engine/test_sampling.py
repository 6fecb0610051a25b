"""Rows of a batch share the matrix and nothing else; each token is chosen by its row's own rules."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime.llm.base import GenerationError, Sampling
from agent_runtime.llm.sampling import Choice, RowSampler, choose, draw

EOS = frozenset({1})
SCORES = st.lists(st.floats(-8, 8, width=32), min_size=6, max_size=6)


def row(**rules: Any) -> RowSampler:
    """A row with these rules."""
    return RowSampler(Sampling(max_tokens=10, **rules))


def one(scores: list[float], sampler: RowSampler, ids: tuple[int, ...] = ()) -> Choice:
    """The row's next token, alone."""
    (choice,) = choose(torch.tensor([scores]), [sampler], [ids], EOS)
    assert isinstance(choice, Choice), choice
    return choice


@given(SCORES)
def test_temperature_zero_takes_the_likeliest_token(scores: list[float]) -> None:
    assert one(scores, row()).token == int(torch.tensor(scores).argmax())


@given(SCORES, st.integers(0, 2**31))
def test_the_smallest_numbers_take_the_likeliest_token_too(scores: list[float], seed: int) -> None:
    best = max(scores)

    for rules in (
        {"temperature": 5e-324},
        {"temperature": 1e-5, "top_p": 5e-324},
        {"temperature": 1.0, "top_p": 5e-324},
    ):
        assert torch.tensor(scores)[one(scores, row(seed=seed, **rules)).token] == torch.tensor(best)


@given(
    st.lists(SCORES, min_size=1, max_size=5), st.integers(0, 2**31), st.floats(0.1, 2), st.floats(0.05, 1),
    st.integers(0, 6),
)  # fmt: skip
def test_company_changes_no_rows_choice(
    table: list[list[float]], seed: int, temperature: float, top_p: float, top_k: int
) -> None:
    rules = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "seed": seed}
    alone = [one(scores, row(**rules)).token for scores in table]

    together = choose(torch.tensor(table), [row(**rules) for _ in table], [()] * len(table), EOS)

    assert [choice.token for choice in together if isinstance(choice, Choice)] == alone


def test_drawn_tokens_have_the_models_probabilities() -> None:
    scores, draws = [2.0, 1.0, 0.0, -1.0], 4000
    dice = random.Random(0)
    tokens = draw(
        torch.tensor([scores] * draws), [Sampling(1, temperature=0.8)] * draws,
        [dice.random() for _ in range(draws)],
    )  # fmt: skip
    expected = (torch.tensor(scores) / 0.8).softmax(dim=0).tolist()

    counts = Counter(tokens)

    chi_square = sum((counts[n] - draws * p) ** 2 / (draws * p) for n, p in enumerate(expected))
    assert chi_square < 16.3  # 0.1 % of honest draws exceed it, and the dice are seeded


@given(SCORES, st.floats(0, 1, exclude_max=True), st.integers(1, 6), st.floats(0.05, 1))
def test_no_token_outside_top_k_and_top_p_is_ever_drawn(
    scores: list[float], uniform: float, top_k: int, top_p: float
) -> None:
    rules = Sampling(1, temperature=1.0, top_k=top_k, top_p=top_p)
    (token,) = draw(torch.tensor([scores]), [rules], [uniform])

    order = sorted(range(6), key=lambda number: -scores[number])[:top_k]
    kept = torch.tensor([scores[number] for number in order]).softmax(dim=0).cumsum(dim=0).tolist()
    nucleus = [number for place, number in enumerate(order) if place == 0 or kept[place - 1] < top_p + 1e-6]
    assert scores[token] >= min(scores[number] for number in nucleus)


def test_penalties_and_bias_change_scores_as_openai_defines() -> None:
    sampler = row(presence_penalty=0.5, frequency_penalty=0.25, logit_bias=((3, 1.5),))
    for token in (2, 2, 4):
        sampler.accept(token)

    shaped = sampler.shape(torch.zeros(6), ())

    assert shaped.tolist() == pytest.approx([0, 0, -1.0, 1.5, -0.75, 0])


def test_an_answer_cannot_end_before_min_tokens_nor_ever_with_ignore_eos() -> None:
    scores = [0.0, 9.0, 5.0]

    assert one(scores, row(min_tokens=2), (7,)).token == 2
    assert one(scores, row(min_tokens=2), (7, 7)).token == 1
    assert one(scores, row(ignore_eos=True), (7,) * 9).token == 2


def test_reported_log_probabilities_are_the_models_own_before_every_rule() -> None:
    scores = [0.0, 3.0, 2.0, 1.0]
    sampler = row(temperature=0.5, logit_bias=((1, -100.0),), top_logprobs=2, seed=1)

    choice = one(scores, sampler)

    table = torch.tensor(scores).log_softmax(dim=0).tolist()
    assert choice.token != 1
    assert choice.logprob == pytest.approx(table[choice.token])
    assert [(token, pytest.approx(value)) for token, value in choice.top] == [(1, table[1]), (2, table[2])]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_row_without_numbers_fails_alone(value: float) -> None:
    table = torch.tensor([[0.0, 1.0], [value, 0.0]])

    fine, broken = choose(table, [row(), row(temperature=1.0)], [(), ()], EOS)

    assert fine == Choice(1)
    assert isinstance(broken, GenerationError)


class Never:
    """A grammar that has lost its way."""

    def allowed(self) -> torch.Tensor:
        raise GenerationError("no token may follow", "invalid_grammar")

    def accept(self, token: int) -> None: ...


class Only:
    """A grammar that allows one token."""

    def __init__(self, token: int, size: int) -> None:
        self._mask = torch.arange(size) == token

    def allowed(self) -> torch.Tensor:
        return self._mask

    def accept(self, token: int) -> None: ...


def test_a_grammar_decides_and_its_failure_is_its_rows_alone() -> None:
    rows = [RowSampler(Sampling(9), Only(2, 3)), RowSampler(Sampling(9, temperature=1.0), Never()), row()]

    forced, failed, free = choose(torch.tensor([[0.0, 9.0, 0.0, 9.9]] * 3), rows, [()] * 3, EOS)

    assert (forced, free) == (Choice(2), Choice(3))
    assert isinstance(failed, GenerationError)
    assert failed.code == "invalid_grammar"


@settings(max_examples=50)
@given(st.integers(-(2**63), 2**63 - 1))
def test_a_seed_repeats_the_whole_sequence(seed: int) -> None:
    first, second = row(temperature=1.0, seed=seed), row(temperature=1.0, seed=seed)

    assert [first.uniform() for _ in range(5)] == [second.uniform() for _ in range(5)]
