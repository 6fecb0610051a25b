"""What a language model is to the rest of the runtime. Layer: llm, light: no torch, no web framework.

The one idea: a backend takes prompts and gives events, on the event loop, whether the weights are in this
process or behind somebody's API; what it cannot do it says beforehand (`capabilities`), so a request is
refused by name and never answered wrongly.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from agent_runtime.llm.chat import Message, ToolSpec
from agent_runtime.progress import Progress

FinishReason = Literal["stop", "length"]


GrammarKind = Literal["json_schema", "regex", "lark"]
ALL_GRAMMARS: frozenset[GrammarKind] = frozenset({"json_schema", "regex", "lark"})


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the whole answer must look like: a JSON schema (as JSON text), a regular expression, or Lark."""

    kind: GrammarKind
    text: str


LEAST_TEMPERATURE = 1e-5
"""Scores divided by less overflow single precision; vLLM draws the line here too."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens. `temperature` 0 takes the likeliest token; `seed` makes sampling repeatable.

    `top_k` 0 is off. `top_logprobs` None reports no log-probabilities, 0 those of the chosen tokens, n also
    the n likeliest alternatives; all are of the model's own distribution, before temperature and penalties.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    top_logprobs: int | None = None
    grammar: Grammar | None = None
    min_tokens: int = 0
    ignore_eos: bool = False

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken; a temperature below LEAST_TEMPERATURE means the same."""
        return self.temperature < LEAST_TEMPERATURE


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation, with the tools the model may call."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """Raw text that reaches the model unchanged."""

    text: str


Prompt = Chat | Text


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt ready to run. `ids` is None where tokens are the remote's business; `count` is then an
    estimate."""

    prompt: Prompt
    ids: tuple[int, ...] | None
    count: int


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One generated token: its text, its bytes, its natural-log probability, and the likeliest instead."""

    token: str
    raw: bytes
    logprob: float
    top: tuple[tuple[str, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of an answer, of so many tokens. The pieces' texts joined are exactly `Result.text`."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    tokens: int = 1

    def followed_by(self, other: Delta) -> Delta:
        """Both as one piece."""
        return Delta(self.text + other.text, (*self.logprobs, *other.logprobs), self.tokens + other.tokens)


@dataclass(frozen=True, slots=True)
class Result:
    """A finished generation; token counts include the end-of-sequence token. `first_token_at` is when the
    engine made the first one, in seconds of `time.monotonic`; None when only the pieces tell."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    first_token_at: float | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """How probable a model finds one candidate as the whole answer.

    `token_logprobs` are natural logarithms, one per token up to and including the first end-of-sequence
    token and no further (what follows it is padding, and adding it up is a known way to be wrong).
    """

    candidate: str
    token_logprobs: tuple[float, ...]

    @property
    def logprob(self) -> float:
        """log P(candidate | prompt): the sum."""
        return sum(self.token_logprobs)

    @property
    def mean_logprob(self) -> float:
        """The sum divided by the number of tokens, which does not punish length."""
        return self.logprob / len(self.token_logprobs) if self.token_logprobs else 0.0


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Facts of a model for /v1/models and the log. `parameters` is 0 when unknown (remote)."""

    architecture: str
    device: str
    dtype: str
    parameters: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard bounds of the model itself, in tokens; None is unknown or unbounded.

    `context` bounds input and output together for decoder-only models and the input alone for
    encoder-decoder models (`shared_context` tells which).
    """

    context: int | None
    vocabulary: int | None
    shared_context: bool = True


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What requests may ask of this backend."""

    chat_tools: bool = False
    """The chat template knows tools, so the model was taught to call them."""
    top_logprobs: int = 20
    """Most alternatives per token; -1 when no log-probabilities at all."""
    grammar: frozenset[GrammarKind] = frozenset()
    """The kinds of structured output that can be guaranteed."""
    score: bool = True
    """Candidates can be scored exactly."""
    token_ids: bool = True
    """Prompts can be tokenised here."""


ErrorCode = Literal[
    "generation_failed",
    "cancelled",
    "out_of_memory",
    "deadline_exceeded",
    "overloaded",
    "server_draining",
    "invalid_grammar",
    "invalid_prompt",
    "remote_unreachable",
    "remote_overloaded",
    "remote_failed",
    "remote_refused",
    "remote_denied",
]


class GenerationError(Exception):
    """One request could not be answered; others are not affected. `code` is part of the HTTP contract."""

    def __init__(
        self, message: str, code: ErrorCode = "generation_failed", *, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.retry_after = code, retry_after


class Generation(Protocol):
    """One answer being made. Read `events` once, on the event loop that started it."""

    def events(self) -> AsyncIterator[Delta | Result]:
        """Pieces, then the Result. Raises GenerationError."""
        ...

    def cancel(self) -> None:
        """Nobody wants the answer any more: `events` raises GenerationError `cancelled` at once, the backend
        stops at its next step. Harmless when it is done."""
        ...

    async def ended(self) -> None:
        """Returns once the backend has nothing left to do for it, read or not."""
        ...


class Backend(Protocol):
    """A model that answers. Every method is called on the event loop and none blocks it."""

    info: ModelInfo
    limits: Limits
    capabilities: Capabilities
    progress: Progress

    def encode(self, prompt: Prompt) -> Encoded:
        """The prompt as the model will read it, nothing cut off."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, where `capabilities.token_ids`."""
        ...

    def generate(
        self, encoded: Encoded, sampling: Sampling, deadline: float | None = None, *, stream: bool = True
    ) -> Generation:
        """Starts answering. `deadline` is in seconds of `time.monotonic`; past it the answer fails with
        `deadline_exceeded`. Without `stream` all text may come in one piece, which is cheaper."""
        ...

    async def score(
        self, encoded: Encoded, candidates: Sequence[str], deadline: float | None = None
    ) -> list[Score]:
        """The score of each candidate as the whole answer, in the order given. Raises GenerationError."""
        ...

    def rows(self) -> tuple[int, int]:
        """Rows being computed now, and how many may be at once; 0 is unknown."""
        ...

    def close(self) -> None:
        """Fails what is running with `server_draining` at its next step, and everything later."""
        ...

    async def aclose(self) -> None:
        """`close`, and gives back what it holds: connections, threads."""
        ...


def count_tokens(backend: Backend, prompt: Prompt) -> int:
    """Tokens of a prompt; an estimate where the backend cannot tokenise."""
    return backend.encode(prompt).count
