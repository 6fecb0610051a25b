"""What holds of every decision, whatever the model said."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent_runtime.decision import (
    CVaR,
    Decision,
    ExpectedUtility,
    Greedy,
    MeanVariance,
    Normalization,
    Policy,
    Softmax,
    Utilities,
    calibrated,
    decide,
    distribution,
)
from agent_runtime.decision.utilities import identity
from agent_runtime.llm.base import Score

TOLERANCE = 1e-9

log_probabilities = st.floats(min_value=-200, max_value=0)
eighths = st.integers(-800, 0).map(lambda number: number / 8)
"""Log-probabilities whose sums are exact, so that only real differences decide."""
temperatures = st.floats(min_value=0.01, max_value=100)
shares = st.floats(min_value=0, max_value=1)
seeds = st.integers(-(2**63), 2**63 - 1)
utility = st.floats(min_value=-1e6, max_value=1e6)
normalizations: st.SearchStrategy[Normalization] = st.sampled_from(["sum", "mean"])


def score_lists(tokens: st.SearchStrategy[float] = log_probabilities) -> st.SearchStrategy[list[Score]]:
    """One to twelve candidates of one to four tokens."""
    rows = st.lists(st.lists(tokens, min_size=1, max_size=4), min_size=1, max_size=12)
    return rows.map(lambda found: [Score(f"c{index}", tuple(row)) for index, row in enumerate(found)])


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Score], Utilities]:
    """Candidates, and utilities of one to five actions."""
    scores = draw(score_lists())
    row = st.lists(utility, min_size=len(scores), max_size=len(scores)).map(tuple)
    matrix = draw(st.lists(row, min_size=1, max_size=5))
    return scores, Utilities(tuple(f"a{index}" for index in range(len(matrix))), tuple(matrix))


policies: st.SearchStrategy[Policy] = st.one_of(
    st.builds(Greedy, abstain_below=shares),
    st.builds(Softmax, temperature=temperatures, abstain_below=shares),
    st.builds(ExpectedUtility, abstain_below=shares),
    st.builds(MeanVariance, risk_aversion=st.floats(0, 10), abstain_below=shares),
    st.builds(CVaR, risk_aversion=shares, abstain_below=shares),
)


def decided(scores: list[Score], policy: Policy, **options: Any) -> Decision:
    """A decision among these candidates."""
    return decide([score.candidate for score in scores], scores, policy, **options)


def values(decision: Decision) -> list[float]:
    """Each action's value."""
    return [value.value for value in decision.arithmetic.values]


def close(one: float, other: float, scale: float = 1.0) -> bool:
    """Equal but for rounding."""
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE * max(scale, 1.0))


def size(utilities: Utilities) -> float:
    """The greatest magnitude among them."""
    return max(abs(number) for row in utilities.matrix for number in row)


# ---------------------------------------------------------------- the distribution


@given(score_lists(), normalizations, temperatures)
def test_probabilities_sum_to_one(
    scores: list[Score], normalization: Normalization, temperature: float
) -> None:
    found = distribution(scores, normalization, temperature)

    assert close(math.fsum(found.probabilities), 1.0)
    assert all(0 <= probability <= 1 for probability in found.probabilities)


@given(score_lists(eighths), normalizations, temperatures, temperatures)
def test_the_likeliest_candidate_is_the_same_at_every_temperature(
    scores: list[Score], normalization: Normalization, one: float, other: float
) -> None:
    assert distribution(scores, normalization, one).best == distribution(scores, normalization, other).best


@given(score_lists(), st.floats(-1000, 0), normalizations)
def test_adding_a_constant_to_every_log_probability_changes_no_probability(
    scores: list[Score], constant: float, normalization: Normalization
) -> None:
    def shifted(score: Score) -> Score:
        by = constant if normalization == "sum" else constant * len(score.token_logprobs)
        return Score(score.candidate, (*score.token_logprobs[:-1], score.token_logprobs[-1] + by))

    before = distribution(scores, normalization)
    after = distribution([shifted(score) for score in scores], normalization)

    assert all(map(close, before.probabilities, after.probabilities))


