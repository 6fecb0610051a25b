"""Print what the clerk of a shop is trained on: every prompt of its runs. Layer: example, alone.

Standard library only. The one idea: an agent whose next action is scored is asked one short question at a
time (which action, which arguments, what answer), and a model of a million parameters can learn to answer
each when the form never varies. The lines are those of agent_runtime/agent/prompts.py; a test holds the two
together. How many there are and what they cost is in no training answer but the one to its own result, so
the model has to look it up and say what it read.

    python dialogues.py > dialogues.jsonl        # one object a line: split, topic, question, answer
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping

DIALOGUES = 1600
SEED = 0

TOOLS = {"stock": "How many are left.", "price": "What one costs."}
"""The tools and what they say of themselves; both take `item`."""
ACTIONS = "Actions: " + " | ".join(
    f"{name} - {text}" for name, text in (*TOOLS.items(), ("answer", "Answer the user."))
)
ITEMS = (
    "lamps", "umbrellas", "chairs", "tables", "mirrors", "clocks", "vases", "candles", "cushions",
    "blankets", "kettles", "teapots", "cups", "plates", "bowls", "spoons", "knives", "pans",
    "baskets", "boxes", "mugs", "jugs", "trays", "rugs",
)  # fmt: skip
RESULTS = {"stock": ("{} left", range(30)), "price": ("{} euros", range(30, 90))}
"""What the tools say, and with which numbers. A model this small tells two numbers apart by their values, not
by where they stand, so nothing here costs less than 30 euros."""
QUESTIONS = {
    ("stock",): (
        "How many {} are there?", "How many {} do you have?", "How many {} are left?", "Are there {}?",
        "Do you have {}?", "Are {} in stock?",
    ),
    ("price",): (
        "What do {} cost?", "How much are {}?", "What is the price of {}?", "How much do {} cost?",
        "How expensive are {}?", "What do you want for {}?",
    ),
    ("stock", "price"): (
        "How many {} are there, and what do they cost?", "Do you have {}, and how much are they?",
        "Are there {}, and what is the price?",
    ),
}  # fmt: skip
"""The tools a question needs, in order."""
FORMS = ("server", "server", "function", "plain")
SMALL_TALK = {
    "Hello": "Hello. Ask me what we have and what it costs.",
    "Good morning": "Hello. Ask me what we have and what it costs.",
    "Who are you?": "I am the clerk of this shop.",
    "Thank you": "You are welcome.",
    "Goodbye": "Goodbye.",
}
FAILURES = (
    "{error}: {why}", "Error executing tool {tool}: {why}", "The tool failed ({error}).",
    "The tool did not answer within 10 s; it may have taken effect.", "The call was not made: it was denied.",
    "The tool server 'shop' is not available: {why}.",
)  # fmt: skip
ERRORS = ("ConnectionError", "OSError", "TimeoutError", "ValueError", "KeyError", "RuntimeError")
REASONS = (
    "connection refused", "the connection was closed", "no route to host", "the shelf is locked",
    "nobody is here", "not today", "out of memory", "no such item", "the database is down", "it is closed",
)  # fmt: skip
NOT_FOUND_OUT = "I could not find that out."


def answer(item: str, results: Mapping[str, str]) -> str:
    """What the clerk says, having read these results by tool."""
    numbers = {tool: text.split()[0] for tool, text in results.items()}
    if not all(number.isdigit() for number in numbers.values()):
        return NOT_FOUND_OUT
    said = []
    if "stock" in numbers:
        said.append(f"There are {numbers['stock']} {item}.")
    if "price" in numbers:
        said.append(f"{'They' if said else f'The {item}'} cost {numbers['price']} euros each.")
    return " ".join(said)


def row(topic: str, lines: list[str], text: str) -> dict[str, str]:
    """One row of the dataset, its split still to be drawn."""
    return {"topic": topic, "question": "\n".join(lines), "answer": text}


def schema(tool: str, server: bool) -> str:
    """The parameters as JSON schema: of a tool of an MCP server (by its SDK), or of a Python function."""
    if server:
        return json.dumps(
            {"properties": {"item": {"title": "Item", "type": "string"}}, "required": ["item"],
             "title": f"{tool}Arguments", "type": "object"}
        )  # fmt: skip
    properties = {"item": {"type": "string"}}
    return json.dumps(
        {"additionalProperties": False, "properties": properties, "required": ["item"], "type": "object"}
    )


def dialogue(
    question: str, item: str, results: Mapping[str, str], form: str = "server"
) -> Iterator[dict[str, str]]:
    """Every prompt of one run, with what the model should make of it. `form` is how arguments are asked for:
    as JSON by the schema of a "server" or a "function", or "plain" where no grammar can be guaranteed."""
    lines = [f"User: {question}"]
    for tool, result in results.items():
        wanted, text = "Parameters: item (string)", f"item: {item}"
        if form != "plain":
            wanted = f"Schema: {schema(tool, form == 'server')}"
            text = json.dumps({"item": item}, separators=(",", ":"))
        yield row("action", [*lines, ACTIONS, "Action:"], tool)
        yield row("arguments", [*lines, f"Tool: {tool} - {TOOLS[tool]}", wanted, "Arguments:"], text)
        lines += [f"Action: {tool} (item: {item})", f"Result: {result}"]
    yield row("action", [*lines, ACTIONS, "Action:"], "answer")
    yield row("answer", [*lines, "Answer:"], answer(item, results))


def small_talk() -> Iterator[dict[str, str]]:
    """Runs that need no tool: the question alone reaches the model unchanged."""
    for said, text in SMALL_TALK.items():
        yield row("action", [f"User: {said}", ACTIONS, "Action:"], "answer")
        yield row("answer", [said], text)


def drawn(dice: random.Random) -> Iterator[dict[str, str]]:
    """Dialogues with random items and results. Easy questions appear in a part of them."""
    kinds, weights = list(QUESTIONS), (3, 3, 2)
    for _ in range(DIALOGUES):
        tools = dice.choices(kinds, weights)[0]
        item = dice.choice(ITEMS)
        said = {tool: form.format(dice.choice(numbers)) for tool, (form, numbers) in RESULTS.items()}
        results = {tool: said[tool] for tool in tools}
        if dice.random() < 0.12:
            facts = {"error": dice.choice(ERRORS), "why": dice.choice(REASONS), "tool": tools[-1]}
            results[tools[-1]] = dice.choice(FAILURES).format(**facts)
        question, form = dice.choice(QUESTIONS[tools]).format(item), dice.choice(FORMS)
        for made in dialogue(question, item, results, form):
            if made["topic"] == "answer" or dice.random() < 0.35:
                yield made


def main() -> None:
    """Prints the dataset: nine of ten rows for training, the others held out."""
    dice = random.Random(SEED)
    rows = list({made["question"]: made for made in drawn(dice)}.values())
    dice.shuffle(rows)
    talk = [{"split": "train", **made} for made in small_talk()] * 8
    for number, made in enumerate(rows):
        print(json.dumps({"split": "heldout" if number % 10 == 0 else "train", **made}))
    for made in talk:
        print(json.dumps(made))


if __name__ == "__main__":
    main()
