"""Serving parameters that change while serving. Layer: beside the contract; pydantic, standard library.

The one idea: a change is whole or it is not: the new value is validated before anybody sees it, the parts of
the runtime take it up one after the other, and when one refuses, those before it get the old value back. So
the value in force is always one that every part has accepted.

A change is a JSON merge patch (RFC 7396) of the parameters: `{"max_concurrency": 32}`; null puts a field back
to its default. Only fields that a part of the runtime has subscribed to can be changed; the others need a
new pod, and saying so is better than a value that is shown and not used.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from agent_runtime.contract import Parameters

log = logging.getLogger("agent_runtime.parameters")

HISTORY = 20
_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")

Apply = Callable[[Parameters], None]
"""Takes up new parameters, at once and without blocking; raises, having changed nothing, when it cannot."""


class InvalidParameterError(ValueError):
    """A patch that no part of the runtime was shown. `field` is the parameter at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


class NotChangeableError(InvalidParameterError):
    """A valid value for a parameter that no part of the running process takes up."""


class NotAppliedError(Exception):
    """A part of the runtime refused a valid change; the old value is in force again."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change that was tried. `fields` maps each changed parameter to (old, new); `at` is Unix seconds."""

    at: float
    who: str
    fields: Mapping[str, tuple[Any, Any]]
    result: Literal["applied", "restored"]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Described:
    """One parameter for people and forms; `live` is whether it can be changed while serving.

    `bounds` has JSON schema's keywords: minimum, exclusiveMinimum, maximum.
    """

    name: str
    value: Any
    default: Any
    bounds: Mapping[str, float]
    description: str
    live: bool


@dataclass(frozen=True, slots=True)
class _Subscriber:
    name: str
    fields: frozenset[str]
    apply: Apply


def merge_patch(current: Parameters, patch: Mapping[str, Any]) -> Parameters:
    """The parameters after a JSON merge patch. Raises InvalidParameterError naming the first wrong field."""
    for name in patch:
        if name not in Parameters.model_fields:
            raise InvalidParameterError(name, "there is no such parameter")
    merged = {**current.model_dump(), **patch}
    kept = {name: value for name, value in merged.items() if name not in patch or value is not None}
    try:
        return Parameters.model_validate(kept, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidParameterError(".".join(map(str, first["loc"])), first["msg"]) from None


def changed_fields(old: Parameters, new: Parameters) -> dict[str, tuple[Any, Any]]:
    """The fields that differ, with their old and new values."""
    before, after = old.model_dump(), new.model_dump()
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


class LiveParameters:
    """The parameters in force. Call it on the event loop only."""

    def __init__(self, initial: Parameters, clock: Callable[[], float] = time.time) -> None:
        self._value, self._clock = initial, clock
        self._subscribers: list[_Subscriber] = []
        self._history: deque[Change] = deque(maxlen=HISTORY)

    @property
    def value(self) -> Parameters:
        """The parameters in force."""
        return self._value

    @property
    def history(self) -> tuple[Change, ...]:
        """The last HISTORY changes that were tried, the newest last."""
        return tuple(self._history)

    @property
    def live_fields(self) -> frozenset[str]:
        """The parameters that can be changed now."""
        return frozenset().union(*(subscriber.fields for subscriber in self._subscribers))

    def subscribe(self, name: str, fields: Iterable[str], apply: Apply) -> None:
        """`apply` is called with the new parameters whenever one of `fields` changes; earlier parts first.

        `name` tells people which part it is. Raises ValueError for a field that does not exist.
        """
        wanted = frozenset(fields)
        if unknown := wanted - Parameters.model_fields.keys():
            raise ValueError(f"{name} subscribes to unknown parameters: {', '.join(sorted(unknown))}")
        self._subscribers.append(_Subscriber(name, wanted, apply))

    def change(self, patch: Mapping[str, Any], who: str) -> Parameters:
        """Changes the parameters; returns those in force.

        Raises InvalidParameterError or NotChangeableError when nothing was tried, NotAppliedError when
        a part refused and the old value was put back.
        """
        old, new = self._value, merge_patch(self._value, patch)
        fields = changed_fields(old, new)
        if not fields:
            return old
        for name in fields:
            if name not in self.live_fields:
                raise NotChangeableError(name, "it cannot be changed while serving")
        concerned = [part for part in self._subscribers if part.fields & fields.keys()]
        error = _apply(concerned, old, new)
        self._history.append(
            Change(self._clock(), who, fields, "applied" if error is None else "restored", error)
        )
        told: dict[str, Any] = {"who": who, "changes": {name: list(pair) for name, pair in fields.items()}}
        if error is not None:
            log.error("parameters were not changed: %s", error, extra={"fields": told})
            raise NotAppliedError(f"{error}. The old parameters are in force.")
        self._value = new
        log.info("parameters changed", extra={"fields": told})
        return new

    def describe(self) -> tuple[Described, ...]:
        """Every parameter with its bounds, for people and for forms."""
        schema = Parameters.model_json_schema()["properties"]
        live = self.live_fields
        return tuple(
            _described(name, schema[name], getattr(self._value, name), name in live)
            for name in Parameters.model_fields
        )


def _apply(parts: list[_Subscriber], old: Parameters, new: Parameters) -> str | None:
    """Each part takes up `new`; when one raises, those before it get `old` back. None, or what went wrong."""
    done: list[_Subscriber] = []
    for part in parts:
        try:
            part.apply(new)
        except Exception as error:
            for earlier in reversed(done):
                try:
                    earlier.apply(old)
                except Exception:
                    # What it accepted once it refuses now: a defect. The others still get the old value.
                    log.critical("%s did not take its old parameters back", earlier.name, exc_info=True)
            return f"{part.name} refused them: {error}"
        done.append(part)
    return None


def _described(name: str, schema: Mapping[str, Any], value: Any, live: bool) -> Described:
    number = next((kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"), schema)
    return Described(
        name=name,
        value=value,
        default=schema.get("default"),
        bounds={word: number[word] for word in _BOUNDS if word in number},
        description=schema.get("description", ""),
        live=live,
    )
