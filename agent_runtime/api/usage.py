"""The usage object both OpenAI endpoints share. Layer: api, pure."""

from __future__ import annotations

from agent_runtime.llm.base import Result


def usage(result: Result) -> dict[str, int]:
    """Token counts; the end-of-sequence token counts as generated."""
    return {
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
        "total_tokens": result.prompt_tokens + result.completion_tokens,
    }
