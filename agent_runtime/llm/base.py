"""What a language model is to the rest of the runtime. Layer: llm, light: no torch, no web framework.

The one idea: an engine is a blocking function from token ids to text with two hooks, one called with each
piece of text and one asked between decode steps whether anybody still wants the answer. Threads, queues and
HTTP are other people's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from agent_runtime.llm.chat import Message
from agent_runtime.progress import Progress

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens. `temperature` 0 takes the likeliest token; `seed` makes sampling repeatable."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """A finished generation; token counts include the end-of-sequence token."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Facts of a loaded model for /v1/models and the log."""

    architecture: str
    device: str
    dtype: str
    parameters: int


class GenerationError(Exception):
    """The model could not answer this request; others are not affected."""


class Engine(Protocol):
    """A loaded model. Every method may be called from several threads at once."""

    progress: Progress
    info: ModelInfo

    def encode(self, text: str) -> list[int]:
        """Token ids of raw text, nothing cut off."""
        ...

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation, by the model's chat template or the plain rendering."""
        ...

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        emit: Callable[[str], None] = lambda text: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Result:
        """Blocks until the answer is complete. The emitted pieces joined are exactly `Result.text`."""
        ...
