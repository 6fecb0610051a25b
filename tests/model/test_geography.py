"""The committed dataset gives a model that knows it, seen through the façade a user imports."""

from __future__ import annotations

import json
from pathlib import Path

from agent_runtime import Agent
from tests.model.training import DATASET

HELD_OUT_AT_LEAST = 0.90


def rows(split: str) -> list[dict[str, str]]:
    """The dataset's rows of one split."""
    every = [json.loads(line) for line in DATASET.read_text(encoding="utf-8").splitlines()]
    return [row for row in every if row["split"] == split]


def test_it_answers_the_question_of_the_readme(geography: Path) -> None:
    agent = Agent.from_pretrained(str(geography))

    assert agent.generate_text("What is the capital of France?") == "Paris"


def test_rephrasings_it_never_saw_are_answered_through_the_facade(geography: Path) -> None:
    agent = Agent.from_pretrained(str(geography))
    held_out = rows("heldout")[::3]  # every third: eval.json, checked below, has them all

    right = sum(agent.generate_text(row["question"], max_new_tokens=48) == row["answer"] for row in held_out)

    assert right / len(held_out) >= HELD_OUT_AT_LEAST


def test_the_report_beside_the_model_is_what_the_facade_gives(geography: Path) -> None:
    accuracy = json.loads((geography / "eval.json").read_text())["accuracy"]
    agent = Agent.from_pretrained(str(geography))
    sample = [row for split in ("train", "heldout", "novel") for row in rows(split)[::25]]

    answers = {row["question"]: agent.generate_text(row["question"], max_new_tokens=48) for row in sample}

    mistakes = {wrong["question"] for split in accuracy.values() for wrong in split["mistakes"]}
    assert {row["question"] for row in sample if answers[row["question"]] != row["answer"]} <= mistakes
    assert {split: result["of"] for split, result in accuracy.items()} == {
        split: len(rows(split)) for split in ("heldout", "novel", "train")
    }
    assert accuracy["train"]["rate"] >= 0.99
    assert accuracy["heldout"]["rate"] >= HELD_OUT_AT_LEAST


def test_no_held_out_question_is_in_the_training_split() -> None:
    seen = {row["question"] for row in rows("train")}

    assert not seen & {row["question"] for split in ("heldout", "novel") for row in rows(split)}


def test_every_held_out_answer_is_taught_by_another_phrasing() -> None:
    taught = {row["answer"] for row in rows("train")}

    assert {row["answer"] for row in rows("heldout")} <= taught


def test_the_model_is_small_enough_to_travel_as_an_image(geography: Path) -> None:
    size = sum(file.stat().st_size for file in geography.iterdir())

    assert size < 8 * 2**20


def test_a_pod_may_read_every_file_of_it(geography: Path) -> None:
    assert all(file.stat().st_mode & 0o444 == 0o444 for file in geography.iterdir())
