"""What POST /v1/responses may hold. Layer: api, pure: pydantic only.

The one idea: as in `schema`, a field is honoured or refused by its path. Fields that OpenAI's clients and
its own response objects carry with a value that changes nothing are taken with exactly that value; features
this server does not have (built-in tools, reasoning, prompt templates, background runs) are refused by name.
`user`, `safety_identifier` and `metadata` never change an answer.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from agent_runtime.api.responses_items import (
    MAX_ITEMS,
    Id,
    Item,
    MessageItem,
    only,
    text_or_list_tag,
    type_tag,
)
from agent_runtime.api.schema import MAX_TOOLS, NAME, Body, Common, JsonObject, Off, tool_call_schema
from agent_runtime.llm.base import Grammar
from agent_runtime.llm.chat import ToolSpec

LOGPROBS = "message.output_text.logprobs"
MAX_METADATA = 16


class FunctionTool(Body):
    """A function the model may call; `parameters` is a JSON schema of an object.

    Arguments follow `parameters` for certain where `tool_choice` forces the call, whatever `strict` says;
    the `strict` of the response's tools tells whether that was so.
    """

    type: Literal["function"]
    name: str = Field(pattern=NAME)
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None
    async_: Off | None = Field(default=None, alias="async")
    allowed_callers: None = None
    defer_loading: Off | None = None
    output_schema: None = None

    def spec(self) -> ToolSpec:
        """The tool as a backend takes it."""
        parameters = self.parameters or {"type": "object", "properties": {}}
        return ToolSpec(self.name, self.description or "", parameters)


class NamedFunctionChoice(Body):
    """One function that must be called."""

    type: Literal["function"]
    name: str


class PlainFormat(Body):
    """Plain text."""

    type: Literal["text"]


class AnyObjectFormat(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class SchemaFormat(Body):
    """JSON that satisfies a schema, for certain: `strict: false` gets the same."""

    type: Literal["json_schema"]
    name: str = Field(pattern=NAME)
    schema_: JsonObject = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


Format = Annotated[
    Annotated[PlainFormat, Tag("type text")]
    | Annotated[AnyObjectFormat, Tag("type json_object")]
    | Annotated[SchemaFormat, Tag("type json_schema")],
    Discriminator(
        type_tag("text", "json_object", "json_schema"),
        custom_error_type="format",
        custom_error_message="it must be an object of type text, json_object or json_schema",
    ),
    BeforeValidator(only("formats", "text", "json_object", "json_schema")),
]


class TextConfig(Body):
    """What the answer's text must look like."""

    format: Format | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(Body):
    """Models here do not reason apart from their answer, so only the absence of it can be asked for."""

    effort: Literal["none"] | None = None
    summary: None = None
    generate_summary: None = None


class ResponseStreamOptions(Body):
    """Options of a streamed response; this server never obfuscates."""

    include_obfuscation: Off | None = None


def _choice_tag(value: Any) -> str | None:
    if isinstance(value, str):
        return "a word"
    return "a function" if isinstance(value, dict | NamedFunctionChoice) else None


ToolItem = Annotated[FunctionTool, BeforeValidator(only("tools", "function"))]
Choice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("a word")]
    | Annotated[NamedFunctionChoice, BeforeValidator(only("tool choices", "function")), Tag("a function")],
    Discriminator(
        _choice_tag,
        custom_error_type="tool_choice",
        custom_error_message="it must be none, auto, required, or an object with type function and name",
    ),
]
InputItems = Annotated[list[Item], Field(min_length=1, max_length=MAX_ITEMS)]
Input = Annotated[
    Annotated[str, Field(min_length=1), Tag("a text")] | Annotated[InputItems, Tag("a list")],
    Discriminator(
        text_or_list_tag,
        custom_error_type="input",
        custom_error_message="it must be a string or a list of items",
    ),
]
Metadata = dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]]


class Wanted(Common):
    """The generation a request asks for, in the terms that all endpoints share."""

    most: int | None = None
    alternatives: int | None = None
    form: Grammar | None = None

    @property
    def token_limit(self) -> tuple[str, int | None]:
        """The bound on generated tokens and the name of the field that gave it."""
        return "max_output_tokens", self.most

    @property
    def logprobs_asked(self) -> int | None:
        """See Common."""
        return self.alternatives

    @property
    def grammar(self) -> Grammar | None:
        """See Common."""
        return self.form


