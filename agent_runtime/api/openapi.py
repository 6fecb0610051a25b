"""GET /openapi.json: the API as OpenAPI 3.1, from the models that check the requests. Layer: api.

The one idea: a schema is precise enough to be wrong against. It is generated from what validates, narrowed
by what only this server knows (its model's name, its limits, whether keys are needed), and completed where
pydantic cannot say it (fields that exclude or need each other), so that a fuzzer's valid requests are
answered and its invalid ones refused.

By hand, because what a library would do is one call of pydantic's (`models_json_schema`) and the rest is the
table. apispec generates schemas from marshmallow and knows pydantic and Starlette only through abandoned
plugins; Starlette's own SchemaGenerator reads YAML from docstrings; openapi-pydantic gives classes to write
the document with and no way from routes to it; FastAPI, Litestar and spectree want to own the endpoints.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from agent_runtime.api.openapi_objects import ErrorObject
from agent_runtime.api.openapi_table import ENDPOINTS, ERRORS, Endpoint, Shape
from agent_runtime.api.service import TIMEOUT_HEADER, Service
from agent_runtime.api.sse import encode

PROTECTED = ("/v1/", "/tokenize", "/detokenize")
"""Where a key is needed once keys are configured."""

_REFERENCE = "#/components/schemas/"

# The header is told in words: a fuzzer that knew it would mostly ask for answers within no time.
_ABOUT = (
    "OpenAI's API where it has one; a field is honoured or refused by name. A request that generates may "
    f"carry the header `{TIMEOUT_HEADER}`, the seconds its answer may take when less than the server's bound."
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What only this server knows; `keys`: they are needed."""

    model: str
    max_output_tokens: int
    keys: bool


async def document(request: Request) -> Response:
    """The description of this server, which needs no key."""
    service: Service = request.app.state.service
    facts = Facts(
        service.config.model.served_name, service.parameters.max_output_tokens, service.gate is not None
    )
    return Response(_encoded(facts), media_type="application/json")


@lru_cache(maxsize=4)
def _encoded(facts: Facts) -> bytes:
    return encode(describe(facts))


def describe(facts: Facts) -> dict[str, Any]:
    """The OpenAPI document."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method] = _operation(endpoint, facts)
    components: dict[str, Any] = {"schemas": _schemas(facts)}
    if facts.keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Agent runtime serving {facts.model}",
            "version": _version(),
            "description": _ABOUT,
        },
        "paths": paths,
        "components": components,
    }


def _version() -> str:
    try:
        return importlib.metadata.version("agent-operator")
    except importlib.metadata.PackageNotFoundError:
        return "0.0.0+source"


# ------------------------------------------------------------ operations


def _operation(endpoint: Endpoint, facts: Facts) -> dict[str, Any]:
    secured = facts.keys and endpoint.path.startswith(PROTECTED)
    statuses = {*endpoint.errors, *((401, 403, 429) if secured else ())}
    answers = {str(status): _answer(endpoint, shape) for status, shape in endpoint.answers.items()}
    failures = {str(status): _failure(status) for status in sorted(statuses)}
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "responses": answers | failures,
    }
    if parameters := [*_path_parameters(endpoint, facts), *_header_parameters(endpoint)]:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": _json(endpoint.body)}
    if secured:
        operation["security"] = [{"key": []}]
    return operation


def _answer(endpoint: Endpoint, shape: Shape | None) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if shape is not None:
        content |= _json(shape)
    elif not endpoint.streams:
        content["application/json"] = {"schema": {"type": "object"}}
    if endpoint.streams:
        content["text/event-stream"] = {}  # what the events are is not for OpenAPI 3.1 to say
    return {"description": (shape.__doc__ or "").strip() if shape else endpoint.summary, "content": content}


def _failure(status: int) -> dict[str, Any]:
    return {"description": ERRORS[status], "content": _json(ErrorObject)}


def _json(shape: Shape) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REFERENCE + shape.__name__}}}


def _path_parameters(endpoint: Endpoint, facts: Facts) -> list[dict[str, Any]]:
    schemas = {
        "{id}": {"type": "string", "minLength": 1, "maxLength": 256},
        "{model}": {"type": "string", "enum": [facts.model]},
    }
    return [
        {"name": part[1:-1], "in": "path", "required": True, "schema": schemas[part]}
        for part in endpoint.path.split("/")
        if part in schemas
    ]


def _header_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "header", "required": False, **about}
        for name, about in (endpoint.headers or {}).items()
    ]


# ------------------------------------------------------------ schemas


def _schemas(facts: Facts) -> dict[str, Any]:
    """Every schema by name: of bodies as they are validated, of answers as they are sent."""
    bodies = [endpoint.body for endpoint in ENDPOINTS if endpoint.body is not None]
    answers = [shape for endpoint in ENDPOINTS for shape in endpoint.answers.values() if shape is not None]
    every: dict[Shape, None] = dict.fromkeys((*bodies, *answers, ErrorObject))
    # One mode for all, so that a model used both ways has one name; answers have no defaults that differ.
    wanted: list[tuple[Shape, JsonSchemaMode]] = [(shape, "validation") for shape in every]
    _, found = models_json_schema(wanted, ref_template=_REFERENCE + "{model}")
    schemas: dict[str, Any] = found["$defs"]
    for schema in schemas.values():
        _close_maps(schema)
    for body in bodies:
        _narrow(schemas[body.__name__]["properties"], facts)
    for name, together in _TOGETHER.items():
        schemas[name] |= together
    return schemas


_NONE: dict[str, Any] = {"type": "null"}


def _close_maps(schema: Any) -> None:
    """Objects with a pattern for their keys have no other keys; pydantic checks that and does not say it."""
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            _close_maps(part)
    elif isinstance(schema, list):
        for part in schema:
            _close_maps(part)


def _narrow(properties: dict[str, Any], facts: Facts) -> None:
    """Only the served model may be named, and no more tokens asked for than this server generates."""
    if "model" in properties:
        properties["model"] = {"enum": [facts.model, None], "default": None}
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        for branch in properties.get(name, {}).get("anyOf", ()):
            if branch.get("type") == "integer":
                branch["maximum"] = facts.max_output_tokens


def _one_of(first: str, second: str, with_second: dict[str, Any] | None = None) -> dict[str, Any]:
    """Exactly one of these fields is there and not null; `with_second` is what other fields must be where it
    is the second."""
    given = {"not": _NONE}
    return {
        "oneOf": [
            {"required": [first], "properties": {first: given, second: _NONE}},
            {"required": [second], "properties": {second: given, first: _NONE, **(with_second or {})}},
        ]
    }


def _needs(field: str, *, given: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Where `field` is there and as `given`, the other fields are there and as `other` says."""
    return {
        "if": {"required": [field], "properties": {field: given}},
        "then": {"required": list(other), "properties": other},
    }


