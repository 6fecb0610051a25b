"""Decisions on numbers small enough to check by hand."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from typing import Any

import pytest

from agent_runtime.contract import DecisionConfig
from agent_runtime.decision import (
    CVaR,
    ExpectedUtility,
    Greedy,
    MeanVariance,
    Policy,
    ScoreError,
    Softmax,
    Utilities,
    calibrated,
    candidates_from_samples,
    choose,
    decide,
    distribution,
    policy_from,
)
from agent_runtime.decision.seeds import uniform
from agent_runtime.llm.base import GenerationError, Result, Score, Text
from tests.unit.runtime.table_backend import TableBackend

SUN, RAIN = "sun", "rain"
UMBRELLA = Utilities(("umbrella", "none"), ((-1.0, 2.0), (1.0, -10.0)))
"""Under sun, then under rain: carrying one is a nuisance, getting wet is worse."""


def score(candidate: str, *probabilities: float) -> Score:
    """A score whose tokens have these probabilities."""
    return Score(candidate, tuple(math.log(p) if p > 0 else -math.inf for p in probabilities))


def by_probability(*probabilities: float) -> list[Score]:
    """Candidates named a, b, ... of one token each."""
    return [score("abcdefgh"[index], p) for index, p in enumerate(probabilities)]


def decided(policy: Policy, *probabilities: float, **options: Any) -> Any:
    """A decision among a, b, ... of these probabilities."""
    scores = by_probability(*probabilities)
    return decide([one.candidate for one in scores], scores, policy, **options)


# ---------------------------------------------------------------- the distribution


def test_the_sum_is_the_models_own_distribution_over_the_candidates() -> None:
    found = distribution([score("yes", 0.4, 0.5), score("no", 0.3)])  # 0.2 and 0.3

    assert found.probabilities == pytest.approx((0.4, 0.6))
    assert found.log_probabilities == pytest.approx((math.log(0.4), math.log(0.6)))


def test_the_mean_does_not_punish_length() -> None:
    long, short = score("yes indeed", 0.5, 0.5, 0.5, 0.5), score("no", 0.25)

    assert distribution([long, short], "sum").probabilities == pytest.approx((0.2, 0.8))
    assert distribution([long, short], "mean").probabilities == pytest.approx((2 / 3, 1 / 3))


def test_the_mass_tells_how_much_of_the_model_the_candidates_cover() -> None:
    assert distribution([score("yes", 0.4, 0.5), score("no", 0.3)]).mass == pytest.approx(0.5)


def test_there_is_no_mass_where_the_numbers_are_not_the_models_probabilities() -> None:
    scores = by_probability(0.2, 0.3)

    assert distribution(scores, "mean").mass is None
    assert calibrated(scores, scores).mass is None


def test_rounding_does_not_give_a_mass_above_one() -> None:
    slightly_more = [Score("a", (math.log(0.5) + 1e-9,)), Score("b", (math.log(0.5) + 1e-9,))]

    assert distribution(slightly_more).mass == 1.0


def test_a_low_temperature_sharpens_and_a_high_one_flattens() -> None:
    scores = by_probability(0.1, 0.3)

    assert distribution(scores, temperature=0.5).probabilities == pytest.approx((0.1, 0.9))
    assert distribution(scores, temperature=1e9).probabilities == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-3, 1e300])
def test_no_temperature_overflows(temperature: float) -> None:
    found = distribution([Score("a", (-1e4,)), Score("b", (-2e4,))], temperature=temperature)

    assert math.fsum(found.probabilities) == pytest.approx(1)


def test_long_answers_underflow_nothing() -> None:
    found = distribution([Score("a", (-4000.0,)), Score("b", (-4000.0 + math.log(3),))])

    assert found.probabilities == pytest.approx((0.25, 0.75))
    assert found.mass == 0.0


def test_an_impossible_candidate_has_probability_zero_and_harms_no_other() -> None:
    found = distribution([score("a", 0.0), score("b", 0.2), score("c", 0.2)])

    assert found.probabilities == (0.0, 0.5, 0.5)
    assert found.log_probabilities[0] == -math.inf
    assert found.entropy == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    "scores",
    [
        [Score("a", (math.nan,)), Score("b", (-1.0,))],
        [Score("a", (math.inf,)), Score("b", (-1.0,))],
        [Score("a", (0.5,)), Score("b", (-1.0,))],
        [Score("a", (-math.inf,)), Score("b", (-math.inf,))],
    ],
)
def test_scores_that_are_no_distribution_are_refused_and_not_decided_on(scores: list[Score]) -> None:
    with pytest.raises(ScoreError):
        decide(["a", "b"], scores)


def test_no_candidates_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no candidates"):
        distribution([])


def test_entropy_and_margin_of_a_known_distribution() -> None:
    found = distribution(by_probability(0.5, 0.25, 0.25))

    assert found.entropy == pytest.approx(1.5 * math.log(2))
    assert found.normalized_entropy == pytest.approx(1.5 * math.log(2) / math.log(3))
    assert found.margin == pytest.approx(0.25)


def test_a_single_candidate_is_certain() -> None:
    found = distribution(by_probability(0.01))

    assert (found.probabilities, found.entropy, found.normalized_entropy, found.margin) == ((1.0,), 0, 0, 1)
    assert found.mass == pytest.approx(0.01)


# ---------------------------------------------------------------- calibration


def test_calibration_takes_the_advantage_of_common_answers_away() -> None:
    after_question = [score("the", 0.4), score("Paris", 0.2)]
    after_nothing = [score("the", 0.5), score("Paris", 0.01)]

    found = calibrated(after_question, after_nothing)

    assert found.probabilities == pytest.approx((0.8 / 20.8, 20 / 20.8))


def test_calibration_by_the_mean_divides_the_ratio_by_the_tokens() -> None:
    found = calibrated(
        [score("a b", 0.5, 0.5), score("c", 0.5)], [score("a b", 0.25, 0.25), score("c", 0.25)]
    )
    by_mean = calibrated(
        [score("a b", 0.5, 0.5), score("c", 0.5)], [score("a b", 0.25, 0.25), score("c", 0.25)], "mean"
    )

    assert found.probabilities == pytest.approx((2 / 3, 1 / 3))
    assert by_mean.probabilities == pytest.approx((0.5, 0.5))


def test_a_baseline_of_other_candidates_is_refused() -> None:
    with pytest.raises(ScoreError):
        calibrated(by_probability(0.5, 0.5), [score("a", 0.5), score("z", 0.5)])


def test_an_answer_impossible_after_the_baseline_has_no_ratio() -> None:
    with pytest.raises(ScoreError, match="'b'"):
        calibrated(by_probability(0.5, 0.5), by_probability(0.5, 0.0))


def test_an_impossible_answer_stays_impossible_whatever_the_baseline() -> None:
    assert calibrated(by_probability(0.5, 0.0), by_probability(0.5, 0.0)).probabilities == (1.0, 0.0)


# ---------------------------------------------------------------- policies


def test_greedy_takes_the_likeliest_and_of_equals_the_first() -> None:
    assert decided(Greedy(), 0.2, 0.4, 0.4).label == "b"


def test_a_decision_without_a_policy_is_greedy() -> None:
    assert decide(["a", "b"], by_probability(0.1, 0.2)).policy == Greedy()


def test_softmax_lays_the_candidates_side_by_side_and_takes_the_one_that_is_hit() -> None:
    decision = decided(Softmax(), 0.5, 0.3, 0.2, seed=7)

    intervals = [value.interval for value in decision.arithmetic.values]
    start, end = intervals[decision.index]
    assert intervals == [pytest.approx(part) for part in ((0, 0.5), (0.5, 0.8), (0.8, 1))]
    assert start <= decision.arithmetic.uniform < end
    assert decision.confidence == pytest.approx((0.5, 0.3, 0.2)[decision.index])


def test_the_random_number_of_a_seed_can_be_recomputed_anywhere() -> None:
    first_bits = int(hashlib.sha256(b"decision/7").hexdigest()[:16], 16) >> 11

    assert uniform(7) == first_bits / 2**53
    assert uniform(7) == 0.7104107409475929
    assert uniform(-7) != uniform(7)


def test_softmax_draws_from_the_tempered_distribution_but_its_confidence_is_the_models() -> None:
    decision = decided(Softmax(temperature=0.5), 0.1, 0.3, seed=1)

    assert [value.value for value in decision.arithmetic.values] == pytest.approx([0.1, 0.9])
    assert decision.confidence in decision.probabilities


def test_softmax_never_draws_the_impossible() -> None:
    drawn = {decided(Softmax(), 0.0, 0.5, 0.0, 0.5, 0.0, seed=seed).label for seed in range(200)}

    assert drawn == {"b", "d"}


def test_softmax_without_a_seed_returns_the_one_it_drew() -> None:
    decision = decided(Softmax(), 0.25, 0.25, 0.25, 0.25)

    again = decided(Softmax(), 0.25, 0.25, 0.25, 0.25, seed=decision.seed)

    assert decision == again


def test_a_rule_that_draws_nothing_has_no_seed_of_its_own() -> None:
    assert decided(Greedy(), 0.5, 0.5).seed is None
    assert decided(Greedy(), 0.5, 0.5, seed=3).seed == 3


def test_expected_utility_may_act_against_the_likeliest_outcome() -> None:
    scores = [score(SUN, 0.7), score(RAIN, 0.3)]

    decision = decide([SUN, RAIN], scores, ExpectedUtility(), utilities=UMBRELLA)

    umbrella, none = decision.arithmetic.values
    assert (decision.index, decision.label) == (0, "umbrella")
    assert (umbrella.value, none.value) == (pytest.approx(-0.1), pytest.approx(-2.3))
    assert [(term.utility, term.weight) for term in none.terms] == [
        (-10.0, pytest.approx(0.3)),
        (1.0, pytest.approx(0.7)),
    ]
    assert decision.confidence == pytest.approx(0.7)


def test_a_vector_of_rewards_pays_for_being_right() -> None:
    decision = decided(ExpectedUtility(), 0.6, 0.4, utilities=[1.0, 2.0])

    assert decision.label == "b"
    assert [value.value for value in decision.arithmetic.values] == pytest.approx([0.6, 0.8])


def test_outcomes_of_the_same_utility_are_one_term() -> None:
    decision = decided(ExpectedUtility(), 0.2, 0.3, 0.5)

    terms = decision.arithmetic.values[0].terms
    assert [(term.utility, term.probability) for term in terms] == [
        (0.0, pytest.approx(0.8)),
        (1.0, pytest.approx(0.2)),
    ]


def test_mean_variance_pays_for_certainty() -> None:
    gamble_or_safe = Utilities(("gamble", "safe"), ((10.0, 0.0), (4.0, 4.0)))

    neutral = decided(MeanVariance(risk_aversion=0.0), 0.5, 0.5, utilities=gamble_or_safe)
    averse = decided(MeanVariance(risk_aversion=0.1), 0.5, 0.5, utilities=gamble_or_safe)

    gamble = averse.arithmetic.values[0]
    assert (neutral.label, averse.label) == ("gamble", "safe")
    assert (gamble.mean, gamble.variance, gamble.value) == pytest.approx((5.0, 25.0, 5.0 - 0.05 * 25.0))


def test_cvar_splits_the_outcome_across_the_quantile() -> None:
    one_action = Utilities(("act",), ((-10.0, 0.0, 5.0),))

    decision = decided(CVaR(risk_aversion=0.6), 0.3, 0.5, 0.2, utilities=one_action)

    (act,) = decision.arithmetic.values
    assert act.value == pytest.approx(0.3 / 0.4 * -10 + 0.1 / 0.4 * 0)
    assert [term.weight for term in act.terms] == pytest.approx([0.75, 0.25, 0.0])
    assert act.mean == pytest.approx(-2.0)


def test_cvar_of_full_aversion_is_the_worst_possible_outcome() -> None:
    actions = Utilities(("bold", "careful"), ((-100.0, -5.0, 9.0), (-100.0, -4.0, 1.0)))

    decision = decided(CVaR(risk_aversion=1.0), 0.0, 0.01, 0.99, utilities=actions)

    assert decision.label == "careful"
    assert [value.value for value in decision.arithmetic.values] == [-5.0, -4.0]


def test_cvar_without_aversion_is_expected_utility() -> None:
    averse, neutral = CVaR(risk_aversion=0.0), ExpectedUtility()

    one = decided(averse, 0.3, 0.7, utilities=UMBRELLA)
    other = decided(neutral, 0.3, 0.7, utilities=UMBRELLA)

    assert one.arithmetic.values == other.arithmetic.values


def test_when_every_tail_is_equally_bad_expected_utility_decides_and_not_the_order() -> None:
    decision = decided(CVaR(risk_aversion=0.5), 0.2, 0.3, 0.4)

    assert [value.value for value in decision.arithmetic.values] == [0.0, 0.0, 0.0]
    assert decision.label == "c"


# ---------------------------------------------------------------- abstaining


@pytest.mark.parametrize("policy", [Greedy(abstain_below=0.5), ExpectedUtility(abstain_below=0.5)])
def test_too_little_confidence_takes_no_action_and_says_so(policy: Policy) -> None:
    decision = decided(policy, 0.2, 0.2, 0.1)

    assert (decision.index, decision.label, decision.abstained) == (None, None, True)
    assert "confidence 0.4 is below 0.5" in decision.reason
    assert decision.arithmetic.chosen == 0


def test_confidence_at_the_threshold_acts() -> None:
    assert decided(Greedy(abstain_below=0.5), 0.5, 0.5).label == "a"


def test_softmax_abstains_by_the_probability_of_what_it_drew() -> None:
    decisions = [decided(Softmax(abstain_below=0.5), 0.7, 0.3, seed=seed) for seed in range(50)]

    assert {decision.label for decision in decisions} == {"a", None}
    assert all(decision.abstained == (decision.arithmetic.chosen == 1) for decision in decisions)


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Greedy(abstain_below=1.1), "abstain_below"),
        (lambda: Greedy(abstain_below=math.nan), "abstain_below"),
        (lambda: Softmax(temperature=0.0), "temperature"),
        (lambda: Softmax(temperature=math.inf), "temperature"),
        (lambda: Softmax(temperature=1.0, abstain_below=-0.1), "abstain_below"),
        (lambda: MeanVariance(risk_aversion=-1.0), "risk_aversion"),
        (lambda: CVaR(risk_aversion=1.5), "risk_aversion"),
        (lambda: CVaR(risk_aversion=math.nan), "risk_aversion"),
        (lambda: Utilities(("a",), ((math.nan,),)), "utility"),
        (lambda: Utilities(("a",), ((1e13,),)), "utility"),
        (lambda: Utilities(("a", "b"), ((1.0,),)), "2 actions"),
        (lambda: Utilities(("a", "b"), ((1.0, 2.0), (1.0,))), "'b'"),
        (lambda: decided(ExpectedUtility(), 0.5, 0.5, utilities=[1.0]), "1 rewards for 2"),
        (lambda: decided(ExpectedUtility(), 0.2, 0.2, 0.2, utilities=UMBRELLA), "for 3 candidates"),
        (lambda: decided(Greedy(), 0.5, 0.5, utilities=[1.0, 2.0]), "greedy"),
        (lambda: decide(["a"], by_probability(0.5, 0.5)), "1 labels for 2"),
        (lambda: choose(["a"], distribution(by_probability(1.0)), Softmax()), "seed"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(make: Any, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        make()


@pytest.mark.parametrize(
    ("config", "policy"),
    [
        (None, Greedy()),
        (DecisionConfig(), Greedy()),
        (DecisionConfig(abstain_below=0.2), Greedy(abstain_below=0.2)),
        (DecisionConfig(policy="Softmax", temperature=0.7), Softmax(temperature=0.7)),
        (DecisionConfig(policy="ExpectedUtility", abstain_below=0.1), ExpectedUtility(abstain_below=0.1)),
        (DecisionConfig(policy="ExpectedUtility", risk_aversion=0.3), MeanVariance(risk_aversion=0.6)),
        (DecisionConfig(policy="CVaR", risk_aversion=0.3), CVaR(risk_aversion=0.3)),
    ],
)
def test_the_configured_policy_is_the_one_taken(config: DecisionConfig | None, policy: Policy) -> None:
    assert policy_from(config) == policy


def test_the_decision_model_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'starlette'} & sys.modules.keys()"
    program = f"import sys, agent_runtime.decision; print(sorted({heavy}))"

    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert found.stdout.strip() == "[]"


# ---------------------------------------------------------------- candidates


def answer(text: str, finish: Any = "stop", tokens: int = 3) -> Result:
    """A finished generation."""
    return Result(text, finish, 5, tokens)


async def test_sampled_answers_become_candidates_once_each_and_only_when_complete() -> None:
    drawn = [answer("Paris"), answer("Lyon"), answer("Paris"), answer("Par", "length"), answer(" Lyon ")]
    backend = TableBackend({}, drawn)

    samples = await candidates_from_samples(
        backend, backend.encode(Text("?")), n=5, temperature=0.8, seed=1, max_tokens=9, deadline=50.0
    )

    assert samples.texts == ("Paris", "Lyon")
    assert (samples.completion_tokens, samples.unfinished) == (15, 1)
    assert {(one.temperature, one.max_tokens) for one in backend.samplings} == {(0.8, 9)}
    assert backend.deadlines == [50.0] * 5


async def test_each_draw_has_a_seed_of_its_own_that_the_one_seed_repeats() -> None:
    async def seeds(seed: int) -> list[int | None]:
        backend = TableBackend({}, [answer("x")])
        encoded = backend.encode(Text("?"))
        await candidates_from_samples(backend, encoded, n=8, temperature=1.0, seed=seed, max_tokens=9)
        return [sampling.seed for sampling in backend.samplings]

    assert await seeds(1) == await seeds(1)
    assert len({*await seeds(1), *await seeds(2)}) == 16


async def test_when_one_draw_fails_the_others_are_cancelled() -> None:
    failure = GenerationError("the device is lost")
    backend = TableBackend({}, [None, failure, None])
    encoded = backend.encode(Text("?"))

    with pytest.raises(GenerationError, match="the device is lost"):
        await candidates_from_samples(backend, encoded, n=3, temperature=1.0, seed=1, max_tokens=9)

    assert [generation.cancelled for generation in backend.generations] == [True, True, True]
