"""What a request looks like on the wire, and what refusals teach about a remote. Layer: llm.remote, pure.

The one idea: "OpenAI-compatible" is a family of dialects. A field that every server knows is always sent; one
that only some know is sent when the caller set it, never with its default; and where servers disagree about
a field that is always needed, the first refusal that names it is remembered and the request repeated.

Fields beyond OpenAI's, sent only when set: `top_k`, `min_tokens`, `ignore_eos` (vLLM, SGLang, llama.cpp and
this runtime know them).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from agent_runtime.llm.base import Chat, Grammar, Sampling, Text
from agent_runtime.llm.chat import Message

MAX_TOP_LOGPROBS = 20
"""OpenAI's upper bound of `top_logprobs`, and the default one of vLLM."""

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Lessons:
    """What this remote has taught so far.

    `token_limit` is the name of the bound on generated tokens in /chat/completions (OpenAI's newer models
    refuse `max_tokens`, older servers do not know `max_completion_tokens`); `stream_options` whether usage
    can be asked for in a stream (Mistral's API, for one, refuses it); `top_logprobs` as in
    base.Capabilities; `echo` whether /completions scores a given text, as far as known; `echo_tokens` the
    smallest `max_tokens` it takes then.
    """

    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # noqa: S105
    stream_options: bool = True
    top_logprobs: int = MAX_TOP_LOGPROBS
    echo: bool = True
    echo_tokens: int = 0


def chat_body(model: str, chat: Chat, sampling: Sampling, lessons: Lessons) -> Body:
    """The body of a streamed POST /chat/completions. Raises ValueError for a grammar it cannot carry."""
    body: Body = {
        "model": model,
        "messages": [message_body(message) for message in chat.messages],
        lessons.token_limit: sampling.max_tokens,
    }
    if chat.tools:
        body["tools"] = [tool.openai() for tool in chat.tools]
    if sampling.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
    if sampling.grammar is not None:
        body["response_format"] = response_format(sampling.grammar)
    return body | _common(sampling) | _streamed(lessons)


def text_body(model: str, prompt: Text, sampling: Sampling, lessons: Lessons) -> Body:
    """The body of a streamed POST /completions. Raises ValueError for a grammar: this endpoint has no field
    for one, and servers that do not know it would answer unconstrained."""
    if sampling.grammar is not None:
        raise ValueError("takes structured output only for conversations: use messages instead of a prompt")
    body: Body = {"model": model, "prompt": prompt.text, "max_tokens": sampling.max_tokens}
    if sampling.top_logprobs is not None:
        body["logprobs"] = sampling.top_logprobs
    return body | _common(sampling) | _streamed(lessons)


def message_body(message: Message) -> Body:
    """A message as OpenAI's API writes it. A tool message is tied to its call by id; `name` is not a field
    of it there, so it is sent only when there is no id."""
    body: Body = {"role": message.role, "content": message.content}
    if message.tool_calls:
        body["content"] = message.content or None
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    elif message.name is not None:
        body["name"] = message.name
    return body


def response_format(grammar: Grammar) -> Body:
    """The field that makes the remote keep to a JSON schema. Raises ValueError for other grammars, which
    OpenAI's API cannot express. `strict`, because without it a server may treat the schema as a hint."""
    if grammar.kind != "json_schema":
        raise ValueError(f"offers structured output as json_schema only, not as {grammar.kind}")
    try:
        schema = json.loads(grammar.text)
    except (ValueError, RecursionError):
        raise ValueError("cannot be given this JSON schema: it is not JSON") from None
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def echo_body(model: str, text: str, lessons: Lessons) -> Body:
    """The body of a POST /completions that reports the log-probabilities of a given text."""
    return {"model": model, "prompt": text, "echo": True, "logprobs": 1, "max_tokens": lessons.echo_tokens}


def label_body(model: str, messages: Sequence[Message], lessons: Lessons) -> Body:
    """The body of a POST /chat/completions that reports the likeliest first tokens of the answer.

    The temperature is 1 because some servers report the probabilities after it; the token drawn is ignored.
    """
    return {
        "model": model,
        "messages": [message_body(message) for message in messages],
        lessons.token_limit: 1,
        "temperature": 1.0,
        "logprobs": True,
        "top_logprobs": lessons.top_logprobs,
    }


def encode_body(body: Body) -> bytes:
    """The body as JSON in ASCII, so that even half a surrogate pair arrives. Raises ValueError for NaN and
    for what JSON cannot hold."""
    try:
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def lesson_of(lessons: Lessons, said: str) -> Lessons | None:
    """What a refusal of a generation teaches about fields that are always sent; None when nothing new."""
    if lessons.token_limit == "max_tokens" and "max_completion_tokens" in said:  # noqa: S105 - field name
        return replace(lessons, token_limit="max_completion_tokens")  # noqa: S106
    if lessons.stream_options and ("stream_options" in said or "include_usage" in said):
        return replace(lessons, stream_options=False)
    return None


def logprobs_lesson(lessons: Lessons, said: str, asked: int) -> Lessons | None:
    """What a refusal of `asked` alternatives teaches; None when it is about something else.

    Servers that have a smaller bound name it ("must be <= 5", "max allowed: 5"), so the largest number below
    the one asked for is the new bound; without one there are no log-probabilities. A number that meant
    something else is corrected by the next refusal, for the bound only falls.
    """
    if "logprobs" not in said.lower():
        return None
    smaller = [int(number) for number in re.findall(r"(?<![\w.-])\d{1,3}(?![\w.-]\w)", said)]
    return without_logprobs(lessons, max((n for n in smaller if n < asked), default=-1))


def without_logprobs(lessons: Lessons, limit: int = -1) -> Lessons:
    """The lessons with at most `limit` alternatives; -1 is no log-probabilities at all."""
    return replace(lessons, top_logprobs=min(lessons.top_logprobs, limit))


def _common(sampling: Sampling) -> Body:
    optional: Body = {
        "top_p": None if sampling.top_p == 1.0 else sampling.top_p,
        "top_k": sampling.top_k or None,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "presence_penalty": sampling.presence_penalty or None,
        "frequency_penalty": sampling.frequency_penalty or None,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias} or None,
        "min_tokens": sampling.min_tokens or None,
        "ignore_eos": sampling.ignore_eos or None,
    }
    body: Body = {"temperature": sampling.temperature}
    return body | {name: value for name, value in optional.items() if value is not None}


def _streamed(lessons: Lessons) -> Body:
    body: Body = {"stream": True}
    return body | ({"stream_options": {"include_usage": True}} if lessons.stream_options else {})
