"""What OpenAI's objects and errors look like here, for /openapi.json. Layer: api, pure: pydantic only.

The one idea: the endpoints build their answers as plain dictionaries, because that is fastest; the same
shapes are written down here once more, closed (no unknown field), and a schema fuzzer compares the two. A
field with a default here is one that an answer may lack.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent_runtime.api.responses_schema import Format, NamedFunctionChoice
from agent_runtime.llm.base import FinishReason as EndReason
from agent_runtime.llm.base import GrammarKind


class Shape(BaseModel):
    """An answer, or a part of one."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(Shape):
    """What is wrong and how to mend it; `param` is the path of the field at fault."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorObject(Shape):
    """Every error, on every path."""

    error: ErrorDetail


class ProbeObject(Shape):
    """What a probe says, and why."""

    state: str
    since: str
    reason: str


class ModelCapabilities(Shape):
    """What requests may ask of the model."""

    tools: bool
    structured_output: list[GrammarKind]
    top_logprobs: int
    decide: bool


class ModelObject(Shape):
    """The served model. `parameters` is 0 when unknown, `max_model_len` in tokens."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    max_model_len: int
    architecture: str
    device: str
    dtype: str
    parameters: int
    capabilities: ModelCapabilities


class ModelListObject(Shape):
    """The one served model."""

    object: Literal["list"]
    data: list[ModelObject]


class UsageObject(Shape):
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AlternativeToken(Shape):
    """A token that was likely at a position; `bytes` is its UTF-8."""

    token: str
    bytes: list[int]
    logprob: float


class LogprobToken(AlternativeToken):
    """A generated token, and the likeliest at its position."""

    top_logprobs: list[AlternativeToken]


class ChatLogprobs(Shape):
    """Log-probabilities of a chat answer."""

    content: list[LogprobToken]
    refusal: None


class CalledFunction(Shape):
    """The function of a call; `arguments` is JSON text."""

    name: str
    arguments: str


class ToolCallObject(Shape):
    """A call the model asks for."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatAnswer(Shape):
    """The assistant's message."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[ToolCallObject] = Field(default_factory=list)


class ChatChoice(Shape):
    """One of `n` answers."""

    index: int
    message: ChatAnswer
    logprobs: ChatLogprobs | None
    finish_reason: EndReason | Literal["tool_calls"]


class ChatCompletionObject(Shape):
    """Answer of POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: UsageObject


class TextLogprobs(Shape):
    """Log-probabilities of a completion, as parallel lists."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(Shape):
    """One of `n` completions."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: EndReason


class TextCompletionObject(Shape):
    """Answer of POST /v1/completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: UsageObject


class ResponsePart(Shape):
    """The text of a message."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] = Field(max_length=0)
    logprobs: list[LogprobToken]


class ResponseMessage(Shape):
    """What the model said."""

    id: str
    type: Literal["message"]
    status: Literal["completed", "incomplete"]
    role: Literal["assistant"]
    content: list[ResponsePart]


class ResponseCall(Shape):
    """A call the model asks for; `arguments` is JSON text."""

    id: str
    type: Literal["function_call"]
    status: Literal["completed"]
    call_id: str
    name: str
    arguments: str


class ResponseTool(Shape):
    """A tool that was offered; `strict`: its arguments are certain to follow `parameters`."""

    type: Literal["function"]
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool


class ResponseText(Shape):
    """The form of the text in force."""

    format: Format
    verbosity: Literal["medium"]


class ResponseReasoning(Shape):
    """There is none."""

    effort: None
    summary: None


class IncompleteDetails(Shape):
    """Why the response was cut."""

    reason: Literal["max_output_tokens"]


class InputTokenDetails(Shape):
    """There is no cache."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokenDetails(Shape):
    """There is no reasoning apart from the answer."""

    reasoning_tokens: int


class ResponseUsage(Shape):
    """Token counts."""

    input_tokens: int
    input_tokens_details: InputTokenDetails
    output_tokens: int
    output_tokens_details: OutputTokenDetails
    total_tokens: int


class ResponseObject(Shape):
    """A finished response. `store` says whether it was kept."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["completed", "incomplete"]
    model: str
    store: bool
    background: Literal[False]
    error: None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: None
    metadata: dict[str, str]
    output: list[ResponseMessage | ResponseCall]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: ResponseReasoning
    safety_identifier: str | None
    service_tier: Literal["default"]
    temperature: float
    text: ResponseText
    tool_choice: Literal["none", "auto", "required"] | NamedFunctionChoice
    tools: list[ResponseTool]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    usage: ResponseUsage
    user: str | None


class DeletedObject(Shape):
    """It is forgotten."""

    id: str
    object: str
    deleted: Literal[True]
