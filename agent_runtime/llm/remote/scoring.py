"""P(candidate | prompt) from what a remote reports. Layer: llm.remote.

The one idea: two questions whose answers an OpenAI-compatible API may reveal, tried in this order; whether
the first works is remembered.

1. Echo, for raw text: `/completions` with `echo` returns the log-probability of every token of a given text.
   The candidate is appended to the prompt and its own tokens are read (vLLM, SGLang, OpenAI's base models;
   llama.cpp and chat models refuse it). This is log P(candidate | prompt) as lm-evaluation-harness computes
   it for its `openai-completions` models: white space at the end of the prompt is counted to the candidate,
   because tokenizers put a space in front of a word, so all scores of one call share the factor P(white
   space | prompt) and their ratios are right. The end of the sequence cannot be echoed, so the score is that
   of the candidate as the *beginning* of the answer: used only when no candidate is the beginning of another
   one, where these events exclude each other.
2. Labels, for everything else: the candidates are listed as `A) ...`, the model is asked for one letter, and
   the distribution of the first token is read from `top_logprobs`. This is the model's stated choice among
   the candidates, not the probability of their words; it depends on the order given (models favour some
   letters) and works up to 20 candidates, the most alternatives the API reports. A letter the remote did not
   report gets the largest log-probability it can have: that of the least likely token reported, or of the
   mass all reported ones leave, whichever is smaller: an upper bound, never an underestimate.

Tokens are found by counting from the end of the echoed text, not by `text_offset`: servers derive it from
the tokens' own renderings, and it drifts with every token that is half a character. White space is left out
of the comparison, because renderings of single tokens lose it (sentencepiece). What cannot be aligned is
asked by labels.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agent_runtime.llm.base import Chat, Prompt, Score, Text
from agent_runtime.llm.chat import Message
from agent_runtime.llm.remote.answer import Alternative, Logprobs
from agent_runtime.llm.remote.client import RemoteClient
from agent_runtime.llm.remote.errors import Errors, RemoteError
from agent_runtime.llm.remote.mapping import (
    MAX_TOP_LOGPROBS,
    Lessons,
    echo_body,
    label_body,
    lesson_of,
    logprobs_lesson,
    without_logprobs,
)

LABELS = "ABCDEFGHIJKLMNOPQRST"
PARALLEL = 8
"""Echo requests of one call under way at once."""
SMALLEST_MASS = 1e-12
"""Stands for a remaining mass that rounding made zero or negative."""

_SPACE = re.compile(r"[\s▁ĠĊ]+")
"""White space, and how vocabularies write it where a server shows raw tokens."""


class _Choice(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    text: str = ""
    logprobs: Logprobs | None = None


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    choices: list[_Choice] = Field(min_length=1)


_ANSWER = TypeAdapter(_Answer)


class Memory:
    """The lessons of one remote, shared by its requests; `changed` hears of every new one."""

    def __init__(self, changed: Callable[[Lessons], None]) -> None:
        self.lessons = Lessons()
        self._changed = changed

    def learn(self, lessons: Lessons) -> None:
        """Replaces what is known."""
        if lessons != self.lessons:
            self.lessons = lessons
            self._changed(lessons)


def can_echo(prompt: Prompt, candidates: Sequence[str]) -> bool:
    """Whether echoing would answer the question: raw text, and candidates that exclude each other."""
    if not isinstance(prompt, Text) or not all(_visible(candidate) for candidate in candidates):
        return False
    ordered = sorted(set(candidates))
    # In sorted order a beginning stands directly before what it begins, or before another of its kind.
    exclusive = not any(after.startswith(before) for before, after in itertools.pairwise(ordered))
    return exclusive and len({_leading_space(candidate) for candidate in candidates}) == 1


def candidate_logprobs(
    prompt: str, candidate: str, echoed: str, tokens: Sequence[str], values: Sequence[float | None]
) -> tuple[float, ...] | None:
    """The log-probabilities of the candidate's tokens in an echo of prompt + candidate, by the module's
    rules; None when the tokens cannot be aligned with the candidate."""
    if len(tokens) != len(values):
        return None
    wanted = _visible(candidate)
    generated = (1,) if len(echoed) > len(prompt + candidate) else (0, 1)
    for tail in generated:  # one token may have been generated: visible, or an end-of-sequence without text
        first = _start(tokens, len(tokens) - tail, wanted)
        if first is None:
            continue
        while _visible(prompt) and first > 0 and not _visible(tokens[first - 1]):
            first -= 1  # white space between the prompt and the candidate
        found = [value for value in values[first : len(tokens) - tail] if value is not None]
        return tuple(found) if len(found) == len(tokens) - tail - first else None
    return None


def label_prompt(prompt: Prompt, candidates: Sequence[str]) -> list[Message]:
    """The conversation that asks for one letter. The question goes into the last user message, because many
    chat templates refuse two of them in a row."""
    listed = "\n".join(f"{label}) {text}" for label, text in zip(LABELS, candidates, strict=False))
    question = f"Which of these is the best answer?\n{listed}\n\nReply with the letter only."
    messages = list(prompt.messages) if isinstance(prompt, Chat) else [Message("user", prompt.text)]
    if messages and messages[-1].role == "user":
        messages[-1] = replace(messages[-1], content=f"{messages[-1].content}\n\n{question}")
    else:
        messages.append(Message("user", question))
    return messages


def label_logprobs(top: Sequence[tuple[str, float]], count: int) -> list[float] | None:
    """The log-probability of each of the first `count` labels, from the (token, log-probability) pairs of one
    position; variants with white space around the letter are added up. Letters not reported get the bound of
    the module's docstring. None when no letter was reported: the model did not answer the question."""
    found: list[list[float]] = [[] for _ in range(count)]
    for token, value in top:
        letter = _visible(token)
        if len(letter) == 1 and letter in LABELS[:count]:
            found[LABELS.index(letter)].append(value)
    if not any(found):
        return None
    left = max(SMALLEST_MASS, 1.0 - sum(math.exp(value) for _, value in top))
    bound = min(math.log(left), *(value for _, value in top))
    return [_log_sum(values) if values else bound for values in found]


