"""The commands that load a model, answer in the terminal and end. Layer: entry point.

The one idea: they are the façade and nothing more, so what the terminal shows is what a program gets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from agent_runtime import decision
from agent_runtime.agent.agent import Agent
from agent_runtime.llm.chat import Message
from agent_runtime.llm.failures import LoadError
from agent_runtime.observability import logging as runtime_logging


def talk(options: argparse.Namespace) -> int:
    """The commands that load a model, answer in the terminal and end."""
    runtime_logging.configure("error", sys.stderr)
    try:
        agent = Agent.from_pretrained(options.model)
    except LoadError as failure:
        print(f"{failure.report.code}: {failure.report.message}\n{failure.report.remedy}", file=sys.stderr)
        return 1
    with agent:
        return {"ask": _ask, "chat": _chat, "decide": _decide}[options.command](agent, options)


def _ask(agent: Agent, options: argparse.Namespace) -> int:
    print(agent.generate_text(options.question, max_new_tokens=options.max_new_tokens))
    return 0


def _chat(agent: Agent, options: argparse.Namespace) -> int:
    conversation: list[Message] = []
    interactive = sys.stdin.isatty()
    while True:
        try:
            question = input("> " if interactive else "").strip()
        except (EOFError, KeyboardInterrupt):
            return 0
        if not question:
            continue
        conversation.append(Message("user", question))
        answer = agent.chat(conversation, max_new_tokens=options.max_new_tokens)
        conversation.append(Message("assistant", answer))
        print(answer, flush=True)


def _decide(agent: Agent, options: argparse.Namespace) -> int:
    policies: dict[str, Callable[[], decision.Policy]] = {
        "greedy": decision.Greedy,
        "softmax": lambda: decision.Softmax(temperature=options.temperature),
        "expected_utility": decision.ExpectedUtility,
        "mean_variance": lambda: decision.MeanVariance(risk_aversion=options.risk_aversion),
        "cvar": lambda: decision.CVaR(risk_aversion=options.risk_aversion),
    }
    try:
        made = agent.decide(
            options.question, options.candidates, policy=policies[options.policy](),
            utilities=options.rewards, seed=options.seed,
        )  # fmt: skip
    except ValueError as error:
        print(f"agent-runtime decide: {error}", file=sys.stderr)
        return 2
    for label, probability in zip(options.candidates, made.probabilities, strict=True):
        mark = "*" if label == made.label else " "
        print(f"{mark} {probability:7.2%}  {label}")
    print(made.reason)
    return 0
