"""From a model's text to the tool calls in it. Layer: llm, pure: standard library only.

The one idea: a call is believed only when it names an offered tool and carries a JSON object; whatever does
not is an answer like any other and stays in the content, so that nothing is called by accident and nothing a
model said is lost. The whole text and the stream of its pieces go through the same reader and give the same
result.

The forms, none of which needs to be announced:

- Hermes, Qwen 2.5 and 3: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, once per call;
- Llama 3: the whole answer is `{"name": ..., "parameters": {...}}`, perhaps after `<|python_tag|>`, several
  of them separated by `;`, or a JSON list of them;
- Mistral: `[TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]`, and `[TOOL_CALLS]NAME[ARGS]{...}` since
  its version 11; where decoding dropped the marker as a special token, the list is read like Llama's;
- Llama 3.1 custom tools: `<function=NAME>{...}</function>`.

`arguments` and `parameters` are taken alike. What is between `<think>` and `</think>` at the beginning of an
answer is never searched.

transformers 5.23 has `tokenizer.parse_response` and a streaming `ResponseParser`. Both need a
`response_template` from the tokenizer's own files, which few repositories ship; for Qwen 2 to 3.5 and Gemma
4 there are fallbacks inside its server, not in the library; Llama, Mistral and remote models have none.
They import transformers, want the decoded prompt, do not check a call against the offered tools, and raise
where the text inside a marker is not JSON. So this module reads the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agent_runtime.llm.chat import ToolCall, ToolSpec

_CALL, _CALL_END = "<tool_call>", "</tool_call>"
_MISTRAL = "[TOOL_CALLS]"
_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_MARKERS = (_CALL, _MISTRAL, _FUNCTION)
_PYTHON_TAG = "<|python_tag|>"
_THINK, _THINK_END = "<think>", "</think>"
_BARE = ('{"name":', '{"type":"function"', '{"function":', '{"parameters":', '{"arguments":')
"""How an answer begins, blanks left out, that may be a call from beginning to end."""

_FUNCTION_HEAD = re.compile(r"<function=([^<>\s]+)>")
_ARGS_HEAD = re.compile(r"([\w.\-]+)\[ARGS\]")


def parse_tool_calls(
    text: str, tools: Sequence[ToolSpec], new_id: Callable[[int], str]
) -> tuple[str, tuple[ToolCall, ...]]:
    """The content and the calls of a finished answer. `new_id` names the n-th call, counted from 0.

    Blanks between the content and a call are dropped.
    """
    stream = ToolCallStream(tools, new_id)
    return stream.feed(text) + stream.finish(), stream.calls


@dataclass(frozen=True, slots=True)
class _Found:
    """Calls (name, arguments as JSON) that end at `end`."""

    calls: tuple[tuple[str, str], ...]
    end: int


class _IncompleteError(Exception):
    """More text may turn it into a call."""


class _InvalidError(Exception):
    """No further text can."""


class ToolCallStream:
    """Reads an answer piece by piece; gives the content that is certainly content, and collects the
    calls."""

    def __init__(self, tools: Sequence[ToolSpec], new_id: Callable[[int], str]) -> None:
        self._offered = frozenset(tool.name for tool in tools)
        self._new_id = new_id
        self._calls: list[ToolCall] = []
        self._buffer = ""
        self._at_start = True
        self._thinking = False
        self._after_call = False

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls found so far; complete after `finish`."""
        return tuple(self._calls)

    def feed(self, piece: str) -> str:
        """The content that may be sent after this piece, perhaps empty."""
        if not self._offered:
            return piece
        self._buffer += piece
        return self._drain(final=False)

    def finish(self) -> str:
        """What was held back and turned out to be content, once no text follows."""
        return self._drain(final=True)

    def _drain(self, final: bool) -> str:
        content = ""
        while self._buffer:
            before = self._buffer
            content += self._step(final)
            if self._buffer == before:
                break
        return content

    def _step(self, final: bool) -> str:
        """Consumes a part of the buffer, or nothing when more text is needed."""
        if self._thinking:
            return self._think(final)
        if self._after_call:
            self._buffer = self._buffer.lstrip()
            self._after_call = not self._buffer
        if self._at_start and not self._start(final):
            return ""
        return self._marked(final)

    def _think(self, final: bool) -> str:
        end = self._buffer.find(_THINK_END)
        if end >= 0:
            self._thinking, self._at_start = False, True
            return self._take(end + len(_THINK_END))
        return self._take(len(self._buffer) - (0 if final else _partial(self._buffer, (_THINK_END,))))

    def _start(self, final: bool) -> bool:
        """Decides what the answer begins with; False while that cannot be told or a call was consumed."""
        text = self._buffer.lstrip()
        if text.startswith(_THINK):
            self._thinking, self._at_start = True, False
            return False
        if not final and (not text or _THINK.startswith(text) or _PYTHON_TAG.startswith(text)):
            return False
        try:
            found = self._bare(text.removeprefix(_PYTHON_TAG), final)
        except _IncompleteError:
            return False
        except _InvalidError:
            self._at_start = False
            return True
        self._found(found.calls)
        self._buffer, self._at_start = "", False
        return False

    def _bare(self, text: str, final: bool) -> _Found:
        """Calls that are the whole answer; anything after them makes it an answer instead."""
        compact = re.sub(r"\s", "", text[:256])
        compact = compact.removeprefix("[")
        if not any(head.startswith(compact) or compact.startswith(head) for head in _BARE):
            raise _InvalidError
        calls: list[tuple[str, str]] = []
        at = _skip(text, 0)
        while True:
            value, at = _json(text, at, final)
            items = value if isinstance(value, list) else [value]
            calls += [_call(item, self._offered) for item in items]
            at = _skip(text, at)
            if at == len(text) and calls:
                if final:
                    return _Found(tuple(calls), at)
                raise _IncompleteError
            if text[at : at + 1] != ";":
                raise _InvalidError
            at = _skip(text, at + 1)

    def _marked(self, final: bool) -> str:
        """Content up to the next marker, or the call behind a marker that is next."""
        starts = [at for at in (self._buffer.find(marker) for marker in _MARKERS) if at >= 0]
        if not starts:
            if final:
                return self._take(len(self._buffer))
            certain = len(self._buffer) - _partial(self._buffer, _MARKERS)
            return self._take(_before_blanks(self._buffer, certain))
        at = min(starts)
        if (end := _before_blanks(self._buffer, at)) > 0:
            return self._take(end)
        try:
            found = self._read(at, final)
        except _IncompleteError:
            return ""
        except _InvalidError:
            return self._take(at + 1)
        self._found(found.calls)
        self._buffer = self._buffer[found.end :]
        return ""

    def _read(self, at: int, final: bool) -> _Found:
        text = self._buffer
        if text.startswith(_CALL, at):
            value, end = _json(text, _skip(text, at + len(_CALL)), final, _CALL_END)
            return _Found((_call(value, self._offered),), _close(text, end, _CALL_END, final))
        if text.startswith(_FUNCTION, at):
            head = _FUNCTION_HEAD.match(text, at)
            if head is None:
                raise _InvalidError if final or ">" in text[at:] or len(text) - at > 256 else _IncompleteError
            value, end = _json(text, _skip(text, head.end()), final, _FUNCTION_END)
            call = _call({"name": head[1], "arguments": value}, self._offered)
            return _Found((call,), _close(text, end, _FUNCTION_END, final))
        return self._mistral(_skip(text, at + len(_MISTRAL)), final)

    def _mistral(self, at: int, final: bool) -> _Found:
        text = self._buffer
        if text.startswith("[", at):
            value, end = _json(text, at, final)
            calls = tuple(_call(item, self._offered) for item in value)
            if not calls:
                raise _InvalidError
            return _Found(calls, end)
        head = _ARGS_HEAD.match(text, at)
        if head is None:
            named = re.fullmatch(r"[\w.\-]*(\[(A(R(GS?)?)?)?)?", text[at : at + 256])
            raise _IncompleteError if named and not final else _InvalidError
        value, end = _json(text, _skip(text, head.end()), final)
        return _Found((_call({"name": head[1], "arguments": value}, self._offered),), end)

    def _found(self, calls: Sequence[tuple[str, str]]) -> None:
        for name, arguments in calls:
            self._calls.append(ToolCall(self._new_id(len(self._calls)), name, arguments))
        self._after_call, self._at_start = True, False

    def _take(self, end: int) -> str:
        piece, self._buffer = self._buffer[:end], self._buffer[end:]
        return piece


