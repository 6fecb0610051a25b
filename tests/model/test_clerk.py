"""The committed dialogues give a model that uses tools: it says what it looked up, whatever that is."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from agent_runtime import Agent
from agent_runtime.agent.commands import Plan
from agent_runtime.agent.prompts import prompt
from agent_runtime.agent.run import ANSWER, RunSpec
from agent_runtime.agent.tools.functions import function_tool
from agent_runtime.llm.base import Chat
from agent_runtime.llm.chat import Message, ToolCall
from tests.model.training import CLERK, trained

HELD_OUT_AT_LEAST = 0.90


def stock(item: str) -> str:
    """How many are left."""
    return f"{ {'lamps': 12}.get(item, 5) } left"


def price(item: str) -> str:
    """What one costs."""
    return f"{ {'lamps': 49}.get(item, 35) } euros"


@pytest.fixture(scope="module")
def dialogues() -> ModuleType:
    """The script that prints the dataset."""
    spec = importlib.util.spec_from_file_location("dialogues", CLERK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder() -> Path:
    """The trained model; about two minutes the first time."""
    return trained(CLERK)


@pytest.fixture(scope="module")
def clerk(folder: Path) -> Iterator[Agent]:
    with Agent.from_pretrained(str(folder), tools=[stock, price]) as agent:
        yield agent


@pytest.mark.parametrize(("form", "arguments"), [("plain", "item: lamps"), ("function", '{"item":"lamps"}')])
def test_the_dialogues_are_the_prompts_of_a_run(dialogues: ModuleType, form: str, arguments: str) -> None:
    tools = tuple(function_tool(function).spec for function in (stock, price))
    spec = RunSpec.model_construct(tools=tools, grammar=form == "function")
    asked = "How many lamps are there, and what do they cost?"
    messages = [Message("user", asked)]

    def shown(plan: Plan) -> str:
        chat = prompt(plan, messages, spec)
        assert isinstance(chat, Chat)
        return chat.messages[-1].content

    expected = []
    for tool, result in (("stock", "12 left"), ("price", "49 euros")):
        expected.append(shown(Plan(purpose="decide", candidates=("stock", "price", ANSWER))))
        expected.append(shown(Plan(purpose="arguments", tool=tool)))
        called = ToolCall("call_1", tool, json.dumps({"item": "lamps"}))
        messages += [Message("assistant", "", (called,)), Message("tool", result, tool_call_id="call_1")]
    expected.append(shown(Plan(purpose="decide", candidates=("stock", "price", ANSWER))))
    expected.append(shown(Plan(purpose="answer")))

    rows = list(dialogues.dialogue(asked, "lamps", {"stock": "12 left", "price": "49 euros"}, form))

    assert [row["question"] for row in rows] == expected
    assert [row["answer"] for row in rows] == [
        "stock", arguments, "price", arguments, ANSWER,
        "There are 12 lamps. They cost 49 euros each.",
    ]  # fmt: skip


def test_prompts_it_never_saw_are_answered(folder: Path) -> None:
    held_out = json.loads((folder / "eval.json").read_text())["accuracy"]["heldout"]

    assert held_out["rate"] >= HELD_OUT_AT_LEAST, held_out["mistakes"][:5]


@pytest.mark.parametrize(
    ("question", "calls", "answer"),
    [
        ("How many lamps are there?", ["stock"], "There are 12 lamps."),
        ("What do lamps cost?", ["price"], "The lamps cost 49 euros each."),
        (
            "How many lamps are there, and what do they cost?", ["stock", "price"],
            "There are 12 lamps. They cost 49 euros each.",
        ),
        ("Thank you", [], "You are welcome."),
    ],
)  # fmt: skip
def test_it_plans_calls_and_says_what_it_found(
    clerk: Agent, question: str, calls: list[str], answer: str
) -> None:
    run = clerk.run(question)

    assert [call.name for step in run.steps for call in step.calls] == calls
    assert (run.status, run.text) == ("completed", answer)
    assert all(json.loads(call.arguments) == {"item": "lamps"} for step in run.steps for call in step.calls)


def test_the_answer_follows_the_tool(folder: Path) -> None:
    numbers = random.Random(3).sample(range(30), 12)
    found: dict[str, int] = {}

    def stock(item: str) -> str:
        """How many are left."""
        return f"{found[item]} left"

    right = 0
    with Agent.from_pretrained(str(folder), tools=[stock, price]) as agent:
        for number in numbers:
            found["teapots"] = number
            right += agent.run("How many teapots are left?").text == f"There are {number} teapots."

    assert right >= 11, "a model of a million parameters may misread one number in twelve, not more"


def test_a_tool_that_fails_is_admitted(folder: Path) -> None:
    def stock(item: str) -> str:
        """How many are left."""
        raise ConnectionError("the shelf is locked")

    with Agent.from_pretrained(str(folder), tools=[stock, price]) as agent:
        run = agent.run("How many lamps are there?")

    observed = run.steps[0].calls[0].observation
    assert observed is not None
    assert observed.outcome == "error"
    assert run.text == "I could not find that out."
