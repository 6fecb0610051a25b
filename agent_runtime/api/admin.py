"""The second port: metrics, stats, and changes while serving. Layer: api.

The one idea: whoever reaches this port may look; changing needs more than reaching it. Looking is for
Prometheus and the operator, on a port that no Service and no Ingress exposes. A change needs the token whose
SHA-256 is configured, or an API key marked `admin`; where no token is configured, it is also taken from this
host itself (`kubectl exec`, `kubectl port-forward`). A request that a proxy or a browser passed on is not
from this host, whatever its peer address says: a service mesh's sidecar makes every peer look like loopback.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from agent_runtime.access.gate import Gate
from agent_runtime.api import errors
from agent_runtime.api.disconnect import ClientGoneError, until_disconnect
from agent_runtime.api.long_poll import LongPoll, poll_of
from agent_runtime.contract import AdminConfig
from agent_runtime.observability import logging as runtime_logging
from agent_runtime.observability.metrics import CONTENT_TYPE
from agent_runtime.parameters import (
    Change,
    InvalidParameterError,
    LiveParameters,
    NotAppliedError,
    NotChangeableError,
)
from agent_runtime.stats import Stats

log = logging.getLogger("agent_runtime.admin")

MAX_BODY_BYTES = 16 * 1024
_PASSED_ON = frozenset({"forwarded", "x-forwarded-for", "x-real-ip", "via", "origin"})


@dataclass(frozen=True, slots=True)
class Admin:
    """What the admin port shows and changes. `polls` holds back those who wait for news of `stats`;
    `refresh` sets the gauges of this moment before a scrape; `routes` are further ones, the probes;
    `on_change` is told the result of each change of parameters."""

    config: AdminConfig
    parameters: LiveParameters
    exposition: Callable[[], bytes]
    stats: Callable[[], Stats]
    polls: LongPoll
    refresh: Callable[[], None] = lambda: None
    gate: Gate | None = None
    routes: Sequence[BaseRoute] = field(default=())
    on_change: Callable[[str], None] = lambda result: None


def admin_app(admin: Admin) -> Starlette:
    """The application of the admin port."""
    app = Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/stats", stats),
            Route("/admin/parameters", parameters, methods=["GET"]),
            Route("/admin/parameters", change_parameters, methods=["PATCH"]),
            Route("/admin/parameters/history", history),
            Route("/admin/log-level", log_level, methods=["GET"]),
            Route("/admin/log-level", change_log_level, methods=["PUT"]),
            *admin.routes,
        ],
        exception_handlers={
            errors.ApiError: _api_error,
            HTTPException: _http_error,
            ClientGoneError: _client_gone,
            Exception: _defect,
        },
    )
    app.state.admin = admin
    return app


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.ApiError)  # noqa: S101 - Starlette dispatches by class
    return error.response()


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return errors.http_error(status, request.method, request.url.path).response()


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _defect(request: Request, error: Exception) -> Response:
    return errors.internal().response()


def _admin(request: Request) -> Admin:
    found: Admin = request.app.state.admin
    return found


async def metrics(request: Request) -> Response:
    """GET /metrics: Prometheus text."""
    admin = _admin(request)
    admin.refresh()
    # Rendering takes milliseconds; requests being answered meanwhile should not wait for it.
    text = await run_in_threadpool(admin.exposition)
    return Response(text, headers={"content-type": CONTENT_TYPE})


async def stats(request: Request) -> Response:
    """GET /stats: agent_runtime.stats.Stats as compact JSON.

    With `wait` (seconds, at most 60) and `load` (the running and waiting that the client knows of) it is
    answered when that has changed, when the state is another than `state` or the one that was found, when
    the engine stalls or goes on, or after `wait` seconds.
    """
    admin = _admin(request)
    poll = poll_of(request.query_params)
    if poll is not None:
        await until_disconnect(request.receive, admin.polls.hold(poll, request.scope.get("client")))
    return Response(admin.stats().encode(), media_type="application/json")


async def parameters(request: Request) -> Response:
    """GET /admin/parameters: each with its value, default, bounds, and whether it can be changed now."""
    described = _admin(request).parameters.describe()
    return JSONResponse({"parameters": [asdict(parameter) for parameter in described]})


async def change_parameters(request: Request) -> Response:
    """PATCH /admin/parameters: a JSON merge patch; answers with the parameters in force.

    400 names a wrong field, 409 a field that cannot change while serving or a value that a part of the
    runtime refused; nothing has changed then.
    """
    admin = _admin(request)
    who = require_admin(request, admin)
    patch = await _json_object(request)
    try:
        value = admin.parameters.change(patch, who)
    except NotChangeableError as error:
        raise errors.not_changeable(error.field) from None
    except InvalidParameterError as error:
        raise errors.invalid_field(error.field, f"{error.message[:1].lower()}{error.message[1:]}.") from None
    except NotAppliedError as error:
        admin.on_change("restored")
        raise errors.not_applied(str(error)) from None
    admin.on_change("applied")
    return JSONResponse(value.model_dump())


async def history(request: Request) -> Response:
    """GET /admin/parameters/history: the last changes that were tried, the newest first."""
    return JSONResponse({"changes": [_change(change) for change in _admin(request).parameters.history[::-1]]})


def _change(change: Change) -> dict[str, Any]:
    return {
        "at": datetime.fromtimestamp(change.at, UTC).isoformat(timespec="milliseconds"),
        "who": change.who,
        "changes": {name: {"from": old, "to": new} for name, (old, new) in change.fields.items()},
        "result": change.result,
        "error": change.error,
    }


async def log_level(request: Request) -> Response:
    """GET /admin/log-level."""
    return JSONResponse({"level": runtime_logging.level()})


async def change_log_level(request: Request) -> Response:
    """PUT /admin/log-level: `{"level": "debug"}`, in force until it is changed again or the process ends."""
    who = require_admin(request, _admin(request))
    body = await _json_object(request)
    for name in body:
        if name != "level":
            raise errors.unsupported_field(name)
    before, wanted = runtime_logging.level(), body.get("level")
    if not isinstance(wanted, str) or wanted not in runtime_logging.LEVELS:
        raise errors.invalid_field("level", f"it must be one of {', '.join(runtime_logging.LEVELS)}.")
    runtime_logging.set_level(wanted)
    log.warning("log level changed", extra={"fields": {"who": who, "from": before, "to": wanted}})
    return JSONResponse({"level": wanted})


async def _json_object(request: Request) -> Mapping[str, Any]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise errors.too_large(MAX_BODY_BYTES)
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise errors.not_json(str(error)) from error
    if not isinstance(data, dict):
        raise errors.not_json(f"it is a {type(data).__name__}")
    return data


def require_admin(request: Request, admin: Admin) -> str:
    """Who may change things here, in words for the history. Raises ApiError 401 or 403."""
    token = bearer(request.headers.get("authorization", ""))
    if admin.gate is not None and token is not None:
        try:
            principal = admin.gate.recognise(dict(request.scope["headers"]))
        except errors.ApiError:
            principal = None  # not an API key; it may be the admin token
        if principal is not None and principal.admin:
            return f"API key '{principal.name}'"
    if admin.config.token_sha256 is not None:
        if token is None or not token_matches(token, admin.config.token_sha256):
            raise errors.admin_token_required()
        return "admin token"
    if not from_this_host(request.client.host if request.client else None, request.headers):
        raise errors.admin_loopback_only()
    return "loopback"


def bearer(authorization: str) -> str | None:
    """The token of an Authorization header, or None."""
    scheme, _, token = authorization.strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def token_matches(token: str, sha256: str) -> bool:
    """Whether the token has this SHA-256 (hex), compared in constant time."""
    return hmac.compare_digest(hashlib.sha256(token.encode()).hexdigest(), sha256)


def from_this_host(peer: str | None, headers: Mapping[str, str]) -> bool:
    """Whether a request was made on this host, and not by a browser or through a proxy."""
    if peer is None or any(name in headers for name in _PASSED_ON):
        return False
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