class Scorer:
    """Asks the questions."""

    def __init__(self, client: RemoteClient, errors: Errors, model: str, memory: Memory) -> None:
        self._client, self._errors, self._model, self._memory = client, errors, model, memory

    async def scores(self, prompt: Prompt, candidates: Sequence[str], deadline: float | None) -> list[Score]:
        """The scores in the order given. Raises RemoteError."""
        if not candidates:
            return []
        if can_echo(prompt, candidates):
            assert isinstance(prompt, Text)  # noqa: S101 - can_echo says so
            found = await self._by_echo(prompt.text, candidates, deadline)
            if found is not None:
                return found
        return await self._by_labels(prompt, candidates, deadline)

    async def _by_echo(
        self, prompt: str, candidates: Sequence[str], deadline: float | None
    ) -> list[Score] | None:
        """None when this remote cannot, or these tokens cannot be aligned."""
        first = await self._echo(prompt, candidates[0], deadline)
        if first is None:
            return None
        slots = asyncio.Semaphore(PARALLEL)

        async def one(candidate: str) -> tuple[float, ...] | None:
            async with slots:
                return await self._echo(prompt, candidate, deadline)

        try:
            async with asyncio.TaskGroup() as group:
                rest = [group.create_task(one(candidate)) for candidate in candidates[1:]]
        except BaseExceptionGroup as failed:  # one failure cancels the others; the caller gets the first
            raise failed.exceptions[0] from None
        found = [first, *(task.result() for task in rest)]
        pairs = [(c, values) for c, values in zip(candidates, found, strict=True) if values is not None]
        return [Score(c, values) for c, values in pairs] if len(pairs) == len(candidates) else None

    async def _echo(self, prompt: str, candidate: str, deadline: float | None) -> tuple[float, ...] | None:
        lessons = self._memory.lessons
        if not lessons.echo:
            return None
        try:
            body = echo_body(self._model, prompt + candidate, lessons)
            answer = await self._client.fetch("POST", "completions", self._parse, body, deadline)
        except RemoteError as error:
            if not self._echo_refused(error, lessons):
                raise
            return await self._echo(prompt, candidate, deadline)
        choice = answer.choices[0]
        logprobs = choice.logprobs or Logprobs()
        tokens, values = logprobs.tokens or [], logprobs.token_logprobs or []
        if not tokens or not choice.text.startswith(prompt + candidate):
            self._memory.learn(replace(self._memory.lessons, echo=False))  # silently ignored
            return None
        return candidate_logprobs(prompt, candidate, choice.text, tokens, values)

    def _echo_refused(self, error: RemoteError, used: Lessons) -> bool:
        """Whether the refusal is about echoing, which is then remembered, and not about this request."""
        now, said = self._memory.lessons, error.said.lower()
        if error.status in (400, 422) and "max_tokens" in said and used.echo_tokens == 0:
            self._memory.learn(replace(now, echo_tokens=1))
            return True
        about_echo = any(word in said for word in ("echo", "logprobs", "chat model"))
        if error.status in (404, 405, 501) or (
            error.code in ("remote_refused", "remote_denied") and about_echo
        ):
            self._memory.learn(replace(now, echo=False))
            return True
        return False

    async def _by_labels(
        self, prompt: Prompt, candidates: Sequence[str], deadline: float | None
    ) -> list[Score]:
        messages = label_prompt(prompt, candidates)
        for _ in range(MAX_TOP_LOGPROBS):  # every refusal that is not final lowers a bound
            lessons = self._memory.lessons
            self._check_count(len(candidates), lessons)
            try:
                body = label_body(self._model, messages, lessons)
                answer = await self._client.fetch("POST", "chat/completions", self._parse, body, deadline)
            except RemoteError as error:
                if not self._label_refused(error, lessons):
                    raise
                continue
            return self._label_scores(answer, candidates)
        raise self._errors.no_logprobs()

    def _check_count(self, count: int, lessons: Lessons) -> None:
        if lessons.top_logprobs < 1:
            raise self._errors.no_logprobs()
        if count > lessons.top_logprobs:
            raise self._errors.refused(
                f"can choose exactly among at most {lessons.top_logprobs} candidates, not {count}: it "
                "reports no more alternatives per token. Offer fewer, or use a local model."
            )

    def _label_refused(self, error: RemoteError, used: Lessons) -> bool:
        if error.status not in (400, 403, 422):
            return False
        now = self._memory.lessons
        lesson = lesson_of(now, error.said) or logprobs_lesson(now, error.said, used.top_logprobs)
        if lesson is not None:
            self._memory.learn(lesson)
        return self._memory.lessons != used

    def _label_scores(self, answer: _Answer, candidates: Sequence[str]) -> list[Score]:
        logprobs = answer.choices[0].logprobs
        if logprobs is None or not logprobs.content:
            self._memory.learn(without_logprobs(self._memory.lessons))
            raise self._errors.no_logprobs()
        top: list[Alternative] = logprobs.content[0].top_logprobs or [logprobs.content[0]]
        values = label_logprobs([(item.token, item.logprob) for item in top], len(candidates))
        if values is None:
            raise self._errors.garbage("no letter where it was asked for one of several letters")
        return [Score(candidate, (value,)) for candidate, value in zip(candidates, values, strict=True)]

    def _parse(self, body: bytes) -> _Answer:
        try:
            return _ANSWER.validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "body"
            raise self._errors.garbage(f"{place}: {first['msg']}") from None


def _visible(text: str) -> str:
    return _SPACE.sub("", text)


def _log_sum(values: Sequence[float]) -> float:
    """log of the sum of exp(values), at most 0; exact for one value and for values exp() cannot hold."""
    most = max(values)
    return min(0.0, most + math.log(sum(math.exp(value - most) for value in values)))


def _leading_space(text: str) -> str:
    return text[: len(text) - len(text.lstrip())]


def _start(tokens: Sequence[str], end: int, wanted: str) -> int | None:
    """Where the tokens before `end` that make up exactly `wanted` (white space aside) begin."""
    seen = ""
    for index in range(end - 1, -1, -1):
        seen = _visible(tokens[index]) + seen
        if len(seen) >= len(wanted):
            return index if seen == wanted else None
    return None