class ResponsesRequest(Body):
    """Body of POST /v1/responses. `instructions` follow the agent's own system prompt and hold for this
    request only."""

    model: str | None = None
    input: Input
    instructions: str | None = None
    previous_response_id: Id | None = None
    store: bool | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    include: Annotated[list[Literal["message.output_text.logprobs"]], Field(max_length=16)] | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    text: TextConfig | None = None
    tools: Annotated[list[ToolItem], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    metadata: Annotated[Metadata, Field(max_length=MAX_METADATA)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    truncation: Literal["disabled"] | None = None
    background: Off | None = None
    service_tier: Literal["auto", "default"] | None = None
    reasoning: Reasoning | None = None
    context_management: Annotated[list[Any], Field(max_length=0)] | None = None
    conversation: None = None
    max_tool_calls: None = None
    moderation: None = None
    prompt: None = None
    prompt_cache_key: None = None
    prompt_cache_retention: None = None

    @field_validator("top_logprobs")
    @classmethod
    def _needs_include(cls, value: int | None, known: ValidationInfo) -> int | None:
        if value and "include" in known.data and not known.data["include"]:
            raise PydanticCustomError("needs", 'it needs include: ["message.output_text.logprobs"]')
        return value

    @field_validator("stream_options")
    @classmethod
    def _needs_stream(cls, value: Any, known: ValidationInfo) -> Any:
        if value is not None and "stream" in known.data and not known.data["stream"]:
            raise PydanticCustomError("needs", "it needs stream: true")
        return value

    @field_validator("tools")
    @classmethod
    def _named_once(cls, tools: list[FunctionTool] | None) -> list[FunctionTool] | None:
        names = [tool.name for tool in tools or ()]
        if repeated := next((name for at, name in enumerate(names) if name in names[:at]), None):
            raise PydanticCustomError(
                "repeated", "there are two tools with the name '{name}'", {"name": repeated}
            )
        return tools

    @field_validator("tool_choice")
    @classmethod
    def _possible(cls, value: Any, known: ValidationInfo) -> Any:
        if value in (None, "none", "auto") or "tools" not in known.data:
            return value
        names = [tool.name for tool in known.data["tools"] or ()]
        if not names:
            raise PydanticCustomError("needs", "it needs tools")
        if isinstance(value, NamedFunctionChoice) and value.name not in names:
            raise PydanticCustomError("unknown", "there is no '{name}' in tools", {"name": value.name[:64]})
        if _formatted(known.data.get("text")):
            raise PydanticCustomError("exclusive", "a forced call and text.format exclude each other")
        return value

    @property
    def items(self) -> tuple[Item, ...]:
        """The input as items; a text is one user message."""
        if isinstance(self.input, str):
            return (MessageItem(role="user", content=self.input),)
        return tuple(self.input)

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer's tokens come with log-probabilities."""
        return LOGPROBS in (self.include or ())

    @property
    def offered_tools(self) -> tuple[ToolSpec, ...]:
        """The tools the model is told about."""
        return () if self.tool_choice == "none" else tuple(tool.spec() for tool in self.tools or ())

    @property
    def forced_tools(self) -> tuple[str, ...]:
        """The tools of which one must be called; empty when the model chooses."""
        if isinstance(self.tool_choice, NamedFunctionChoice):
            return (self.tool_choice.name,)
        return tuple(tool.name for tool in self.tools or ()) if self.tool_choice == "required" else ()

    @property
    def grammar_field(self) -> str:
        """The field that asks for a grammar."""
        return "tool_choice" if self.forced_tools else "text.format"

    @property
    def wanted(self) -> Wanted:
        """The generation this asks for."""
        return Wanted(
            temperature=self.temperature,
            top_p=self.top_p,
            most=self.max_output_tokens,
            alternatives=(self.top_logprobs or 0) if self.wants_logprobs else None,
            form=self._grammar(),
        )

    def _grammar(self) -> Grammar | None:
        if self.forced_tools:
            return Grammar("json_schema", json.dumps(tool_call_schema(self.offered_tools, self.forced_tools)))
        form = None if self.text is None else self.text.format
        if isinstance(form, SchemaFormat):
            return Grammar("json_schema", json.dumps(form.schema_))
        return Grammar("json_schema", '{"type": "object"}') if isinstance(form, AnyObjectFormat) else None


def _formatted(text: TextConfig | None) -> bool:
    return text is not None and not isinstance(text.format, PlainFormat | None)
