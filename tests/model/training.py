"""Trains a model with the example's own script, once per dataset and script. Layer: tests."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples" / "models"
SCRIPT = EXAMPLES / "train.py"
DATASET = EXAMPLES / "geography" / "questions.jsonl"
CLERK = EXAMPLES / "clerk" / "dialogues.py"
CACHE = REPOSITORY / ".local" / "models"


def trained(dataset: Path = DATASET, *extra: str) -> Path:
    """The folder of a model trained on `dataset`; cached by script, data and options."""
    digest = hashlib.sha256(SCRIPT.read_bytes() + dataset.read_bytes() + repr(extra).encode())
    folder = CACHE / digest.hexdigest()[:16]
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "eval.json").exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            command = [
                sys.executable,
                str(SCRIPT),
                "--dataset",
                str(dataset),
                "--output",
                str(partial),
                *extra,
            ]
            subprocess.run(command, check=True)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    return folder
