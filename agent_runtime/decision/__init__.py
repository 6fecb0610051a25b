"""The agent's decision model: from P(y | x) over candidate actions to one of them. Layer: decision.

The one idea: a decision is a pure function of scores, a policy, utilities and a seed, and it carries the
arithmetic that made it, so anybody can repeat it and check it by hand. `distribution` makes probabilities,
`utilities` says what actions are worth, `policies` choose, `candidates` proposes when there is nothing to
choose from, `seeds` makes chance repeatable. Imports the standard library, `agent_runtime.contract` and the
light parts of `agent_runtime.llm`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent_runtime.contract import DecisionConfig
from agent_runtime.decision.candidates import Samples, candidates_from_samples
from agent_runtime.decision.distribution import (
    Distribution,
    Normalization,
    ScoreError,
    calibrated,
    distribution,
)
from agent_runtime.decision.policies import (
    ActionValue,
    Arithmetic,
    CVaR,
    ExpectedUtility,
    Greedy,
    MeanVariance,
    Policy,
    Softmax,
    Term,
    evaluate,
    uses_utilities,
)
from agent_runtime.decision.seeds import new_seed, uniform
from agent_runtime.decision.utilities import Rewards, Utilities, identity
from agent_runtime.llm.base import Score

__all__ = [
    "ActionValue",
    "Arithmetic",
    "CVaR",
    "Decision",
    "Distribution",
    "ExpectedUtility",
    "Greedy",
    "MeanVariance",
    "Normalization",
    "Policy",
    "Samples",
    "ScoreError",
    "Softmax",
    "Term",
    "Utilities",
    "calibrated",
    "candidates_from_samples",
    "choose",
    "decide",
    "distribution",
    "new_seed",
    "policy_from",
    "uses_utilities",
]


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, how sure the model is, and how the policy came to it.

    `index` and `label` name the chosen action (among the utilities' actions where those were given, else
    among the candidates); both are None when the policy abstained. `reason` says why, either way.
    `confidence` is the probability of the chosen candidate, and of the likeliest one for policies over
    utilities, whose actions need not be candidates. `labels` and `outcomes` are in the candidates' order.
    `seed` is the one given, else the one drawn, else None because nothing was left to chance.
    """

    index: int | None
    label: str | None
    reason: str
    confidence: float
    labels: tuple[str, ...]
    outcomes: Distribution
    policy: Policy
    arithmetic: Arithmetic
    seed: int | None = None

    @property
    def abstained(self) -> bool:
        """No action was taken."""
        return self.index is None

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The candidates' probabilities; they sum to 1."""
        return self.outcomes.probabilities

    @property
    def log_probabilities(self) -> tuple[float, ...]:
        """Their natural logarithms."""
        return self.outcomes.log_probabilities

    @property
    def entropy(self) -> float:
        """In nats."""
        return self.outcomes.entropy

    @property
    def normalized_entropy(self) -> float:
        """0 (certain) to 1 (uniform)."""
        return self.outcomes.normalized_entropy

    @property
    def margin(self) -> float:
        """Between the two likeliest candidates' probabilities."""
        return self.outcomes.margin

    @property
    def mass(self) -> float | None:
        """Share of the model's whole distribution that the candidates cover; near 0, the right one may be
        missing."""
        return self.outcomes.mass


def decide(
    labels: Sequence[str],
    scores: Sequence[Score],
    policy: Policy | None = None,
    *,
    utilities: Utilities | Sequence[float] | None = None,
    seed: int | None = None,
    normalization: Normalization = "sum",
    baseline_scores: Sequence[Score] | None = None,
) -> Decision:
    """Chooses among candidates by their scores; greedily without a policy.

    `utilities` is one reward per candidate (earned when the chosen one is the truth) or a whole matrix, and
    by default 1 for the truth and 0 otherwise. `baseline_scores` calibrate (see `calibrated`). Where the
    policy draws and no seed is given, one is drawn and returned: the only effect of this function.

    Raises ScoreError when the scores make no distribution, ValueError when the arguments do not fit together.
    """
    if len(labels) != len(scores):
        raise ValueError(f"{len(labels)} labels for {len(scores)} scores")
    if baseline_scores is None:
        outcomes = distribution(scores, normalization)
    else:
        outcomes = calibrated(scores, baseline_scores, normalization)
    if policy is None:
        policy = Greedy()
    if seed is None and isinstance(policy, Softmax):
        seed = new_seed()
    return choose(labels, outcomes, policy, utilities, seed)


def choose(
    labels: Sequence[str],
    outcomes: Distribution,
    policy: Policy,
    utilities: Utilities | Sequence[float] | None = None,
    seed: int | None = None,
) -> Decision:
    """`decide` for a distribution that is already there; pure, so softmax needs a seed. Raises ValueError."""
    if isinstance(policy, Softmax) and seed is None:
        raise ValueError("the softmax policy needs a seed")
    if utilities is not None and not uses_utilities(policy):
        raise ValueError(f"the policy {policy.name} looks at probabilities alone and takes no utilities")
    payoffs = _payoffs(labels, utilities)
    arithmetic = evaluate(policy, labels, outcomes, payoffs, uniform(seed) if seed is not None else 0.0)
    chosen = arithmetic.values[arithmetic.chosen]
    confidence = max(outcomes.probabilities)
    if not uses_utilities(policy):
        confidence = outcomes.probabilities[arithmetic.chosen]
    index: int | None = arithmetic.chosen
    label: str | None = chosen.action
    reason = f"{chosen.action!r} {_BECAUSE[policy.name]} {chosen.value:.6g}"
    if confidence < policy.abstain_below:
        index = label = None
        reason = f"abstained: confidence {confidence:.6g} is below {policy.abstain_below:.6g}; else {reason}"
    return Decision(index, label, reason, confidence, tuple(labels), outcomes, policy, arithmetic, seed)


def policy_from(config: DecisionConfig | None) -> Policy:
    """The policy an agent is configured with; greedy when nothing is.

    ExpectedUtility with a risk aversion r > 0 is E - r Var, which is mean-variance with lambda = 2 r.
    """
    if config is None:
        return Greedy()
    below, aversion = config.abstain_below, config.risk_aversion
    match config.policy:
        case "Greedy":
            return Greedy(abstain_below=below)
        case "Softmax":
            return Softmax(temperature=config.temperature, abstain_below=below)
        case "CVaR":
            return CVaR(risk_aversion=aversion, abstain_below=below)
        case "ExpectedUtility" if aversion > 0:
            return MeanVariance(risk_aversion=2 * aversion, abstain_below=below)
        case "ExpectedUtility":
            return ExpectedUtility(abstain_below=below)


_BECAUSE = {
    Greedy.name: "has the greatest probability,",
    Softmax.name: "was drawn with probability",
    ExpectedUtility.name: "has the greatest expected utility,",
    MeanVariance.name: "has the greatest mean less weighted variance,",
    CVaR.name: "has the greatest mean of its worst outcomes,",
}


def _payoffs(labels: Sequence[str], utilities: Utilities | Sequence[float] | None) -> Rewards | Utilities:
    if utilities is None:
        return identity(labels)
    if not isinstance(utilities, Utilities):
        return Rewards(tuple(labels), tuple(utilities))
    if utilities.outcomes != len(labels):
        raise ValueError(f"{utilities.outcomes} utilities per action for {len(labels)} candidates")
    return utilities
