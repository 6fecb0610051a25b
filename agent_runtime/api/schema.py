"""What a chat or text completion request may hold. Layer: api, pure: pydantic only.

The one idea: a field is honoured, or refused by name; none is accepted and ignored, because a caller who
sets it believes in it. Fields that OpenAI's clients send with a value that changes nothing are accepted with
exactly that value. `user` and `metadata` never change an answer and are accepted. `top_k`, `min_tokens`,
`ignore_eos` and `guided_regex` are vLLM's extensions, with vLLM's meaning.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from agent_runtime.llm.base import Grammar
from agent_runtime.llm.chat import Message, ToolCall, ToolSpec

MAX_STOP_STRINGS = 16
MAX_CHOICES = 16
MAX_TOOLS = 128
NAME = r"^[A-Za-z0-9_-]{1,64}$"


StopString = Annotated[str, Field(min_length=1, max_length=256)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
LogitBias = dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Annotated[float, Field(ge=-100, le=100)]]


class Body(BaseModel):
    """Strict: no unknown field, no silent conversion."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _off(value: bool) -> bool:
    if value:
        raise PydanticCustomError("unsupported", "only false is supported")
    return value


Off = Annotated[bool, AfterValidator(_off), WithJsonSchema({"type": "boolean", "const": False})]
"""A switch for something this server does not have. Literal[False] would take 0 and 0.0 as well."""

JsonObject = dict[str, Any]
"""Any JSON object; `parse` lets no number through that JSON does not have."""


class StreamOptions(Body):
    """Options of a streamed answer."""

    include_usage: bool = False
    include_obfuscation: Off | None = None


class Common(Body):
    """What both endpoints share."""

    model: str | None = None
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(default=None, ge=-1, le=1_000_000)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOP_STRINGS)] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    min_tokens: int | None = Field(default=None, ge=0)
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[LogitBias, Field(max_length=300)] | None = None
    guided_regex: str | None = Field(default=None, min_length=1, max_length=10_000)
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

    @property
    def bias(self) -> tuple[tuple[int, float], ...]:
        """Token ids and what is added to their scores."""
        return tuple((int(token), float(value)) for token, value in (self.logit_bias or {}).items())

    @property
    def token_limit(self) -> tuple[str, int | None]:
        """The field that bounds generated tokens, and its value."""
        raise NotImplementedError

    @property
    def logprobs_asked(self) -> int | None:
        """Alternatives per token, 0 for the chosen tokens alone, None for no log-probabilities."""
        raise NotImplementedError

    @property
    def grammar(self) -> Grammar | None:
        """What the answer must look like."""
        return None if self.guided_regex is None else Grammar("regex", self.guided_regex)


class TextPart(Body):
    """A text part of a message's content."""

    type: Literal["text"]
    text: str


class FunctionCall(Body):
    """The function of a tool call; `arguments` is JSON text."""

    name: str = Field(pattern=NAME)
    arguments: str


class AssistantToolCall(Body):
    """A call the assistant made earlier in the conversation."""

    id: str = Field(min_length=1, max_length=256)
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Body):
    """One message; `developer` is OpenAI's newer word for `system`."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    name: Annotated[str, Field(pattern=NAME)] | None = None
    refusal: None = None
    tool_calls: Annotated[list[AssistantToolCall], Field(max_length=MAX_TOOLS)] | None = None
    tool_call_id: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        default=None, validate_default=True
    )
    content: str | list[TextPart] | None = Field(default=None, validate_default=True)

    @field_validator("tool_calls")
    @classmethod
    def _calls_are_the_assistants(cls, value: Any, known: ValidationInfo) -> Any:
        if value and known.data.get("role") != "assistant":
            raise PydanticCustomError("role", "only messages of role assistant have tool_calls")
        return value

    @field_validator("tool_call_id")
    @classmethod
    def _results_name_their_call(cls, value: Any, known: ValidationInfo) -> Any:
        if (value is not None) != (known.data.get("role") == "tool"):
            raise PydanticCustomError("role", "messages of role tool need it, and only they have it")
        return value

    @field_validator("content")
    @classmethod
    def _says_something(cls, value: Any, known: ValidationInfo) -> Any:
        if value is None and not known.data.get("tool_calls"):
            raise PydanticCustomError("missing", "it is required")
        return value

    def message(self) -> Message:
        """The message as a backend takes it; text parts are joined by newlines."""
        content = self.content or ""
        text = content if isinstance(content, str) else "\n".join(part.text for part in content)
        calls = tuple(
            ToolCall(call.id, call.function.name, call.function.arguments) for call in self.tool_calls or ()
        )
        role = "system" if self.role == "developer" else self.role
        return Message(role, text, calls, self.tool_call_id, self.name)


class FunctionDefinition(Body):
    """A function the model may call; `parameters` is a JSON schema of an object."""

    name: str = Field(pattern=NAME)
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class ToolDefinition(Body):
    """A tool: always a function."""

    type: Literal["function"]
    function: FunctionDefinition

    def spec(self) -> ToolSpec:
        """The tool as a backend takes it."""
        parameters = self.function.parameters or {"type": "object", "properties": {}}
        return ToolSpec(self.function.name, self.function.description or "", parameters)


class NamedFunction(Body):
    """The function that must be called."""

    name: str


class NamedToolChoice(Body):
    """One tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedToolChoice


