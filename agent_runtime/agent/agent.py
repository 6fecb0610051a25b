"""The agent as a Python object. Layer: agent; torch is loaded by `from_pretrained`, not before.

The one idea: a notebook and the pod run the same engine, so an answer seen in one is the answer of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from agent_runtime.contract import ModelConfig
from agent_runtime.llm.base import Engine, Sampling
from agent_runtime.llm.chat import Message, with_system_prompt


def model_config(
    path_or_id: str,
    revision: str | None = None,
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto",
) -> ModelConfig:
    """What a person means by a model's name: a folder when it exists or looks like a path, else a hub id."""
    name = path_or_id.removeprefix("hf://")
    is_path = name == path_or_id and (Path(name).is_dir() or name.startswith((".", "/", "~")))
    path = str(Path(name).expanduser()) if is_path else None
    return ModelConfig(
        uri=path_or_id,
        served_name=Path(path).resolve().name if path else name,
        path=path,
        repo_id=None if path else name,
        revision=revision,
        dtype=dtype,
    )


class Agent:
    """A language model that answers.

    >>> agent = Agent.from_pretrained("google/flan-t5-xl")          # doctest: +SKIP
    >>> agent.generate_text("What is the capital of France?")       # doctest: +SKIP
    'paris'
    """

    def __init__(self, engine: Engine, system_prompt: str | None = None) -> None:
        self._engine = engine
        self._system_prompt = system_prompt

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str,
        *,
        revision: str | None = None,
        dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto",
        system_prompt: str | None = None,
    ) -> Self:
        """Load a model from a `save_pretrained` folder or by its hub id (the token is read from HF_TOKEN).

        Raises `agent_runtime.llm.failures.LoadError`, whose text says what failed and how to mend it.
        """
        from agent_runtime.llm.load import load_seq2seq
        from agent_runtime.llm.seq2seq import Seq2SeqEngine

        return cls(Seq2SeqEngine(load_seq2seq(model_config(path_or_id, revision, dtype))), system_prompt)

    def generate_text(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> str:
        """The answer to one prompt, as `POST /v1/chat/completions` with one user message would give it.

        `temperature` 0 takes the likeliest token each time; above it, `seed` makes the answer repeatable.
        """
        messages = with_system_prompt([Message("user", prompt)], self._system_prompt)
        sampling = Sampling(max_new_tokens, temperature, top_p, seed, tuple(stop))
        return self._engine.generate(self._engine.encode_chat(messages), sampling).text
