"""Reads the chunks of a streamed answer. Layer: llm.remote, pure: text in, events out.

The one idea: a remote's bytes are untrusted input. Every chunk is validated before any of it is used, an
answer counts only when the remote said how it ended, and what was asked for and did not come
(log-probabilities, JSON) is an error rather than an answer with a part missing.

Tool calls: a remote that parses its model's tool calls sends them as data, `delta.tool_calls`, in pieces. The
rest of the runtime knows one form, text, because every local model writes its calls as text and one parser
(agent_runtime.llm.tool_calls) reads them. So native calls are turned back into that text, in the Hermes form
`<tool_call>{"name": ..., "arguments": ...}</tool_call>`, after everything else the model said. `</` inside
arguments is written `<\\/`, which JSON reads as the same, so that no argument can end the block.

Text a reasoning model thinks aloud (`reasoning_content`) is not part of its answer and is dropped.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from agent_runtime.llm.base import Delta, FinishReason, Result, TokenLogprob
from agent_runtime.llm.remote.errors import Errors
from agent_runtime.llm.remote.estimate import tokens_of

IMPOSSIBLE = -9999.0
"""What OpenAI's API reports for a token of probability 0, whose logarithm JSON cannot write; some servers
write null."""
MAX_TOOL_CALLS = 128
"""OpenAI's bound on the tools of a request is 128; more calls in one answer are garbage."""

_FINISHED: dict[str, FinishReason] = {
    "stop": "stop",
    "tool_calls": "stop",
    "function_call": "stop",
    "length": "length",
    # Words of TGI and of servers derived from it.
    "eos_token": "stop",
    "stop_sequence": "stop",
}


def _logprob(value: Any) -> Any:
    """Null is an impossible token; rounding may put a certain one just above 0."""
    if value is None:
        return IMPOSSIBLE
    return 0.0 if isinstance(value, float) and 0.0 < value < 1e-3 else value


def _json_text(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict) else value


