"""Every error a client can cause or meet, in OpenAI's shape. Layer: api.

The one idea: one constructor per error, so that its status, its code and its words exist once. The body is
`{"error": {"message", "type", "param", "code"}}`, which is what OpenAI's clients turn into exceptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from starlette.responses import JSONResponse


class ApiError(Exception):
    """An answer that is an error. `param` is the path of the field at fault."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.kind, self.param, self.headers = kind, param, dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The HTTP response."""
        return JSONResponse(self.body(), self.status, self.headers)


def not_json(detail: str) -> ApiError:
    """The body cannot be read."""
    return ApiError(400, "invalid_json", f"The request body is not a JSON object: {detail}.")


def too_large(limit: int) -> ApiError:
    """The body exceeds `limit` bytes."""
    return ApiError(413, "request_too_large", f"The request body exceeds {limit} bytes.")


def invalid_field(param: str, message: str) -> ApiError:
    """A field has a wrong type or value."""
    return ApiError(400, "invalid_value", f"Invalid '{param}': {message}", param=param)


def unsupported_field(param: str) -> ApiError:
    """A field this server does not have; ignoring it would silently change the answer."""
    return ApiError(
        400, "unsupported_field", f"The field '{param}' is not supported by this server: leave it out.",
        param=param,
    )  # fmt: skip


def unsupported_value(param: str, message: str) -> ApiError:
    """A field is known, but only with values that change nothing."""
    return ApiError(400, "unsupported_value", f"Unsupported '{param}': {message}", param=param)


def context_length(tokens: int, limit: int, param: str) -> ApiError:
    """The prompt is longer than the server accepts; both in tokens."""
    return ApiError(
        400, "context_length_exceeded",
        f"The prompt has {tokens} tokens; this server accepts at most {limit}. Shorten it.",
        param=param,
    )  # fmt: skip


def model_not_found(model: str, served: str) -> ApiError:
    """Another model was asked for."""
    return ApiError(
        404, "model_not_found", f"The model '{model}' does not exist here; this server serves '{served}'.",
        param="model",
    )  # fmt: skip


def overloaded(retry_after: int) -> ApiError:
    """No slot and no place in the queue."""
    return ApiError(
        429, "queue_full", f"The server is at capacity. Retry after {retry_after} s.",
        kind="rate_limit_error", headers={"Retry-After": str(retry_after)},
    )  # fmt: skip


def unavailable(code: str, message: str, retry_after: int) -> ApiError:
    """Not able to serve now: loading, draining or failed."""
    return ApiError(
        503, code, message, kind="service_unavailable_error", headers={"Retry-After": str(retry_after)}
    )


def generation_failed() -> ApiError:
    """The model failed on this request; details are in the log under the request's id."""
    return ApiError(
        500, "generation_failed", "The model failed on this request; see the server's log by request id.",
        kind="server_error",
    )  # fmt: skip


def internal() -> ApiError:
    """A defect of the server."""
    return ApiError(
        500, "internal_error", "The server failed; see its log by request id.", kind="server_error"
    )


def http_error(status: int, method: str, path: str) -> ApiError:
    """A route that does not exist, or not with this method."""
    if status == 405:
        return ApiError(405, "method_not_allowed", f"{method} is not allowed on {path}.")
    return ApiError(status, "not_found" if status == 404 else "http_error", f"There is no {method} {path}.")


_KNOWN_BUT_FIXED = frozenset({"literal_error", "none_required", "unsupported"})


def from_validation(error: ValidationError) -> ApiError:
    """The first field pydantic found wrong, as an error naming it by its path.

    Of the branches of a union the one that got furthest is reported: it is the one the caller meant.
    """
    found = error.errors(include_url=False, include_context=False)
    field = found[0]["loc"][:1]
    first = max((item for item in found if item["loc"][:1] == field), key=lambda item: len(item["loc"]))
    param = field_path(first["loc"])
    if first["type"] == "extra_forbidden":
        return unsupported_field(param)
    if first["type"] in _KNOWN_BUT_FIXED:
        return unsupported_value(param, f"{_lower_first(first['msg'])}.")
    if first["type"] == "missing":
        return invalid_field(param, "it is required.")
    return invalid_field(param, f"{_lower_first(first['msg'].removeprefix('Value error, '))}.")


def field_path(location: tuple[int | str, ...]) -> str:
    """`messages[0].content` from pydantic's location; names of union branches are left out."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in _BRANCHES:
            path += f".{part}" if path else part
    return path or "body"


_BRANCHES = frozenset({"str", "int", "float", "bool", "TextPart"})


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")
