"""Every error a client can cause or meet, in OpenAI's shape. Layer: api.

The one idea: one constructor per error, so that its status, its code and its words exist once. The body is
`{"error": {"message", "type", "param", "code"}}`, which is what OpenAI's clients turn into exceptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError
from starlette.responses import JSONResponse

from agent_runtime import api_keys
from agent_runtime.llm.base import GenerationError


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


def context_size(characters: int, limit: int, param: str) -> ApiError:
    """The prompt is so long that its tokens were not even counted; `limit` is in tokens."""
    return ApiError(
        400, "context_length_exceeded",
        f"The prompt has {characters} characters; this server accepts at most {limit} tokens. Shorten it.",
        param=param,
    )  # fmt: skip


def request_timeout(seconds: float) -> ApiError:
    """The body did not come."""
    return ApiError(
        408, "request_timeout", f"The request's body was not complete after {seconds:g} s.",
        kind="timeout_error",
    )  # fmt: skip


def context_overflow(prompt: int, asked: int, context: int, param: str) -> ApiError:
    """Prompt and requested answer together do not fit the model; all in tokens."""
    return ApiError(
        400, "context_length_exceeded",
        f"The prompt has {prompt} tokens and {asked} more were asked for; this model has room for {context} "
        f"in all. Shorten the prompt or lower '{param}'.",
        param=param,
    )  # fmt: skip


def overloaded(bound: str, retry_after: int) -> ApiError:
    """No slot and no place in the queue; `bound` names what is full."""
    return ApiError(
        429, "queue_full", f"The server is at capacity: {bound} is full. Retry after {retry_after} s.",
        kind="rate_limit_error", headers={"Retry-After": str(retry_after)},
    )  # fmt: skip


def deadline_exceeded() -> ApiError:
    """The request's time was over before its answer."""
    return ApiError(
        504, "deadline_exceeded", "The request's deadline passed before it was answered.",
        kind="timeout_error",
    )  # fmt: skip


def invalid_header(name: str, message: str) -> ApiError:
    """A header cannot be understood."""
    return ApiError(400, "invalid_header", f"Invalid header '{name}': {message}.", param=name)


def unauthorized(code: Literal["missing_api_key", "invalid_api_key", "expired_api_key"]) -> ApiError:
    """The caller is not known. The key is never repeated."""
    return ApiError(401, code, api_keys.WORDS[code], headers={"WWW-Authenticate": "Bearer"})


def permission_denied(key: str, kind: Literal["model", "tool"], name: str) -> ApiError:
    """The caller is known and may not use this model or tool."""
    return ApiError(
        403, "permission_denied", f"The API key '{key}' may not use the {kind} '{name}'.",
        param=kind if kind == "model" else "tools",
    )  # fmt: skip


_LIMITS = {
    "requests": "{} requests per minute",
    "tokens": "{} tokens per minute",
    "concurrency": "{} requests at the same time",
}


def rate_limited(
    key: str,
    what: Literal["requests", "tokens", "concurrency"],
    limit: int,
    retry_after: int,
    headers: Mapping[str, str],
) -> ApiError:
    """A key has used its allowance; `headers` are the x-ratelimit ones."""
    return ApiError(
        429, "rate_limit_exceeded",
        f"The API key '{key}' has reached its limit of {_LIMITS[what].format(limit)}. "
        f"Retry after {retry_after} s.",
        kind="rate_limit_error", headers={**headers, "Retry-After": str(retry_after)},
    )  # fmt: skip


def admin_token_required() -> ApiError:
    """A change on the admin port without the right bearer token."""
    return ApiError(
        401, "invalid_admin_token",
        "Changes need the admin token, as `Authorization: Bearer TOKEN`; admin.token_sha256 holds its hash.",
        headers={"WWW-Authenticate": "Bearer"},
    )  # fmt: skip


def admin_loopback_only() -> ApiError:
    """A change on the admin port from another host, where no token is configured."""
    return ApiError(
        403, "admin_loopback_only",
        "Without admin.token_sha256 changes are taken from this host only: use `kubectl exec` or "
        "`kubectl port-forward`, or configure a token.",
    )  # fmt: skip


def not_changeable(param: str) -> ApiError:
    """A parameter that nothing in the running process takes up."""
    return ApiError(
        409, "not_changeable_live",
        f"'{param}' cannot be changed while serving: change it in the AgentDeployment, which rolls the pods.",
        param=param,
    )  # fmt: skip


def not_applied(message: str) -> ApiError:
    """A valid change that a part of the runtime refused."""
    return ApiError(409, "parameters_not_applied", message)


def unavailable(code: str, message: str, retry_after: int) -> ApiError:
    """Not able to serve now: loading, draining or failed."""
    return ApiError(
        503, code, message, kind="service_unavailable_error", headers={"Retry-After": str(retry_after)}
    )


_GENERATION: Mapping[str, tuple[int, str, str | None]] = {
    "generation_failed": (500, "server_error", None),
    "out_of_memory": (413, "invalid_request_error", None),
    "deadline_exceeded": (504, "timeout_error", None),
    "overloaded": (429, "rate_limit_error", None),
    "server_draining": (503, "service_unavailable_error", None),
    "cancelled": (503, "service_unavailable_error", None),
    "invalid_grammar": (400, "invalid_request_error", None),
    "invalid_prompt": (400, "invalid_request_error", "messages"),
    "remote_unreachable": (503, "service_unavailable_error", None),
    "remote_overloaded": (429, "rate_limit_error", None),
    "remote_failed": (502, "server_error", None),
    "remote_refused": (400, "invalid_request_error", None),
    "remote_denied": (502, "server_error", None),
}
"""Status, type and field of each code of llm.base.ErrorCode."""


def from_generation(error: GenerationError, grammar_field: str = "") -> ApiError:
    """Why one request could not be answered. What went wrong inside the engine is in the log only;
    `grammar_field` is the request's field that held the grammar."""
    status, kind, param = _GENERATION[error.code]
    if error.code == "invalid_grammar":
        param = grammar_field or None
    message = str(error)
    if error.code == "generation_failed":
        message = "The model failed on this request; see the server's log by request id."
    elif error.code == "deadline_exceeded":
        return deadline_exceeded()
    wait = error.retry_after or (1 if status == 503 else None)
    headers = {} if wait is None else {"Retry-After": str(wait)}
    return ApiError(status, error.code, _sentence(message), kind=kind, param=param, headers=headers)


def _sentence(text: str) -> str:
    text = text.strip() or "no reason was given"
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def internal() -> ApiError:
    """A defect of the server."""
    return ApiError(
        500, "internal_error", "The server failed; see its log by request id.", kind="server_error"
    )


def http_error(status: int, method: str, path: str, headers: Mapping[str, str] | None = None) -> ApiError:
    """A route that does not exist, or not with this method (`headers` then say with which)."""
    if status == 405:
        return ApiError(405, "method_not_allowed", f"{method} is not allowed on {path}.", headers=headers)
    code = "not_found" if status == 404 else "http_error"
    return ApiError(status, code, f"There is no {method} {path}.", headers=headers)


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


_BRANCHES = frozenset({"str", "int", "float", "bool", "TextPart", "NamedToolChoice"})


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")
