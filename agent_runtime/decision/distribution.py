"""Probabilities of candidate answers, from a model's scores. Layer: decision, pure: standard library only.

The one idea: a language model already is a distribution P(y | x) over whole answers, so restricting it to the
candidates takes one exact division and no sampling. numpy does this arithmetic too, but a request has at most
some hundred numbers, importing it would make the light part of the runtime heavy, and `math.fsum` rounds once
per sum, so the order of the candidates cannot change a probability.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agent_runtime.llm.base import Score

Normalization = Literal["sum", "mean"]
_ROUNDING = 1e-3
"""How far above 0 the logarithm of a probability may come by a model's own rounding."""


class ScoreError(ValueError):
    """The scores make no distribution: a defect of the model or of its API, not of the request."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A probability for each of n >= 1 candidates, in their order.

    `log_probabilities` are natural logarithms, -inf where the probability is 0. `mass` is how much of the
    model's whole distribution the candidates cover, 0 to 1; None where the probabilities are not P(y | x).
    """

    probabilities: tuple[float, ...]
    log_probabilities: tuple[float, ...]
    mass: float | None = None

    @property
    def best(self) -> int:
        """Index of the likeliest candidate, the first of equals."""
        return self.probabilities.index(max(self.probabilities))

    @property
    def margin(self) -> float:
        """Probability of the best candidate minus that of the second best; 1 for a single candidate."""
        if len(self.probabilities) == 1:
            return 1.0
        first, second = sorted(self.probabilities, reverse=True)[:2]
        return first - second

    @property
    def entropy(self) -> float:
        """Shannon's entropy -sum p log p in nats, 0 to log n."""
        terms = zip(self.probabilities, self.log_probabilities, strict=True)
        nats = -math.fsum(p * log_p for p, log_p in terms if p > 0)
        return min(max(nats, 0.0), math.log(len(self.probabilities)))

    @property
    def normalized_entropy(self) -> float:
        """The entropy divided by its maximum log n: 0 is certain, 1 is uniform."""
        n = len(self.probabilities)
        return min(self.entropy / math.log(n), 1.0) if n > 1 else 0.0

    def tempered(self, temperature: float) -> Distribution:
        """p^(1/T), renormalised: T below 1 sharpens, T above 1 flattens, the order stays.

        Raises ValueError unless T is positive and finite.
        """
        return _normalized(self.log_probabilities, temperature)


def distribution(
    scores: Sequence[Score], normalization: Normalization = "sum", temperature: float = 1.0
) -> Distribution:
    """The distribution over candidates that have these scores for one prompt.

    "sum" is P(y | x) / sum over candidates of P(y' | x), with log P(y | x) the sum of the log-probabilities
    of y's tokens: the model's own conditional distribution, which favours short answers because each token
    costs. "mean" divides log P by the number of tokens first (Brown et al. 2020, "Language Models are
    Few-Shot Learners", section 2.4): a ranking that length does not bias, but no longer the model's
    probability. `temperature` T then takes p^(1/T).

    Raises ScoreError when a score is no log-probability or every candidate has probability 0, and ValueError
    for no candidates or a temperature that is not positive and finite.
    """
    weights = [_log_weight(score, normalization) for score in scores]
    mass = _mass(scores) if normalization == "sum" and scores else None
    return _normalized(weights, temperature, mass)


def calibrated(
    scores: Sequence[Score],
    baseline_scores: Sequence[Score],
    normalization: Normalization = "sum",
    temperature: float = 1.0,
) -> Distribution:
    """The distribution proportional to P(y | x) / P(y | baseline), for a prompt without content.

    This is domain-conditional pointwise mutual information, PMI_DC (Holtzman et al. 2021, "Surface Form
    Competition: Why the Highest Probability Answer Isn't Always Right"): it asks how much the prompt raises
    an answer, so answers that are common anywhere win no more by that. With "mean" the logarithm of the
    ratio is divided by the number of tokens.

    Raises as `distribution` does, and ScoreError when the two lists are not of the same candidates.
    """
    if [_shape(score) for score in scores] != [_shape(score) for score in baseline_scores]:
        raise ScoreError("the scores and the baseline's scores are not of the same candidates and tokens")
    pairs = zip(scores, baseline_scores, strict=True)
    weights = [
        _log_ratio(_log_weight(score, normalization), _log_weight(baseline, normalization), score.candidate)
        for score, baseline in pairs
    ]
    return _normalized(weights, temperature)


def _shape(score: Score) -> tuple[str, int]:
    return score.candidate, len(score.token_logprobs)


def _log_weight(score: Score, normalization: Normalization) -> float:
    if not score.logprob <= _ROUNDING:  # so written, it holds for NaN too
        raise ScoreError(f"the log-probability of {score.candidate!r} is {score.logprob}")
    return score.logprob if normalization == "sum" else score.mean_logprob


def _log_ratio(log_p: float, log_baseline: float, candidate: str) -> float:
    if log_p == -math.inf:
        return log_p
    if log_baseline == -math.inf:
        raise ScoreError(f"{candidate!r} has probability 0 after the baseline: there is no ratio")
    return log_p - log_baseline


def _mass(scores: Sequence[Score]) -> float:
    """sum P(y | x), by the stable log-sum-exp; at most 1, where rounding may exceed it."""
    logs = [score.logprob for score in scores]
    top = max(logs)
    if top == -math.inf:
        return 0.0
    return math.exp(min(0.0, top + math.log(math.fsum(math.exp(log - top) for log in logs))))


def _normalized(log_weights: Sequence[float], temperature: float, mass: float | None = None) -> Distribution:
    """exp(w / T) over its sum. The greatest weight is subtracted first, so nothing overflows and one term
    of the sum is exactly 1."""
    if not log_weights:
        raise ValueError("there are no candidates")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; it must be positive and finite")
    top = max(log_weights)
    if top == -math.inf:
        raise ScoreError("every candidate has probability 0")
    scaled = [(weight - top) / temperature for weight in log_weights]
    log_total = math.log(math.fsum(math.exp(weight) for weight in scaled))
    logs = tuple(weight - log_total for weight in scaled)
    return Distribution(tuple(math.exp(log) for log in logs), logs, mass)
