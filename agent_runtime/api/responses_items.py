"""The items of a Responses conversation, and the messages they are to a model. Layer: api, pure: pydantic.

The one idea: what the server says can be said back to it. An item is the same whether a client sends it, a
response holds it or the store keeps it, so a conversation goes on by `previous_response_id` exactly as it
would by sending every item again. What a client cannot know but repeats (ids, states, log-probabilities of
earlier text) is taken; any other field, and every item or part this server has no use for, is refused by its
path and its type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from agent_runtime.api import errors
from agent_runtime.api.schema import NAME, Body
from agent_runtime.llm.chat import Message, ToolCall

MAX_ITEMS = 4096
MAX_PARTS = 1024

Id = Annotated[str, Field(min_length=1, max_length=256)]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


def only(kind: str, *known: str, default: str | None = None) -> Callable[[Any], Any]:
    """A check before a union by `type`: an object of another type is refused by the name of its type."""

    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        found = value.get("type", default)
        if isinstance(found, str) and found not in known:
            raise PydanticCustomError(
                "unsupported",
                "{kind} of type '{found}' are not supported by this server, only {known}",
                {"kind": kind, "found": found[:64], "known": ", ".join(known)},
            )
        return value

    return check


def type_tag(*known: str, default: str | None = None) -> Callable[[Any], str | None]:
    """The branch of a union by `type`. Tags are no identifiers, so `errors.field_path` leaves them out."""

    def tag(value: Any) -> str | None:
        found = value.get("type", default) if isinstance(value, dict) else getattr(value, "type", None)
        return f"type {found}" if found in known else None

    return tag


class InputText(Body):
    """Text that was read."""

    type: Literal["input_text"]
    text: str


class OutputText(Body):
    """Text that was generated."""

    type: Literal["output_text"]
    text: str
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: list[dict[str, Any]] | None = Field(default=None, exclude=True)


Part = Annotated[
    Annotated[InputText, Tag("type input_text")] | Annotated[OutputText, Tag("type output_text")],
    Discriminator(
        type_tag("input_text", "output_text"),
        custom_error_type="part",
        custom_error_message="it must be an object of type input_text or output_text",
    ),
    BeforeValidator(only("content parts", "input_text", "output_text")),
]
Parts = Annotated[list[Part], Field(min_length=1, max_length=MAX_PARTS)]


def text_or_list_tag(value: Any) -> str | None:
    """The branch of `TextOrParts` and of a request's input."""
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list) else None


TextOrParts = Annotated[
    Annotated[str, Tag("a text")] | Annotated[Parts, Tag("a list")],
    Discriminator(
        text_or_list_tag,
        custom_error_type="content",
        custom_error_message="it must be a string or a list of content parts",
    ),
]


class MessageItem(Body):
    """One message; `developer` is OpenAI's newer word for `system`."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: TextOrParts
    id: Id | None = None
    status: ItemStatus | None = None
    phase: None = None


class FunctionCallItem(Body):
    """A call the model asked for; `arguments` is JSON text."""

    type: Literal["function_call"]
    call_id: Id
    name: str = Field(pattern=NAME)
    arguments: str
    id: Id | None = None
    status: ItemStatus | None = None
    async_: None = Field(default=None, alias="async")
    caller: None = None
    namespace: None = None


class FunctionCallOutputItem(Body):
    """What came of a call that is earlier in the conversation."""

    type: Literal["function_call_output"]
    call_id: Id
    output: TextOrParts
    id: Id | None = None
    status: ItemStatus | None = None
    caller: None = None
    name: None = None
    namespace: None = None


Item = Annotated[
    Annotated[MessageItem, Tag("type message")]
    | Annotated[FunctionCallItem, Tag("type function_call")]
    | Annotated[FunctionCallOutputItem, Tag("type function_call_output")],
    Discriminator(
        type_tag("message", "function_call", "function_call_output", default="message"),
        custom_error_type="item",
        custom_error_message="it must be a message, a function_call or a function_call_output",
    ),
    BeforeValidator(only("items", "message", "function_call", "function_call_output", default="message")),
]


def messages(items: Sequence[Item], new: int) -> tuple[Message, ...]:
    """The conversation as a backend takes it; text parts are joined by newlines.

    A call joins the assistant's message before it, if there is one. The last `new` items are the request's
    own: raises ApiError naming the one that answers a call nobody made.
    """
    found: list[Message] = []
    names: dict[str, str] = {}
    for index, item in enumerate(items, new - len(items)):
        if isinstance(item, MessageItem):
            role = "system" if item.role == "developer" else item.role
            found.append(Message(role, _text(item.content)))
        elif isinstance(item, FunctionCallItem):
            names[item.call_id] = item.name
            call = ToolCall(item.call_id, item.name, item.arguments)
            if not found or found[-1].role != "assistant":
                found.append(Message("assistant", ""))
            found[-1] = replace(found[-1], tool_calls=(*found[-1].tool_calls, call))
        elif item.call_id in names:
            result = _text(item.output)
            found.append(Message("tool", result, tool_call_id=item.call_id, name=names[item.call_id]))
        else:
            raise errors.invalid_field(
                f"input[{index}].call_id", "no function_call with this call_id comes before it."
            )
    return tuple(found)


def _text(content: str | Sequence[InputText | OutputText]) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)
