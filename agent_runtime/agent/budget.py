"""Hard budgets: what may still be started. Layer: agent, pure.

The one idea: a budget is checked before, against the most that could be used, so it is never exceeded; what
would exceed it is not started. A generation is given as many tokens as are left, and fails the check only
when that is none.

The counts are exact where the backend tokenises here. Where it estimates (a remote model), the tokens that
its answer reports count, so the last generation can go over by the error of the estimate; after it nothing
starts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from agent_runtime.agent.commands import Budget
from agent_runtime.agent.run import Run, Use
from agent_runtime.contract import Prices, RunLimits


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many tokens a generation may have, and the budget that allows no more."""

    max_tokens: int
    limited_by: Budget | None = None


def used_up(run: Run) -> Budget | None:
    """The budget that forbids whatever comes next: it is used up."""
    return _over(run, run.use, at_least_one_token=True)


def forbids_step(run: Run) -> Budget | None:
    """The budget that forbids another step."""
    if run.use.steps >= run.spec.limits.max_steps:
        return "max_steps"
    return used_up(run)


def forbids_call(run: Run) -> Budget | None:
    """The budget that forbids another tool call."""
    use = run.use.model_copy(update={"tool_calls": run.use.tool_calls + 1})
    if use.tool_calls > run.spec.limits.max_tool_calls:
        return "max_tool_calls"
    return _over(run, use, at_least_one_token=False)


def forbids_reading(run: Run, tokens: int) -> Budget | None:
    """The budget that forbids reading this many tokens."""
    use = run.use.model_copy(update={"input_tokens": run.use.input_tokens + tokens})
    return _over(run, use, at_least_one_token=False)


def allowance(run: Run, prompt_tokens: int, room: int | None = None) -> Allowance:
    """What is left for an answer to a prompt of this length; 0 tokens when it must not be started. `room` is
    what the model's context leaves."""
    limits, prices = run.spec.limits, run.spec.prices
    if (forbidding := forbids_reading(run, prompt_tokens)) is not None:
        return Allowance(0, forbidding)
    use = run.use.model_copy(update={"input_tokens": run.use.input_tokens + prompt_tokens})
    best = Allowance(run.spec.max_output_tokens if room is None else min(room, run.spec.max_output_tokens))
    if (left := limits.max_tokens - use.tokens) < best.max_tokens:
        best = Allowance(left, "max_tokens")
    if (affordable := _affordable(use, limits, prices)) < best.max_tokens:
        best = Allowance(affordable, "max_cost")
    return best


def _affordable(use: Use, limits: RunLimits, prices: Prices) -> int:
    """How many output tokens the money is enough for."""
    price = prices.per_million_output_tokens / 1e6
    if limits.max_cost is None or price == 0:
        return limits.max_tokens
    tokens = math.floor(min((limits.max_cost - use.cost(prices)) / price, limits.max_tokens))
    while tokens > 0 and _costs(use, prices, tokens) > limits.max_cost:
        tokens -= 1  # the division rounded up
    return max(tokens, 0)


def _costs(use: Use, prices: Prices, output_tokens: int) -> float:
    return use.model_copy(update={"output_tokens": use.output_tokens + output_tokens}).cost(prices)


def _over(run: Run, use: Use, *, at_least_one_token: bool) -> Budget | None:
    limits = run.spec.limits
    if use.seconds >= limits.timeout_seconds:
        return "timeout_seconds"
    if use.tokens + at_least_one_token > limits.max_tokens:
        return "max_tokens"
    if limits.max_cost is not None and use.cost(run.spec.prices) > limits.max_cost:
        return "max_cost"
    return None
