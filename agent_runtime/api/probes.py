"""Probes and the list of models. Layer: api.

The one idea: a probe's answer is a pure function of the state and says why, so that `kubectl describe` and
`curl` tell the same story.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_runtime import state
from agent_runtime.api.service import Service


def _answer(request: Request, decide: Callable[[state.Status], state.Verdict]) -> Response:
    status = request.app.state.service.status()
    verdict = decide(status)
    body = {
        "state": status.state.value,
        "since": datetime.fromtimestamp(status.since, UTC).isoformat(timespec="milliseconds"),
        "reason": verdict.reason,
    }
    return JSONResponse(body, 200 if verdict.ok else 503)


async def startup(request: Request) -> Response:
    """GET /health/startup: 200 from the first READY on."""
    return _answer(request, state.startup)


async def ready(request: Request) -> Response:
    """GET /health/ready: 200 while new requests are welcome and the engine is not stalled."""
    return _answer(request, _with_activity(request, state.readiness))


async def live(request: Request) -> Response:
    """GET /health/live: 200 while the engine is idle or makes progress."""
    return _answer(request, _with_activity(request, state.liveness))


def _with_activity(
    request: Request, decide: Callable[[state.Status, state.Activity, float], state.Verdict]
) -> Callable[[state.Status], state.Verdict]:
    service: Service = request.app.state.service
    return lambda status: decide(status, service.activity(), service.config.stall_seconds)


async def models(request: Request) -> Response:
    """GET /v1/models: the one served model."""
    return JSONResponse({"object": "list", "data": [_model(request.app.state.service)]})


async def model(request: Request) -> Response:
    """GET /v1/models/{id}."""
    service: Service = request.app.state.service
    service.check_model(request, request.path_params["model"])
    return JSONResponse(_model(service))


def _model(service: Service) -> dict[str, Any]:
    serving, config = service.require_ready(), service.config
    info, able = serving.backend.info, serving.backend.capabilities
    return {
        "id": config.model.served_name,
        "object": "model",
        "created": serving.created,
        "owned_by": "agent-operator",
        "root": config.model.uri,
        "max_model_len": service.context(),
        "architecture": info.architecture,
        "device": info.device,
        "dtype": info.dtype,
        "parameters": info.parameters,
        "capabilities": {
            "tools": able.chat_tools,
            "structured_output": sorted(able.grammar),
            "top_logprobs": max(0, able.top_logprobs),
            "decide": able.score,
        },
    }
