"""What an agent can do. Layer: agent; tools know nothing of runs, models or HTTP APIs of ours.

The one idea: a tool is a name, a JSON schema and a coroutine, wherever it lives: a Python function, an HTTP
endpoint, a tool of an MCP server. None of them runs code that a model wrote: a model chooses a tool and its
arguments, and the arguments are data.
"""

from __future__ import annotations

from agent_runtime.agent.tools.base import (
    NotSentError,
    Tool,
    ToolError,
    ToolOutput,
    ToolPolicy,
    TransportError,
)
from agent_runtime.agent.tools.functions import function_tool

__all__ = [
    "NotSentError",
    "Tool",
    "ToolError",
    "ToolOutput",
    "ToolPolicy",
    "TransportError",
    "function_tool",
]
