"""How many tokens a prompt has for a model whose tokenizer is elsewhere. Layer: llm.remote, pure.

The one idea: a rule of thumb is wrong by a factor that is nearly constant for one tokenizer and one kind of
text, and every answer tells the true count, so the factor is learnt.

The rule: UTF-8 bytes divided by 4 (OpenAI's own rule of thumb is 4 characters of English per token; bytes
rather than characters, because scripts that need more bytes also need more tokens), plus, in a conversation,
3 tokens per message and 3 for the beginning of the answer (OpenAI's cookbook, "How to count tokens with
tiktoken"). Tools count as their JSON.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from agent_runtime.llm.base import Prompt, Text
from agent_runtime.llm.chat import Message

BYTES_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 3
TOKENS_PER_ANSWER = 3
WEIGHT = 0.2
"""Share of the newest observation in the moving average, once there are 1 / WEIGHT of them."""
BOUNDS = (1 / 8, 8.0)
"""The factor stays within these: one absurd usage report must not refuse or admit everything."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The learnt factor between the rule and the truth, and how many observations made it."""

    ratio: float = 1.0
    observations: int = 0


def tokens_of(text: str) -> int:
    """The rule for plain text."""
    return math.ceil(len(text.encode(errors="replace")) / BYTES_PER_TOKEN)


def raw_estimate(prompt: Prompt) -> int:
    """The rule for a prompt, uncorrected; at least 1."""
    if isinstance(prompt, Text):
        return max(1, tokens_of(prompt.text))
    tools = sum(tokens_of(json.dumps(tool.openai(), ensure_ascii=False)) for tool in prompt.tools)
    return TOKENS_PER_ANSWER + tools + sum(_message(message) for message in prompt.messages)


def corrected(calibration: Calibration, raw: int) -> int:
    """The rule's value times the learnt factor, rounded; at least 1."""
    return max(1, round(raw * calibration.ratio))


def observe(calibration: Calibration, raw: int, actual: int) -> Calibration:
    """The factor after the remote reported `actual` tokens for a prompt the rule gave `raw`.

    An exponential moving average of actual / raw with weight 0.2; the first five observations are averaged
    equally, so that the arbitrary start of 1 is forgotten at once.
    """
    if raw <= 0 or actual <= 0:
        return calibration
    count = calibration.observations + 1
    low, high = BOUNDS
    seen = min(high, max(low, actual / raw))
    weight = max(WEIGHT, 1 / count)
    return Calibration(calibration.ratio + weight * (seen - calibration.ratio), count)


def _message(message: Message) -> int:
    calls = "".join(call.name + call.arguments for call in message.tool_calls)
    return TOKENS_PER_MESSAGE + tokens_of(message.content + (message.name or "") + calls)
