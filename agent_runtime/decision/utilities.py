"""What actions are worth, outcome by outcome. Layer: decision, pure: standard library only.

The one idea: under a distribution over outcomes an action is a lottery, a short list of (utility,
probability) pairs, and every rule over utilities looks at nothing else. Utilities are in any one unit,
greater is better.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent_runtime.decision.distribution import Distribution

MAX_UTILITY = 1e12
"""Largest magnitude, so that squares and products stay far from overflow."""

Lottery = Sequence[tuple[float, float]]
"""(utility, probability) pairs: utilities distinct and ascending, probabilities positive, their sum 1."""


@dataclass(frozen=True, slots=True)
class Rewards:
    """U(a, y) = rewards[a] when a = y, else 0: the actions are the candidates, a right one earns its reward.

    Raises ValueError for a wrong number of rewards or one beyond MAX_UTILITY.
    """

    actions: tuple[str, ...]
    rewards: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.rewards) != len(self.actions):
            raise ValueError(f"{len(self.rewards)} rewards for {len(self.actions)} candidates")
        _check(self.rewards)

    @property
    def outcomes(self) -> int:
        """How many candidates these are utilities for."""
        return len(self.actions)

    def lotteries(self, outcomes: Distribution) -> Iterable[Lottery]:
        """One for each action."""
        every = outcomes.probabilities
        for index, reward in enumerate(self.rewards):
            atoms = {0.0: [*every[:index], *every[index + 1 :]]}
            atoms.setdefault(reward, []).append(every[index])
            yield _lottery(atoms)


@dataclass(frozen=True, slots=True)
class Utilities:
    """U(a, y) = matrix[a][y], for actions that need not be candidates.

    Raises ValueError for rows of different lengths or a number beyond MAX_UTILITY.
    """

    actions: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if not self.actions or len(self.matrix) != len(self.actions):
            raise ValueError(f"{len(self.matrix)} rows of utilities for {len(self.actions)} actions")
        for action, row in zip(self.actions, self.matrix, strict=True):
            if len(row) != self.outcomes:
                raise ValueError(f"action {action!r} has {len(row)} utilities, others {self.outcomes}")
            _check(row)

    @property
    def outcomes(self) -> int:
        """How many candidates these are utilities for."""
        return len(self.matrix[0])

    def lotteries(self, outcomes: Distribution) -> Iterable[Lottery]:
        """One for each action."""
        for row in self.matrix:
            atoms: dict[float, list[float]] = {}
            for utility, probability in zip(row, outcomes.probabilities, strict=True):
                atoms.setdefault(utility, []).append(probability)
            yield _lottery(atoms)


def identity(labels: Sequence[str]) -> Rewards:
    """1 for the truth and 0 for anything else: expected utility is then the probability of being right."""
    return Rewards(tuple(labels), (1.0,) * len(labels))


def _lottery(atoms: Mapping[float, Sequence[float]]) -> Lottery:
    """From the probabilities of the outcomes behind each utility."""
    summed = ((utility, math.fsum(parts)) for utility, parts in atoms.items())
    return sorted((utility, probability) for utility, probability in summed if probability > 0)


def _check(utilities: Iterable[float]) -> None:
    for utility in utilities:
        if not abs(utility) <= MAX_UTILITY:  # so written, it holds for NaN too
            raise ValueError(f"a utility is {utility}; it must be from -{MAX_UTILITY:g} to {MAX_UTILITY:g}")