@given(score_lists(), normalizations, temperatures, st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_changes_no_probability(
    scores: list[Score], normalization: Normalization, temperature: float, random: Any
) -> None:
    order = random.sample(range(len(scores)), len(scores))

    before = distribution(scores, normalization, temperature)
    after = distribution([scores[index] for index in order], normalization, temperature)

    assert after.probabilities == tuple(before.probabilities[index] for index in order)
    assert (after.mass, after.entropy, after.margin) == (before.mass, before.entropy, before.margin)


@given(score_lists(eighths), normalizations)
def test_of_one_length_both_normalizations_rank_alike(
    scores: list[Score], normalization: Normalization
) -> None:
    assume(len({len(score.token_logprobs) for score in scores}) == 1)

    assert distribution(scores, normalization).best == distribution(scores).best


@given(score_lists(), normalizations, temperatures)
def test_entropy_lies_between_zero_and_log_n(
    scores: list[Score], normalization: Normalization, temperature: float
) -> None:
    found = distribution(scores, normalization, temperature)

    assert 0 <= found.entropy <= math.log(len(scores))
    assert 0 <= found.normalized_entropy <= 1
    assert 0 <= found.margin <= 1


@given(st.integers(1, 50), log_probabilities)
def test_equal_candidates_have_the_greatest_entropy(n: int, log_probability: float) -> None:
    found = distribution([Score(str(index), (log_probability,)) for index in range(n)])

    assert close(found.entropy, math.log(n))


@given(score_lists())
def test_the_mass_is_the_sum_of_what_the_model_gives_the_candidates(scores: list[Score]) -> None:
    total = math.fsum(math.exp(score.logprob) for score in scores)

    mass = distribution(scores).mass

    assert mass is not None
    assert close(mass, min(total, 1.0))


@given(score_lists(), normalizations)
def test_a_baseline_that_prefers_nothing_calibrates_nothing(
    scores: list[Score], normalization: Normalization
) -> None:
    flat = [Score(score.candidate, (0.0,) * len(score.token_logprobs)) for score in scores]

    assert calibrated(scores, flat, normalization).probabilities == (
        distribution(scores, normalization).probabilities
    )


@given(score_lists(), normalizations)
def test_a_prompt_that_says_nothing_makes_calibrated_candidates_equal(
    scores: list[Score], normalization: Normalization
) -> None:
    found = calibrated(scores, scores, normalization)

    assert all(close(probability, 1 / len(scores)) for probability in found.probabilities)


# ---------------------------------------------------------------- the policies


@given(score_lists())
def test_greedy_is_expected_utility_when_only_the_truth_pays(scores: list[Score]) -> None:
    greedy, bayes = decided(scores, Greedy()), decided(scores, ExpectedUtility())

    assert (greedy.index, values(greedy)) == (bayes.index, values(bayes))


@given(score_lists(), st.data())
def test_rewards_are_the_matrix_with_the_rewards_on_its_diagonal(
    scores: list[Score], data: st.DataObject
) -> None:
    rewards = data.draw(st.lists(utility, min_size=len(scores), max_size=len(scores)))
    labels = tuple(score.candidate for score in scores)
    rows = [
        [reward if column == row else 0.0 for column in range(len(scores))]
        for row, reward in enumerate(rewards)
    ]
    matrix = Utilities(labels, tuple(map(tuple, rows)))

    for policy in (ExpectedUtility(), MeanVariance(risk_aversion=0.5), CVaR(risk_aversion=0.5)):
        assert decided(scores, policy, utilities=rewards) == decided(scores, policy, utilities=matrix)


@given(problems())
def test_without_risk_aversion_cvar_and_mean_variance_are_expected_utility(
    problem: tuple[list[Score], Utilities],
) -> None:
    scores, utilities = problem
    neutral = decided(scores, ExpectedUtility(), utilities=utilities)

    for policy in (CVaR(risk_aversion=0), MeanVariance(risk_aversion=0)):
        decision = decided(scores, policy, utilities=utilities)
        assert (decision.index, values(decision)) == (neutral.index, values(neutral))


@given(problems(), shares, shares)
def test_cvar_of_an_action_never_rises_with_risk_aversion(
    problem: tuple[list[Score], Utilities], one: float, other: float
) -> None:
    scores, utilities = problem
    less, more = sorted((one, other))

    bold = values(decided(scores, CVaR(risk_aversion=less), utilities=utilities))
    timid = values(decided(scores, CVaR(risk_aversion=more), utilities=utilities))

    rounding = TOLERANCE * max(size(utilities), 1)
    assert all(after <= before + rounding for before, after in zip(bold, timid, strict=True))


@given(problems(), shares)
def test_cvar_lies_between_the_worst_outcome_and_the_mean(
    problem: tuple[list[Score], Utilities], risk_aversion: float
) -> None:
    scores, utilities = problem
    rounding = TOLERANCE * max(size(utilities), 1)

    decision = decided(scores, CVaR(risk_aversion=risk_aversion), utilities=utilities)

    for value in decision.arithmetic.values:
        assert value.mean is not None
        assert value.terms[0].utility - rounding <= value.value <= value.mean + rounding


@given(problems(), shares)
def test_cvar_is_the_maximum_of_rockafellar_and_uryasevs_function(
    problem: tuple[list[Score], Utilities], risk_aversion: float
) -> None:
    """Their definition, by which no atom needs splitting: CVaR = max over t of t - E[(t - U)+] / alpha."""
    scores, utilities = problem
    alpha = 1.0 - risk_aversion
    assume(alpha > 1e-3)

    decision = decided(scores, CVaR(risk_aversion=risk_aversion), utilities=utilities)

    for value, row in zip(decision.arithmetic.values, utilities.matrix, strict=True):
        weighed = list(zip(row, decision.probabilities, strict=True))
        best = max(t - math.fsum(p * max(t - u, 0.0) for u, p in weighed) / alpha for t in row)
        assert close(value.value, best, size(utilities) / alpha)


@given(problems(), st.floats(0, 10), st.floats(0, 10))
def test_mean_variance_of_an_action_never_rises_with_risk_aversion(
    problem: tuple[list[Score], Utilities], one: float, other: float
) -> None:
    scores, utilities = problem
    less, more = sorted((one, other))

    bold = values(decided(scores, MeanVariance(risk_aversion=less), utilities=utilities))
    timid = values(decided(scores, MeanVariance(risk_aversion=more), utilities=utilities))

    assert all(after <= before for before, after in zip(bold, timid, strict=True))


@given(problems(), st.integers(-20, 19), shares)
def test_the_unit_of_utility_changes_no_choice_of_expected_utility_or_cvar(
    problem: tuple[list[Score], Utilities], exponent: int, risk_aversion: float
) -> None:
    """The factor is a power of two, by which floating point multiplies exactly, ties included."""
    scores, utilities = problem
    factor = 2.0**exponent
    rows = tuple(tuple(number * factor for number in row) for row in utilities.matrix)
    assume(all(abs(number) > 1e-250 or number == 0 for row in utilities.matrix for number in row))
    scaled = Utilities(utilities.actions, rows)

    for policy in (ExpectedUtility(), CVaR(risk_aversion=risk_aversion)):
        before = decided(scores, policy, utilities=utilities)
        after = decided(scores, policy, utilities=scaled)
        assert before.index == after.index
        assert [value * factor for value in values(before)] == values(after)


@given(problems(), policies)
def test_every_value_is_what_its_terms_add_up_to(
    problem: tuple[list[Score], Utilities], policy: Policy
) -> None:
    scores, utilities = problem
    assume(not isinstance(policy, Greedy | Softmax))

    decision = decided(scores, policy, utilities=utilities)

    for value in decision.arithmetic.values:
        total = math.fsum(term.weight * term.utility for term in value.terms)
        if isinstance(policy, MeanVariance):
            assert value.variance is not None
            total -= policy.risk_aversion / 2 * value.variance
        assert close(value.value, total, abs(total))
        assert close(math.fsum(term.weight for term in value.terms), 1.0)
        assert close(math.fsum(term.probability for term in value.terms), 1.0)
        assert values(decision)[decision.arithmetic.chosen] >= value.value


@given(score_lists(), policies, seeds)
def test_the_same_seed_gives_the_same_decision(scores: list[Score], policy: Policy, seed: int) -> None:
    assert decided(scores, policy, seed=seed) == decided(scores, policy, seed=seed)


@given(score_lists(), temperatures)
def test_a_decision_without_a_seed_is_repeated_by_the_one_it_returns(
    scores: list[Score], temperature: float
) -> None:
    first = decided(scores, Softmax(temperature=temperature))

    assert decided(scores, Softmax(temperature=temperature), seed=first.seed) == first


@given(score_lists(), temperatures, seeds)
def test_softmax_intervals_tile_the_unit_and_the_drawn_one_holds_the_number(
    scores: list[Score], temperature: float, seed: int
) -> None:
    arithmetic = decided(scores, Softmax(temperature=temperature), seed=seed).arithmetic

    intervals = [value.interval for value in arithmetic.values if value.interval is not None]
    assert len(intervals) == len(scores)
    assert (intervals[0][0], intervals[-1][1]) == (0.0, 1.0)
    assert all(before[1] == after[0] for before, after in pairwise(intervals))
    assert arithmetic.uniform is not None
    start, end = intervals[arithmetic.chosen]
    assert start <= arithmetic.uniform < end


@pytest.mark.parametrize(
    ("probabilities", "temperature"),
    [((0.5, 0.3, 0.15, 0.05), 1.0), ((0.5, 0.3, 0.15, 0.05), 2.0), ((0.9, 0.1), 0.5), ((0.2,) * 5, 1.0)],
)
def test_softmax_draws_as_often_as_it_says(probabilities: tuple[float, ...], temperature: float) -> None:
    """Pearson's chi-square of 4,000 seeds stays below its 99.9 % quantile for up to 4 degrees of freedom,
    18.47. The seeds are fixed, so the test gives the same on every machine."""
    scores = [Score(str(index), (math.log(p),)) for index, p in enumerate(probabilities)]
    policy, draws = Softmax(temperature=temperature), 4000
    expected = [draws * value for value in values(decided(scores, policy, seed=0))]

    counts = Counter(decided(scores, policy, seed=seed).index for seed in range(draws))

    assert sum((counts[index] - mean) ** 2 / mean for index, mean in enumerate(expected)) < 18.47


@given(score_lists(), policies, shares, shares, seeds)
def test_a_higher_threshold_never_turns_an_abstention_into_an_action(
    scores: list[Score], policy: Policy, one: float, other: float, seed: int
) -> None:
    low, high = sorted((one, other))

    lenient = decided(scores, replace(policy, abstain_below=low), seed=seed)
    strict = decided(scores, replace(policy, abstain_below=high), seed=seed)

    assert lenient.abstained <= strict.abstained
    assert strict.abstained or strict.index == lenient.index


@given(score_lists(), policies, seeds)
def test_a_policy_abstains_exactly_when_its_confidence_is_below_its_threshold(
    scores: list[Score], policy: Policy, seed: int
) -> None:
    decision = decided(scores, policy, seed=seed)

    assert decision.abstained == (decision.confidence < policy.abstain_below)
    assert (decision.label is None) == decision.abstained
    assert (
        decision.abstained or decision.label == decision.arithmetic.values[decision.arithmetic.chosen].action
    )


@given(score_lists())
def test_identity_utilities_make_expected_utility_the_probability_of_being_right(scores: list[Score]) -> None:
    labels = tuple(score.candidate for score in scores)
    decision = decided(scores, ExpectedUtility(), utilities=identity(labels).rewards)

    assert values(decision) == list(decision.probabilities)