Logprob = Annotated[float, BeforeValidator(_logprob), Field(le=0.0, allow_inf_nan=False)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Alternative(_Shape):
    """A token the model might have chosen."""

    token: str
    logprob: Logprob
    octets: list[Annotated[int, Field(ge=0, le=255)]] | None = Field(default=None, alias="bytes")

    @property
    def raw(self) -> bytes:
        """Its bytes; those of its text when the remote sends none."""
        return self.token.encode(errors="replace") if self.octets is None else bytes(self.octets)


class Chosen(Alternative):
    """A generated token with the likeliest instead."""

    top_logprobs: list[Alternative] | None = None


class Logprobs(_Shape):
    """Log-probabilities in the form of /chat/completions (`content`) or of /completions (parallel lists)."""

    content: list[Chosen] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[Annotated[float, Field(le=1e-3, allow_inf_nan=False)] | None] | None = None
    top_logprobs: list[dict[str, Logprob] | None] | None = None

    def generated(self) -> tuple[TokenLogprob, ...]:
        """One per token, in whichever form they came. Raises ValueError when the lists disagree."""
        if self.content is not None:
            return tuple(_chosen(token) for token in self.content)
        tokens, values = self.tokens or [], self.token_logprobs or []
        tops = self.top_logprobs or [None] * len(tokens)
        if not len(tokens) == len(values) == len(tops):
            raise ValueError("the lists of log-probabilities differ in length")
        return tuple(
            TokenLogprob(
                token,
                token.encode(errors="replace"),
                IMPOSSIBLE if value is None else min(0.0, value),
                tuple((text, text.encode(errors="replace"), lp) for text, lp in _descending(top or {})),
            )
            for token, value, top in zip(tokens, values, tops, strict=True)
        )


class _Function(_Shape):
    name: str | None = None
    arguments: Annotated[str | None, BeforeValidator(_json_text)] = None


class _ToolCall(_Shape):
    index: int = Field(default=0, ge=0, lt=MAX_TOOL_CALLS)
    function: _Function | None = None


class _Piece(_Shape):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(_Shape):
    index: int = 0
    delta: _Piece | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class Usage(_Shape):
    """Tokens read and generated, as the remote counts them."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(default=0, ge=0)


class _Chunk(_Shape):
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    error: Any = None


class AnswerReader:
    """Feeds on the data of a stream's events; gives the deltas, then the result.

    `prompt_tokens` is the estimate that stands in when the remote reports no usage. Its methods raise
    RemoteError.
    """

    def __init__(
        self, errors: Errors, *, chat: bool, want_logprobs: bool, want_json: bool, prompt_tokens: int
    ) -> None:
        self._errors, self._chat = errors, chat
        self._want_logprobs, self._want_json = want_logprobs, want_json
        self._prompt_tokens = prompt_tokens
        self._text: list[str] = []
        self._calls: dict[int, tuple[str, list[str]]] = {}
        self._logprobs = 0
        self._finish: FinishReason | None = None
        self.usage: Usage | None = None

    @property
    def finished(self) -> bool:
        """Whether the remote said how the answer ended; only usage may still come."""
        return self._finish is not None

    @property
    def lacks_logprobs(self) -> bool:
        """Whether log-probabilities were asked for and silently left out."""
        return self._want_logprobs and not self._logprobs and any(self._text)

    def feed(self, data: str) -> list[Delta]:
        """The deltas of one event's data, perhaps none."""
        try:
            chunk = _Chunk.model_validate_json(data)
        except ValidationError as error:
            raise self._errors.garbage(_first_complaint(error)) from None
        if chunk.error is not None:
            raise self._errors.in_stream(chunk.error)
        if chunk.usage is not None:
            self.usage = chunk.usage
        elif chunk.choices is None:
            raise self._errors.garbage("a chunk without 'choices'")
        return [d for choice in chunk.choices or () if choice.index == 0 for d in self._choice(choice)]

    def finish(self) -> tuple[list[Delta], Result]:
        """After the last event: the rendered tool calls, if any, and the result."""
        if self._finish is None:
            raise self._errors.cut("the stream ended without a finish_reason")
        said = "".join(self._text)
        if self.lacks_logprobs:
            raise self._errors.no_logprobs()
        calls = self._rendered_calls(bool(said))
        if self._want_json and self._finish == "stop" and not calls and not _is_json(said):
            raise self._errors.garbage("it was asked for JSON by response_format and answered something else")
        text = said + calls
        if self.usage is not None:
            prompt, completion = self.usage.prompt_tokens, self.usage.completion_tokens
        else:
            prompt, completion = self._prompt_tokens, self._logprobs or tokens_of(text)
        return [Delta(calls)] if calls else [], Result(text, self._finish, prompt, completion)

    def _choice(self, choice: _Choice) -> list[Delta]:
        piece = choice.delta or _Piece()
        text = (piece.content or piece.refusal or "") if self._chat else (choice.text or "")
        for call in piece.tool_calls or ():
            self._tool_call(call)
        try:
            logprobs = choice.logprobs.generated() if choice.logprobs and self._want_logprobs else ()
        except ValueError as error:
            raise self._errors.garbage(str(error)) from None
        if choice.finish_reason:  # some servers write "" for null
            self._finish = self._finish_reason(choice.finish_reason)
        self._text.append(text)
        self._logprobs += len(logprobs)
        return [Delta(text, logprobs)] if text or logprobs else []

    def _finish_reason(self, reason: str) -> FinishReason:
        if reason == "content_filter":
            raise self._errors.refused("withheld the answer: its content filter stopped it.")
        if reason not in _FINISHED:
            raise self._errors.cut(f"it gave the finish_reason '{self._errors.clean(reason)}'")
        return _FINISHED[reason]

    def _tool_call(self, call: _ToolCall) -> None:
        name, arguments = self._calls.get(call.index, ("", []))
        if call.function is not None:
            name = name or call.function.name or ""
            arguments.append(call.function.arguments or "")
        self._calls[call.index] = (name, arguments)

    def _rendered_calls(self, after_text: bool) -> str:
        blocks = [
            render_tool_call(name, "".join(parts)) for _, (name, parts) in sorted(self._calls.items()) if name
        ]
        return ("\n" if after_text and blocks else "") + "\n".join(blocks)


def render_tool_call(name: str, arguments: str) -> str:
    """A native call as a model would have written it. Arguments that are not JSON are kept as a string, for
    the parser to complain about; empty ones are an empty object."""
    try:
        value = json.loads(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError):
        value = arguments
    call = json.dumps({"name": name, "arguments": value}, ensure_ascii=False).replace("</", "<\\/")
    return f"<tool_call>{call}</tool_call>"


def _chosen(token: Chosen) -> TokenLogprob:
    top = tuple((item.token, item.raw, item.logprob) for item in token.top_logprobs or ())
    return TokenLogprob(token.token, token.raw, token.logprob, top)


def _descending(top: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(top.items(), key=lambda item: -item[1])


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _first_complaint(error: ValidationError) -> str:
    """Where and why a chunk is wrong, without quoting it: it may hold anything."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"a chunk that is not JSON ({first['msg']})" if not place else f"{place}: {first['msg']}"
