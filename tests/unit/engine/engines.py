"""A real decoder that misbehaves on demand, and an engine to drive it. Layer: tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_runtime.llm.base import Delta, GenerationError, Result, Sampling
from agent_runtime.llm.batcher import Batcher
from agent_runtime.llm.causal import CausalDecoder
from agent_runtime.llm.decoder import Cohort, Decoder, Ids
from agent_runtime.llm.row import Row
from agent_runtime.llm.sampling import RowSampler
from agent_runtime.llm.tokens import Detokenizer
from agent_runtime.progress import Progress
from tests.unit.engine.models import build

POISON = 77
WAIT = 60.0


class Misbehaving:
    """Passes everything on to a real decoder, unless told to misbehave.

    `poison`: a step with a row whose prompt holds POISON raises. `room`: more cached positions than this are
    an out-of-memory error. `deaths`: so many steps end the thread. `hold`: steps wait while it is cleared.
    """

    def __init__(self, inner: Decoder) -> None:
        self._inner = inner
        self.poison = False
        self.room: int | None = None
        self.deaths = 0
        self.broken = False
        self.hold = threading.Event()
        self.hold.set()
        self.held = threading.Event()
        self.starts: list[int] = []
        self.steps: list[int] = []
        self._poisoned: dict[int, bool] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def start(
        self, prompts: Sequence[Ids], generated: Sequence[Ids], on_progress: Callable[[], None]
    ) -> Cohort:
        self.starts.append(len(prompts))
        self._misbehave(
            len(prompts) * max(len(p) + len(g) for p, g in zip(prompts, generated, strict=True)), False
        )
        cohort = self._inner.start(prompts, generated, on_progress)
        self._poisoned[id(cohort)] = any(POISON in prompt for prompt in prompts)
        return cohort

    def step(self, cohort: Cohort, tokens: Ids) -> None:
        self.steps.append(len(tokens))
        if not self.hold.is_set():
            self.held.set()
            self.hold.wait(WAIT)
        self._misbehave(cohort.rows * (cohort.positions + 1), self._poisoned.get(id(cohort), False))
        self._inner.step(cohort, tokens)

    def join(self, cohort: Cohort, other: Cohort) -> None:
        self._inner.join(cohort, other)
        self._poisoned[id(cohort)] |= self._poisoned.pop(id(other), False)

    def _misbehave(self, positions: int, poisoned: bool) -> None:
        if self.broken:
            raise RuntimeError("the device is lost")
        if self.deaths:
            self.deaths -= 1
            raise SystemExit("the thread is killed")
        if self.poison and poisoned:
            raise ValueError("a poisoned row")
        if self.room is not None and positions > self.room:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


class Codec:
    """Text of tokens without a tokenizer: each is its number and a blank."""

    def detokenizer(self) -> Detokenizer:
        return _Numbers()

    def text(self, ids: Sequence[int]) -> str:
        return "".join(f"{token} " for token in ids)

    def token_text(self, token: int) -> tuple[str, bytes]:
        return str(token), str(token).encode()


class _Numbers:
    def push(self, token: int) -> str:
        return f"{token} "

    def finish(self) -> str:
        return ""


@dataclass
class Asked:
    """One request and what came of it."""

    row: Row
    events: list[Delta | Result | GenerationError] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def outcome(self) -> Result | GenerationError:
        """How it ended."""
        assert self.over.wait(WAIT), "no answer came"
        last = self.events[-1]
        assert not isinstance(last, Delta)
        return last

    def tokens(self) -> list[int]:
        """The answer's tokens."""
        outcome = self.outcome()
        assert isinstance(outcome, Result), outcome
        return [int(word) for word in outcome.text.split()]


class Observed:
    """An EngineObserver that counts."""

    def __init__(self) -> None:
        self.recomputed_rows = self.restarts = self.out_of_memory = 0

    def started(self, rows: int, positions: int, padded: int, seconds: float) -> None: ...

    def stepped(self, rows: int, seconds: float) -> None: ...

    def recomputed(self, rows: int, out_of_memory: bool) -> None:
        self.recomputed_rows += rows
        self.out_of_memory += out_of_memory

    def restarted(self) -> None:
        self.restarts += 1

    def scored(self, candidates: int, seconds: float) -> None: ...


class Engine:
    """A batcher over a misbehaving real model."""

    def __init__(self, *, max_rows: int = 8, wait: float | None = None, family: str = "llama") -> None:
        self.decoder = Misbehaving(CausalDecoder(build(family), "cpu"))
        self.progress = Progress()
        self.crashed: list[BaseException] = []
        self.observed = Observed()
        self._clock = __import__("time").monotonic
        self.batcher = Batcher(
            self.decoder, self.progress, max_rows=max_rows, wait=wait, flush=lambda: None,
            on_crash=self.crashed.append, observer=self.observed,
        )  # fmt: skip

    def ask(
        self,
        prompt: Sequence[int],
        max_tokens: int = 8,
        *,
        deadline: float | None = None,
        stream: bool = False,
        **sampling: Any,
    ) -> Asked:
        """Submits one request."""
        asked: Asked

        def emit(row: Row, event: Delta | Result | GenerationError) -> None:
            asked.events.append(event)
            if not isinstance(event, Delta):
                asked.over.set()

        rules = Sampling(max_tokens, ignore_eos=True, **sampling)
        row = Row(
            prompt, RowSampler(rules), Codec(), emit,  # type: ignore[arg-type]
            arrived=self._clock(), deadline=deadline, stream=stream,
        )  # fmt: skip
        asked = Asked(row)
        self.batcher.submit(row)
        return asked

    def close(self) -> None:
        """Ends the thread."""
        self.decoder.hold.set()
        self.batcher.stop()
