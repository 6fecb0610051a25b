"""Rules that turn a distribution over outcomes into one action. Layer: decision, pure: standard library only.

The one idea: a rule gives every action one number, reported with the terms it is the sum of, so that it can
be recomputed by hand. The greatest number wins; of equals the action of greater expected utility, then the
first. The terms are few and must be seen one by one, so no library of statistics would shorten the sums.

Sources: expected utility, DeGroot 1970, "Optimal Statistical Decisions"; mean-variance, Markowitz 1952,
"Portfolio Selection", with the factor 1/2 of Pratt 1964, "Risk Aversion in the Small and in the Large"; CVaR,
Rockafellar and Uryasev 2000, "Optimization of Conditional Value-at-Risk", and for discrete distributions
2002, "Conditional Value-at-Risk for General Loss Distributions" (a loss there is a negative utility here);
softmax, Luce 1959, "Individual Choice Behavior"; abstaining, Chow 1970, "On Optimum Recognition Error and
Reject Tradeoff".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from agent_runtime.decision.distribution import Distribution
from agent_runtime.decision.utilities import Lottery, Rewards, Utilities

MAX_RISK_AVERSION = 1e12
"""Of mean-variance: with utilities up to MAX_UTILITY no value overflows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Policy:
    """What every policy has: below this confidence (a probability) no action is taken."""

    abstain_below: float = 0.0
    name: ClassVar[str]
    rule: ClassVar[str]

    def __post_init__(self) -> None:
        _require("abstain_below", self.abstain_below, 0.0 <= self.abstain_below <= 1.0, "from 0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy(_Policy):
    """The likeliest candidate."""

    name: ClassVar[str] = "greedy"
    rule: ClassVar[str] = "argmax over y of P(y)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Softmax(_Policy):
    """One draw from P(y)^(1/temperature), renormalised; the same seed draws the same candidate."""

    temperature: float = 1.0
    name: ClassVar[str] = "softmax"
    rule: ClassVar[str] = (
        "the y whose interval holds the uniform number; its length is P(y)^(1/T), renormalised"
    )

    def __post_init__(self) -> None:
        _Policy.__post_init__(self)
        _require("temperature", self.temperature, 0.0 < self.temperature < math.inf, "positive and finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedUtility(_Policy):
    """The action of greatest expected utility, the Bayes decision."""

    name: ClassVar[str] = "expected_utility"
    rule: ClassVar[str] = "argmax over a of E[U(a)] = sum over y of P(y) U(a, y)"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanVariance(_Policy):
    """Expected utility less (risk_aversion / 2) times the variance of utility.

    `risk_aversion` is the lambda of Markowitz and Pratt, in 1 / unit of utility, 0 to MAX_RISK_AVERSION.
    """

    risk_aversion: float
    name: ClassVar[str] = "mean_variance"
    rule: ClassVar[str] = "argmax over a of E[U(a)] - (risk_aversion / 2) Var[U(a)]"

    def __post_init__(self) -> None:
        _Policy.__post_init__(self)
        allowed = 0.0 <= self.risk_aversion <= MAX_RISK_AVERSION
        _require("risk_aversion", self.risk_aversion, allowed, f"from 0 to {MAX_RISK_AVERSION:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CVaR(_Policy):
    """The action that is best on average over its worst outcomes, the fraction alpha = 1 - risk_aversion.

    `risk_aversion` 0 is expected utility; 1 looks at the worst possible outcome alone. Equal tails are
    common: where every candidate is wrong with a probability of at least alpha, being wrong fills all tails,
    and expected utility decides among them.
    """

    risk_aversion: float
    name: ClassVar[str] = "cvar"
    rule: ClassVar[str] = (
        "argmax over a of CVaR[U(a)], the mean of the worst 1 - risk_aversion of probability; then of E[U(a)]"
    )

    def __post_init__(self) -> None:
        _Policy.__post_init__(self)
        _require("risk_aversion", self.risk_aversion, 0.0 <= self.risk_aversion <= 1.0, "from 0 to 1")


Policy = Greedy | Softmax | ExpectedUtility | MeanVariance | CVaR
Payoffs = Rewards | Utilities


@dataclass(frozen=True, slots=True)
class Term:
    """One possible utility of an action: the probability of all outcomes that give it, and its weight in the
    action's value. The weight is the probability, but for CVaR the share of the tail, 0 outside it."""

    utility: float
    probability: float
    weight: float


@dataclass(frozen=True, slots=True)
class ActionValue:
    """What a rule makes of one action.

    Rules over utilities give `terms`, worst first, and `mean`, the expected utility. Their value is the sum
    of weight * utility over the terms, but for mean-variance mean - (risk_aversion / 2) * variance. Softmax
    gives the `interval` of [0, 1) whose length is the value.
    """

    action: str
    value: float
    terms: tuple[Term, ...] = ()
    mean: float | None = None
    variance: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a policy came to its action: the rule, each action's value, and the index it takes (before
    abstaining is considered). `uniform` is softmax's random number in [0, 1)."""

    rule: str
    values: tuple[ActionValue, ...]
    chosen: int
    uniform: float | None = None


def uses_utilities(policy: Policy) -> bool:
    """Whether the policy weighs utilities; the others look at probabilities alone."""
    return isinstance(policy, ExpectedUtility | MeanVariance | CVaR)


def greedy(labels: Sequence[str], outcomes: Distribution) -> Arithmetic:
    """The likeliest candidate; its value is its probability."""
    pairs = zip(labels, outcomes.probabilities, strict=True)
    return Arithmetic(Greedy.rule, tuple(ActionValue(*pair) for pair in pairs), outcomes.best)


def softmax(labels: Sequence[str], outcomes: Distribution, temperature: float, uniform: float) -> Arithmetic:
    """The candidate in whose interval of the cumulated P(y)^(1/T) the number `uniform` in [0, 1) lies."""
    shares = outcomes.tempered(temperature).probabilities
    last = max(index for index, share in enumerate(shares) if share > 0)
    # Rounding must not leave a gap below 1, nor give a candidate of probability 0 an interval.
    ends = [1.0 if index >= last else min(end, 1.0) for index, end in enumerate(accumulate(shares))]
    values = tuple(
        ActionValue(label, share, interval=interval)
        for label, share, interval in zip(labels, shares, zip([0.0, *ends], ends, strict=False), strict=True)
    )
    chosen = next(index for index, end in enumerate(ends) if uniform < end)
    return Arithmetic(Softmax.rule, values, chosen, uniform)


def expected_utility(payoffs: Payoffs, outcomes: Distribution) -> Arithmetic:
    """EU(a) = sum over y of P(y) U(a, y)."""
    values = tuple(_mean(action, lottery) for action, lottery in _lotteries(payoffs, outcomes))
    return Arithmetic(ExpectedUtility.rule, values, _greatest(values))


def mean_variance(payoffs: Payoffs, outcomes: Distribution, risk_aversion: float) -> Arithmetic:
    """E[U(a)] - (risk_aversion / 2) Var[U(a)]."""
    values = tuple(
        _penalized(action, lottery, risk_aversion) for action, lottery in _lotteries(payoffs, outcomes)
    )
    return Arithmetic(MeanVariance.rule, values, _greatest(values))


def cvar(payoffs: Payoffs, outcomes: Distribution, alpha: float) -> Arithmetic:
    """The mean utility of each action's worst fraction `alpha` of probability, 0 to 1.

    Exact for discrete distributions: the atom that lies across the quantile counts with the part of it that
    fills the tail. At 1 it is the mean, towards 0 the worst outcome of positive probability.
    """
    values = tuple(_tail(action, lottery, alpha) for action, lottery in _lotteries(payoffs, outcomes))
    return Arithmetic(CVaR.rule, values, _greatest(values))


def evaluate(
    policy: Policy, labels: Sequence[str], outcomes: Distribution, payoffs: Payoffs, uniform: float
) -> Arithmetic:
    """The policy's arithmetic. `payoffs` matter to the rules over utilities, `uniform` to softmax."""
    match policy:
        case Greedy():
            return greedy(labels, outcomes)
        case Softmax():
            return softmax(labels, outcomes, policy.temperature, uniform)
        case ExpectedUtility():
            return expected_utility(payoffs, outcomes)
        case MeanVariance():
            return mean_variance(payoffs, outcomes, policy.risk_aversion)
        case CVaR():
            return cvar(payoffs, outcomes, 1.0 - policy.risk_aversion)


def _lotteries(payoffs: Payoffs, outcomes: Distribution) -> Iterable[tuple[str, Lottery]]:
    return zip(payoffs.actions, payoffs.lotteries(outcomes), strict=True)


def _mean(action: str, lottery: Lottery) -> ActionValue:
    mean = _dot(lottery, [probability for _, probability in lottery])
    return ActionValue(action, mean, tuple(Term(utility, p, p) for utility, p in lottery), mean)


def _penalized(action: str, lottery: Lottery, risk_aversion: float) -> ActionValue:
    plain = _mean(action, lottery)
    variance = math.fsum(p * (utility - plain.value) ** 2 for utility, p in lottery)
    value = plain.value - risk_aversion / 2 * variance
    return ActionValue(action, value, plain.terms, plain.value, variance)


def _tail(action: str, lottery: Lottery, alpha: float) -> ActionValue:
    weights = _tail_weights([probability for _, probability in lottery], alpha)
    terms = tuple(Term(*atom, weight) for atom, weight in zip(lottery, weights, strict=True))
    return ActionValue(action, _dot(lottery, weights), terms, _mean(action, lottery).value)


def _tail_weights(probabilities: Sequence[float], alpha: float) -> list[float]:
    """Each atom's share of the first `alpha` of probability; the shares sum to 1."""
    if alpha >= 1.0:
        return list(probabilities)
    if alpha <= 0.0:
        return [1.0] + [0.0] * (len(probabilities) - 1)
    taken, left = [], alpha
    for probability in probabilities:
        taken.append(min(probability, left))
        left -= taken[-1]
    total = math.fsum(taken)  # alpha, but for rounding
    return [part / total for part in taken]


def _dot(lottery: Lottery, weights: Iterable[float]) -> float:
    return math.fsum(weight * utility for (utility, _), weight in zip(lottery, weights, strict=True))


def _greatest(values: Sequence[ActionValue]) -> int:
    """Index of the greatest value; of equals, of the greatest expected utility; of those, the first."""
    return max(range(len(values)), key=lambda index: (values[index].value, values[index].mean or 0.0))


def _require(field: str, value: float, allowed: bool, what: str) -> None:
    if not allowed:
        raise ValueError(f"{field} is {value}; it must be {what}")
