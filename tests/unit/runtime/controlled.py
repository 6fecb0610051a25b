"""A runtime whose engine obeys files, started as a process by the fault tests. Layer: tests.

`python -m tests.unit.runtime.controlled FOLDER --config FILE`: while FOLDER/loading exists, loading waits;
while FOLDER/hold exists, every decode step waits; FOLDER/poison makes one step fail, and FOLDER/broken every
one. Nothing else differs from the real thing: the weights, the server and the exit are real.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from agent_runtime import __main__ as entry
from agent_runtime.contract import RuntimeConfig
from agent_runtime.llm.base import Engine

FOLDER = Path(sys.argv[1])


def wait_while(name: str) -> None:
    """Block this thread for as long as the file exists."""
    while (FOLDER / name).exists():
        time.sleep(0.01)


def load_controlled(config: RuntimeConfig, on_phase: Callable[[str, float], None]) -> Engine:
    """The real engine, whose steps look at the folder first."""
    wait_while("loading")
    from agent_runtime.llm.load import load_seq2seq
    from agent_runtime.llm.seq2seq import Seq2SeqEngine

    class ControlledEngine(Seq2SeqEngine):
        def on_step(self) -> None:
            wait_while("hold")
            if (FOLDER / "broken").exists():
                raise RuntimeError("the device is lost")
            if (FOLDER / "poison").exists():
                (FOLDER / "poison").unlink()
                raise RuntimeError("a poisoned request")
            super().on_step()

    return ControlledEngine(load_seq2seq(config.model, config.gpu_requested, on_phase))


if __name__ == "__main__":
    code = entry.main(["serve", *sys.argv[2:], "--port", "0"], load_controlled)
    sys.stdout.flush()
    os._exit(code)
