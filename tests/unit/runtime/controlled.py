"""A runtime whose engine obeys files, started as a process by the fault tests. Layer: tests.

`python -m tests.unit.runtime.controlled FOLDER --config FILE`: while FOLDER/loading exists, loading waits;
while FOLDER/hold exists, every step waits; FOLDER/poison makes the steps of one row fail, FOLDER/death ends
the engine's thread once, and FOLDER/broken makes every step fail. FOLDER/headroom, a number of bytes, is how
much address space the process may take beyond what it has when the model is loaded. The names of the tasks on
the event loop are written to FOLDER/tasks whenever FOLDER/count is made. Nothing else differs from the real
thing: the weights, the server and the exit are real.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent_runtime import __main__ as entry
from agent_runtime.contract import RuntimeConfig
from agent_runtime.llm.base import Backend
from agent_runtime.llm.open import Opening

FOLDER = Path(sys.argv[1])
POISON = "poison"
"""A prompt with this word is the poisoned one."""


def wait_while(name: str) -> None:
    """Block this thread for as long as the file exists."""
    while (FOLDER / name).exists():
        time.sleep(0.01)


def count_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Writes down what runs on the event loop, each time it is asked to."""

    async def running() -> list[str]:
        return sorted(str(task.get_coro()).split(" at 0x")[0] for task in asyncio.all_tasks())

    while True:
        if (FOLDER / "count").exists():
            names = asyncio.run_coroutine_threadsafe(running(), loop).result()
            (FOLDER / "tasks.partial").write_text(json.dumps(names))
            (FOLDER / "tasks.partial").rename(FOLDER / "tasks")
            (FOLDER / "count").unlink()
        time.sleep(0.02)


def limit_memory() -> None:
    """Bounds the address space, when the folder says so."""
    file = FOLDER / "headroom"
    if file.exists():
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        bound = pages * resource.getpagesize() + int(file.read_text())
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


def load_controlled(config: RuntimeConfig, opening: Opening) -> Backend:
    """The real backend, whose steps look at the folder first."""
    threading.Thread(target=count_tasks, args=[opening.loop], daemon=True).start()
    wait_while("loading")
    from agent_runtime.llm.load import load_model
    from agent_runtime.llm.local import LocalBackend, make_decoder

    loaded = load_model(
        config.model, config.gpu_requested, opening.on_phase, opening.on_download, opening.on_weights
    )
    poison = frozenset(loaded.tokenizer(POISON, add_special_tokens=False)["input_ids"])

    class Controlled:
        """Passes everything on to the real decoder, after a look at the folder."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def start(
            self,
            prompts: Sequence[Sequence[int]],
            generated: Sequence[Sequence[int]],
            on_progress: Callable[[], None],
        ) -> Any:
            self._obey()
            if any(poison <= set(prompt) for prompt in prompts):
                raise RuntimeError("a poisoned request")
            return self._inner.start(prompts, generated, on_progress)

        def step(self, cohort: Any, tokens: Sequence[int]) -> None:
            self._obey()
            self._inner.step(cohort, tokens)

        def _obey(self) -> None:
            wait_while("hold")
            if (FOLDER / "broken").exists():
                raise RuntimeError("the device is lost")
            if (FOLDER / "death").exists():
                (FOLDER / "death").unlink()
                raise SystemExit("the engine's thread is killed")

    limit_memory()
    return LocalBackend(
        loaded,
        config.parameters,
        opening.on_crash,
        opening.observer,
        decoder=Controlled(make_decoder(loaded)),
    )


if __name__ == "__main__":
    code = entry.main(["serve", *sys.argv[2:], "--port", "0", "--admin-port", "0"], load_controlled)
    sys.stdout.flush()
    os._exit(code)