_STREAM_OPTIONS = _needs("stream_options", given={"type": "object"}, other={"stream": {"const": True}})
_FORCED_CALL = _needs(
    "tool_choice",
    given={"not": {"enum": ["none", "auto", None]}},
    other={"tools": {"type": "array", "minItems": 1}},
)
_LOGPROBS = {"type": "integer", "minimum": 1}

_NO_CALLS: dict[str, Any] = {"anyOf": [_NONE, {"type": "array", "maxItems": 0}]}
_SAID: dict[str, Any] = {"type": ["string", "array"]}
_MESSAGES: list[dict[str, Any]] = [
    {
        "properties": {
            "role": {"enum": ["system", "developer", "user"]},
            "content": _SAID,
            "tool_calls": _NO_CALLS,
            "tool_call_id": _NONE,
        },
        "required": ["role", "content"],
    },
    {
        "properties": {
            "role": {"const": "tool"},
            "content": _SAID,
            "tool_calls": _NO_CALLS,
            "tool_call_id": {"type": "string"},
        },
        "required": ["role", "content", "tool_call_id"],
    },
    {
        "properties": {"role": {"const": "assistant"}, "content": _SAID, "tool_call_id": _NONE},
        "required": ["role", "content"],
    },
    {
        "properties": {
            "role": {"const": "assistant"},
            "tool_calls": {"type": "array", "minItems": 1},
            "tool_call_id": _NONE,
        },
        "required": ["role", "tool_calls"],
    },
]
"""What a message of each role has."""

_TOGETHER: dict[str, dict[str, Any]] = {
    "ChatMessage": {"anyOf": _MESSAGES},
    "ChatRequest": {
        "allOf": [
            _STREAM_OPTIONS,
            _FORCED_CALL,
            _needs("top_logprobs", given=_LOGPROBS, other={"logprobs": {"const": True}}),
        ]
    },
    "CompletionRequest": _STREAM_OPTIONS,
    "ResponsesRequest": {
        "allOf": [
            _STREAM_OPTIONS,
            _FORCED_CALL,
            _needs("top_logprobs", given=_LOGPROBS, other={"include": {"type": "array", "minItems": 1}}),
        ]
    },
    "DecideRequest": {
        "allOf": [
            _one_of("input", "messages"),
            _one_of("candidates", "sample", {"utilities": _NONE}),
            {"properties": {"candidates": {"uniqueItems": True}}},
        ]
    },
    "TokenizeRequest": _one_of("prompt", "messages"),
    "RunBody": _one_of("input", "messages"),
}
"""What fields mean for each other, by the schema's name; names repeated within a list, sums that must fit
and the like remain the server's to check."""
