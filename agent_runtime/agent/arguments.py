"""Arguments of a call: from a model's text to a checked object. Layer: agent, pure.

The one idea: the tool's own JSON schema is the only judge. What a model wrote is read as JSON or, since
T5's vocabulary has no braces, as `name: value; name: value`; either way the schema decides, and its
complaint is worded so that a model can act on it. References in a schema are resolved inside it only: a
tool server must not make this process fetch addresses of its choice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

MAX_ARGUMENT_CHARACTERS = 64 * 1024


class ArgumentsError(ValueError):
    """Arguments a tool cannot be called with; the message is for the model."""


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raises ValueError when this is not the JSON schema of an object."""
    if schema.get("type", "object") != "object":
        raise ValueError(f"the schema's type is {schema['type']!r}; arguments are an object")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"not a JSON schema: {error.message}") from None


def parse_json(text: str) -> dict[str, Any]:
    """The JSON object in the text. Raises ArgumentsError."""
    if len(text) > MAX_ARGUMENT_CHARACTERS:
        raise ArgumentsError(f"the arguments are longer than {MAX_ARGUMENT_CHARACTERS} characters")
    try:
        value = json.loads(text or "{}", parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ArgumentsError(f"the arguments are not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ArgumentsError("the arguments must be a JSON object")
    return value


def validate(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Raises ArgumentsError naming the first field at fault."""
    validator = Draft202012Validator(schema, registry=EMPTY_REGISTRY)
    try:
        error = best_match(validator.iter_errors(dict(arguments)))
    except Unresolvable as unresolvable:
        raise ArgumentsError(f"the tool's schema refers to {unresolvable.ref!r} outside of it") from None
    except RecursionError:
        raise ArgumentsError("the arguments are nested too deeply") from None
    if error is not None:
        raise ArgumentsError(_words(error))


def parse_arguments(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments from what a model wrote for this tool, checked. Raises ArgumentsError.

    JSON is taken as it is. Otherwise `name: value; name: value`, with `=` as good as `:`, each value read by
    the type that the schema gives the name; and when the tool has a single parameter, the whole text is its
    value.
    """
    text = text.strip()
    arguments = parse_json(text) if text.startswith("{") else _from_pairs(text, schema)
    validate(schema, arguments)
    return arguments


def canonical(arguments: str) -> str:
    """The same JSON for the same arguments, whatever their order and blanks; other text as it is."""
    try:
        return json.dumps(json.loads(arguments), sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        return arguments


def parameters(schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The schema of each parameter, by name, in order."""
    found = schema.get("properties", {})
    return {name: part if isinstance(part, Mapping) else {} for name, part in found.items()}


def _from_pairs(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    known = parameters(schema)
    names = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    heads = list(re.finditer(rf"(?:^|[;,\n])\s*({names})\s*[:=]\s*", text)) if names else []
    if heads and not text[: heads[0].start()].strip():
        ends = [*(head.start() for head in heads[1:]), len(text)]
        return {
            head[1]: _value(text[head.end() : end].strip().rstrip(";,").strip(), known[head[1]])
            for head, end in zip(heads, ends, strict=True)
        }
    if len(known) == 1 and text:
        name = next(iter(known))
        return {name: _value(text, known[name])}
    if not text:
        return {}
    example = "; ".join(f"{name}: ..." for name in known) or "nothing"
    raise ArgumentsError(f"write them as {example}")


def _value(text: str, schema: Mapping[str, Any]) -> Any:
    """The text as the schema's type would have it; as text when it is none of them."""
    types = schema.get("type", "string" if "enum" not in schema else None)
    wanted: Sequence[str] = [types] if isinstance(types, str) else types or []
    unquoted = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
    if "string" in wanted or unquoted in schema.get("enum", ()):
        return unquoted
    lowered = text.lower()
    if "boolean" in wanted and lowered in ("true", "yes", "false", "no"):
        return lowered in ("true", "yes")
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return unquoted


def _words(error: ValidationError) -> str:
    where = ".".join(str(part) for part in error.absolute_path)
    message = error.message if len(error.message) <= 300 else f"{error.message[:300]}..."
    return f"{where}: {message}" if where else message


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
