"""A model behind an OpenAI-compatible API instead of weights in this process. Layer: llm, light: no torch,
no web framework.

    backend = RemoteBackend(config.model.remote, config.model.served_name, api_key=key)
    await backend.check()

Read in this order: backend (the Backend), mapping and answer (the wire format, pure), client (HTTP), retry
and breaker (when to call again and when not at all), scoring (probabilities of candidates), errors.
"""

from agent_runtime.llm.remote.backend import RemoteBackend
from agent_runtime.llm.remote.errors import RemoteError

__all__ = ["RemoteBackend", "RemoteError"]
