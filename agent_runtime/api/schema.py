"""What a request may hold. Layer: api, pure: pydantic only.

The one idea: a field is honoured, or refused by name; none is accepted and ignored, because a caller who
sets it believes in it. Fields that OpenAI's clients send with a value that changes nothing are accepted with
exactly that value. `user` and `metadata` never change an answer and are accepted.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from agent_runtime.llm.chat import Message

MAX_STOP_STRINGS = 4


def _empty(value: list[Any] | dict[str, Any] | None) -> list[Any] | dict[str, Any] | None:
    if value:
        raise PydanticCustomError("unsupported", "this server has no such feature: leave it out or empty")
    return value


NoList = Annotated[list[Any] | None, AfterValidator(_empty)]
NoMap = Annotated[dict[str, Any] | None, AfterValidator(_empty)]
StopString = Annotated[str, Field(min_length=1, max_length=256)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StreamOptions(_Body):
    """Options of a streamed answer."""

    include_usage: bool = False


class _Common(_Body):
    model: str | None = None
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOP_STRINGS)] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    logit_bias: NoMap = None
    user: str | None = None

    @field_validator("stream_options")
    @classmethod
    def _needs_stream(cls, value: StreamOptions | None, known: ValidationInfo) -> StreamOptions | None:
        if value is not None and not known.data.get("stream"):
            raise PydanticCustomError("stream_options", "stream_options needs stream: true")
        return value

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings, however they were given."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return self.stream_options is not None and self.stream_options.include_usage


class TextPart(_Body):
    """A text part of a message's content."""

    type: Literal["text"]
    text: str


class ChatMessage(_Body):
    """One message; `developer` is OpenAI's newer word for `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: None = None
    refusal: None = None

    def message(self) -> Message:
        """The message as the engine takes it; text parts are joined by newlines."""
        text = self.content if isinstance(self.content, str) else "\n".join(p.text for p in self.content)
        return Message("system" if self.role == "developer" else self.role, text)


class ChatRequest(_Common):
    """Body of POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    tools: NoList = None
    tool_choice: Literal["none", "auto"] | None = None
    response_format: ResponseFormat | None = None
    store: Literal[False] | None = None
    metadata: dict[str, str] | None = None

    @property
    def token_limit(self) -> tuple[str, int | None]:
        """The bound on generated tokens and the name of the field that gave it."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return "max_tokens", self.max_tokens


class ResponseFormat(_Body):
    """Only plain text; structured output is refused, not imitated."""

    type: Literal["text"]


class CompletionRequest(_Common):
    """Body of POST /v1/completions. The prompt reaches the model as it is, without a system prompt."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    logprobs: None = None
    suffix: None = None

    @property
    def text(self) -> str:
        """The prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]

    @property
    def token_limit(self) -> tuple[str, int | None]:
        """The bound on generated tokens and the name of the field that gave it."""
        return "max_tokens", self.max_tokens


ChatRequest.model_rebuild()
