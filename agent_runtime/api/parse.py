"""From a request's bytes to a validated body. Layer: api.

The one idea: whatever the bytes are, the outcome is a body or an ApiError naming the field; never a 500.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from agent_runtime.api import errors

MAX_BODY_BYTES = 4 * 2**20
BODY_SECONDS = 60.0
"""How long a body may take to arrive."""
EXACT = 2**53
"""Below it every integer is a float."""

Body = TypeVar("Body", bound=BaseModel)


async def parse(request: Request, schema: type[Body]) -> Body:
    """The request's body as `schema`. Raises ApiError 400, or 413 above MAX_BODY_BYTES."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            raw = await _read(request)
    except TimeoutError as error:
        raise errors.request_timeout(BODY_SECONDS) from error
    try:
        data = json.loads(raw, parse_float=_number, parse_constant=_no_number)
        # An escaped half of a surrogate pair is JSON, but no text: no tokenizer and no log can hold it.
        json.dumps(data, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise errors.not_json(str(error)) from error
    if not isinstance(data, dict):
        raise errors.not_json(f"it is a {type(data).__name__}")
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise errors.from_validation(error) from error


def _number(text: str) -> int | float:
    """A number with a point or an exponent. To JSON Schema 1.0 is an integer, so it is one here."""
    value = float(text)
    if value.is_integer() and abs(value) < EXACT:
        return int(value)
    if math.isinf(value):
        return _no_number(text)
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text[:20]} is not a number that can be represented")


async def _read(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise errors.too_large(MAX_BODY_BYTES)
    return bytes(body)