class JsonSchema(Body):
    """A JSON schema that the answer must satisfy."""

    name: str = Field(pattern=NAME)
    description: str | None = None
    schema_: JsonObject = Field(alias="schema")
    strict: bool | None = None


class TextFormat(Body):
    """Plain text."""

    type: Literal["text"]


class JsonObjectFormat(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(Body):
    """JSON by a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


def _format(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"{kind} format" if kind in ("text", "json_object", "json_schema") else None


# The tags have a blank, so that `errors.field_path` leaves them out.
ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("text format")]
    | Annotated[JsonObjectFormat, Tag("json_object format")]
    | Annotated[JsonSchemaFormat, Tag("json_schema format")],
    Discriminator(
        _format,
        custom_error_type="format",
        custom_error_message="type must be 'text', 'json_object' or 'json_schema'",
    ),
]


class ChatRequest(Common):
    """Body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)]
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: Annotated[list[ToolDefinition], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    store: Off | None = None
    metadata: dict[str, str] | None = None

    @field_validator("top_logprobs")
    @classmethod
    def _needs_logprobs(cls, value: int | None, known: ValidationInfo) -> int | None:
        if value and not known.data.get("logprobs"):
            raise PydanticCustomError("top_logprobs", "it needs logprobs: true")
        return value

    @field_validator("tools")
    @classmethod
    def _names_differ(cls, value: list[ToolDefinition] | None) -> list[ToolDefinition] | None:
        names = [tool.function.name for tool in value or ()]
        if len(set(names)) < len(names):
            raise PydanticCustomError("tools", "two tools have the same name")
        return value

    @field_validator("tool_choice")
    @classmethod
    def _is_offered(cls, value: ToolChoice | None, known: ValidationInfo) -> ToolChoice | None:
        names = [tool.function.name for tool in known.data.get("tools") or ()]
        if value == "required" and not names:
            raise PydanticCustomError("tool_choice", "it needs tools")
        if isinstance(value, NamedToolChoice) and value.function.name not in names:
            raise PydanticCustomError(
                "tool_choice", "it names {name}, which is not in tools", {"name": value.function.name}
            )
        return value

    @field_validator("response_format")
    @classmethod
    def _excludes_a_forced_call(cls, value: ResponseFormat | None, known: ValidationInfo) -> Any:
        forced = known.data.get("tool_choice") not in (None, "none", "auto")
        if forced and not isinstance(value, TextFormat | None):
            raise PydanticCustomError("response_format", "it excludes a forced tool call (tool_choice)")
        return value

    @property
    def token_limit(self) -> tuple[str, int | None]:
        """The bound on generated tokens and the name of the field that gave it."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return "max_tokens", self.max_tokens

    @property
    def logprobs_asked(self) -> int | None:
        """See Common."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def offered_tools(self) -> tuple[ToolSpec, ...]:
        """The tools the model is told about."""
        return () if self.tool_choice == "none" else tuple(tool.spec() for tool in self.tools or ())

    @property
    def forced_tools(self) -> tuple[str, ...]:
        """The tools of which one must be called; empty when the model chooses."""
        if isinstance(self.tool_choice, NamedToolChoice):
            return (self.tool_choice.function.name,)
        if self.tool_choice == "required":
            return tuple(tool.function.name for tool in self.tools or ())
        return ()

    @property
    def grammar(self) -> Grammar | None:
        """What the answer must look like: a forced tool call, a format, or a regular expression."""
        if self.forced_tools:
            return Grammar("json_schema", json.dumps(tool_call_schema(self.offered_tools, self.forced_tools)))
        if isinstance(self.response_format, JsonSchemaFormat):
            return Grammar("json_schema", json.dumps(self.response_format.json_schema.schema_))
        if isinstance(self.response_format, JsonObjectFormat):
            return Grammar("json_schema", '{"type": "object"}')
        return super().grammar

    @property
    def grammar_field(self) -> str:
        """The field that asked for the grammar."""
        if self.forced_tools:
            return "tool_choice"
        return "guided_regex" if isinstance(self.response_format, TextFormat | None) else "response_format"


def tool_call_schema(tools: tuple[ToolSpec, ...], names: tuple[str, ...]) -> dict[str, Any]:
    """The JSON schema of one call of one of the named tools, in the form `llm.tool_calls` reads."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": dict(tool.parameters)},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
        if tool.name in names
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


class CompletionRequest(Common):
    """Body of POST /v1/completions. The prompt reaches the model as it is, without a system prompt."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    echo: Off | None = None
    best_of: int | None = None
    logprobs: int | None = Field(default=None, ge=0, le=20)
    suffix: None = None

    @field_validator("best_of")
    @classmethod
    def _best_of_is_n(cls, value: int | None, known: ValidationInfo) -> int | None:
        if value is not None and value != (known.data.get("n") or 1):
            raise PydanticCustomError("unsupported", "best_of other than n is not offered")
        return value

    @property
    def text(self) -> str:
        """The prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]

    @property
    def token_limit(self) -> tuple[str, int | None]:
        """The bound on generated tokens and the name of the field that gave it."""
        return "max_tokens", self.max_tokens

    @property
    def logprobs_asked(self) -> int | None:
        """See Common."""
        return self.logprobs

    @property
    def grammar_field(self) -> str:
        """The field that asked for the grammar."""
        return "guided_regex"
