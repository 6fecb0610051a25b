"""The runtime's whole HTTP application around a backend, served on loopback. Layer: tests.

The one idea: everything between the socket and the model is the product's own: routes, middleware, keys,
admission, the agent and its store.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai

from agent_runtime.access.gate import open_gate
from agent_runtime.agent.service import AgentService
from agent_runtime.agent.store import MemoryStore, Store
from agent_runtime.agent.tools.registry import ToolRegistry
from agent_runtime.api.service import Service, Serving
from agent_runtime.contract import RuntimeConfig
from agent_runtime.drain import InFlight
from agent_runtime.llm.base import Backend
from agent_runtime.observability.metrics import Metrics
from agent_runtime.observability.recorder import Recorder
from agent_runtime.parameters import LiveParameters
from agent_runtime.routes import build_app, guarded
from agent_runtime.state import State, Status
from tests.support.asgi_server import serving

MODEL = "geography"
KEYS = {"alice": "alice-" + "a" * 32, "bob": "bob-" + "b" * 32}


@dataclass
class ServedApi:
    """A running server, its parts, and the official client."""

    url: str
    service: Service
    http: httpx2.Client
    client: openai.OpenAI

    def as_key(self, name: str) -> openai.OpenAI:
        """The official client with this name's key."""
        return self.client.with_options(api_key=KEYS[name])

    def events(self, **body: Any) -> list[tuple[str, dict[str, Any]]]:
        """The events of a streamed response as they are on the wire: name and data."""
        answer = self.http.post("/v1/responses", json={**body, "stream": True})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        found = []
        for block in answer.text.strip("\n").split("\n\n"):
            name, data = block.split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
        return found


@contextmanager
def served(
    backend: Backend,
    *,
    sessions: dict[str, Any] | None = None,
    store: Store | None = None,
    keys_folder: Path | None = None,
    **settings: Any,
) -> Iterator[ServedApi]:
    """Serves a backend. `keys_folder` is filled with KEYS and makes them needed."""
    agent = {"sessions": sessions, **settings.pop("agent", {})}
    config = RuntimeConfig.model_validate(
        {
            "name": "agent",
            "namespace": "default",
            "revision": "abcd1234",
            "model": {"uri": "/models/geography", "served_name": MODEL},
            "agent": agent,
            "access": {} if keys_folder is None else {"api_keys_path": str(keys_folder)},
            **settings,
        }
    )
    for name, key in KEYS.items() if keys_folder is not None else ():
        (keys_folder / name).write_text(key)  # type: ignore[operator]
    gate = open_gate(config.access)
    recorder = Recorder(Metrics(MODEL), MODEL)
    ready = Status(State.READY, 0.0, "")
    service = Service(config, recorder, lambda: ready, LiveParameters(config.parameters), gate)
    runs = AgentService(backend, ToolRegistry(), MemoryStore() if store is None else store, config.agent)
    service.serving = Serving(backend, 0, runs)
    try:
        with (
            serving(guarded(build_app(service), service, InFlight())) as url,
            httpx2.Client(base_url=url, timeout=60, trust_env=False) as http,
            openai.OpenAI(
                base_url=f"{url}/v1",
                api_key="none",
                max_retries=0,
                http_client=httpx2.Client(trust_env=False, timeout=60),
                _strict_response_validation=True,
            ) as client,
        ):
            yield ServedApi(url, service, http, client)
    finally:
        if gate is not None:
            gate.source.stop()
