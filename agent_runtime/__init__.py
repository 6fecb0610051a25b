"""Agent runtime: serves one model of one agent, and is usable as a library. Layer: façade.

May import nothing heavy: `import agent_runtime` loads neither torch nor transformers, because the operator
imports `agent_runtime.contract` and a 2 GiB import there would be absurd. The one idea: a three-line
program is the same code path as the pod.

    from agent_runtime import Agent

    agent = Agent.from_pretrained("google/flan-t5-xl")
    print(agent.generate_text("What is the capital of France?"))

`from_pretrained` takes a hub id or a folder written by `save_pretrained`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_runtime.agent.agent import Agent

__all__ = ["Agent"]


def __getattr__(name: str) -> Any:
    """Load the façade on first use (PEP 562)."""
    if name == "Agent":
        from agent_runtime.agent.agent import Agent

        return Agent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
