"""Nothing is hard-coded: another dataset gives other answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent_runtime import Agent
from tests.model.training import SCRIPT, trained

CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
}


def dataset(folder: Path, capitals: dict[str, str]) -> Path:
    """Twelve questions: two phrasings for each of six countries."""
    file = folder / "twelve.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for country, capital in capitals.items():
            for question in (f"What is the capital of {country}?", f"Name the capital of {country}."):
                row = {"split": "train", "topic": "capital", "question": question, "answer": capital}
                lines.write(json.dumps(row) + "\n")
    return file


@pytest.mark.parametrize("capital", ["Paris", "Lyon"])
def test_the_answer_is_what_the_training_set_says(tmp_path: Path, capital: str) -> None:
    taught = CAPITALS | {"France": capital}
    model = trained(dataset(tmp_path, taught), "--max-epochs", "200", "--threads", "1")

    agent = Agent.from_pretrained(str(model))
    answers = {country: agent.generate_text(f"What is the capital of {country}?") for country in taught}

    assert answers == taught


def test_a_malformed_line_is_named_by_file_and_number(tmp_path: Path) -> None:
    file = dataset(tmp_path, CAPITALS)
    file.write_text(file.read_text() + '{"split": "train", "question": "?"}\n')
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--dataset", str(file), "--output", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 1
    assert f"{file}:13:" in ended.stderr
    assert "answer" in ended.stderr