def _call(value: Any, offered: frozenset[str]) -> tuple[str, str]:
    """Name and arguments, as JSON text, of a call that may be believed. Raises _InvalidError."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or value["name"] not in offered:
        raise _InvalidError
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments, _ = _json(arguments, _skip(arguments, 0), True)
    if not isinstance(arguments, dict):
        raise _InvalidError
    text = json.dumps(arguments, ensure_ascii=False)
    if not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise _InvalidError  # half of a surrogate pair: no text, though json accepts it
    return value["name"], text


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_constant)


def _json(text: str, at: int, final: bool, closer: str | None = None) -> tuple[Any, int]:
    """The JSON value at `at` and where it ends. Raises _IncompleteError while more text may complete it."""
    if at < len(text) and text[at] not in "{[":
        raise _InvalidError
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        if final or (closer is not None and closer in text[at:]):
            raise _InvalidError from None
        raise _IncompleteError from None


def _close(text: str, at: int, closer: str, final: bool) -> int:
    """The end of `closer`, which the end of the answer may stand for."""
    at = _skip(text, at)
    if text.startswith(closer, at):
        return at + len(closer)
    if closer.startswith(text[at:]):
        if final:
            return len(text)
        raise _IncompleteError
    raise _InvalidError


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _before_blanks(text: str, end: int) -> int:
    return len(text[:end].rstrip())


def _partial(text: str, markers: Sequence[str]) -> int:
    """How many trailing characters may be the beginning of a marker."""
    longest = min(len(text), max(map(len, markers)) - 1)
    for size in range(longest, 0, -1):
        if any(marker.startswith(text[-size:]) for marker in markers):
            return size
    return 0
