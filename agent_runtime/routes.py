"""The HTTP application of the serving port. Layer: app; Starlette.

The one idea: the list of what a client can call, and what becomes of every error, on one page.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from agent_runtime.access.middleware import AccessMiddleware
from agent_runtime.api import agent_runs, errors, openapi, probes
from agent_runtime.api.decide import decide
from agent_runtime.api.disconnect import ClientGoneError
from agent_runtime.api.openai_chat import chat_completions
from agent_runtime.api.openai_completions import completions
from agent_runtime.api.responses import cancel_response, create_response, delete_response, get_response
from agent_runtime.api.service import Service
from agent_runtime.api.tokenize import detokenize, tokenize
from agent_runtime.drain import InFlight
from agent_runtime.llm.base import GenerationError
from agent_runtime.middleware import RequestMiddleware
from agent_runtime.observability.tracing_middleware import TracingMiddleware

PROTECTED = ("/v1/", "/tokenize", "/detokenize")
"""Where a key is needed once keys are configured."""


def probe_routes() -> list[BaseRoute]:
    """The three probes, served on both ports."""
    return [
        Route("/health/startup", probes.startup),
        Route("/health/ready", probes.ready),
        Route("/health/live", probes.live),
    ]


def api_routes() -> list[BaseRoute]:
    """Everything under /v1, and its description."""
    return [
        Route("/openapi.json", openapi.document),
        Route("/v1/models", probes.models),
        Route("/v1/models/{model:path}", probes.model),
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/responses", create_response, methods=["POST"]),
        Route("/v1/responses/{id}", get_response, methods=["GET"]),
        Route("/v1/responses/{id}", delete_response, methods=["DELETE"]),
        Route("/v1/responses/{id}/cancel", cancel_response, methods=["POST"]),
        Route("/v1/decide", decide, methods=["POST"]),
        Route("/tokenize", tokenize, methods=["POST"]),
        Route("/detokenize", detokenize, methods=["POST"]),
        *agent_runs.routes(),
    ]


def build_app(service: Service) -> Starlette:
    """The application; `service` may still be without a model, and routes may be added when it has one."""
    app = Starlette(
        routes=[*probe_routes(), *api_routes()],
        exception_handlers={
            errors.ApiError: _api_error,
            GenerationError: _generation_error,
            HTTPException: _http_error,
            ClientGoneError: _client_gone,
            Exception: _defect,
        },
    )
    app.state.service = service
    return app


def guarded(app: Starlette, service: Service, in_flight: InFlight) -> ASGIApp:
    """The application behind what stands around every request: its trace, its id and log line, its key."""
    inner: ASGIApp = app
    if service.gate is not None:
        inner = AccessMiddleware(app, service.gate, PROTECTED, on_refused=service.key_refused)
    return TracingMiddleware(RequestMiddleware(inner, in_flight))


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.ApiError)  # noqa: S101 - Starlette dispatches by class
    request.state.error_code = error.code
    service: Service = request.app.state.service
    service.recorder.error_answered(error.status, error.code)
    return error.response()


async def _generation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GenerationError)  # noqa: S101 - Starlette dispatches by class
    return await _api_error(request, errors.from_generation(error))


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    return await _api_error(request, errors.http_error(status, request.method, request.url.path, headers))


async def _client_gone(request: Request, error: Exception) -> Response:
    # Nobody reads it; 499 is what proxies log for it.
    return Response(status_code=499)


async def _defect(request: Request, error: Exception) -> Response:
    return await _api_error(request, errors.internal())
