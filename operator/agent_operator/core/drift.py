"""Does a child still say what we said? Layer: core, pure; imports api.names and core.naming.

The one idea: compare only what we own. The live object may hold more (defaults of the API server,
fields of other writers, injected list entries); a child is rewritten only where our own fields
differ, so a fixpoint costs no write. No library fits: the API server's own comparison is only to be
had by a write (a dry run), which is what is to be saved.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from agent_operator.api.names import ANNOTATION_APPLIED_HASH
from agent_operator.core.naming import digest

MERGE_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "env": ("name",),
    "ports": ("containerPort", "port"),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey",),
    "resourceClaims": ("name",),
    "schedulingGates": ("name",),
    "readinessGates": ("conditionType",),
    "ownerReferences": ("uid",),
}
"""Kubernetes' merge keys of the lists that a pod template, a Service or metadata may hold."""

_ATOMIC = frozenset({"selector", "labelSelector", "nodeSelector"})
"""Maps that the API server treats as one value: an entry more selects other pods or nodes."""
_QUANTITIES = frozenset({"limits", "requests", "hard", "capacity"})
_QUANTITY_FIELDS = frozenset({"sizeLimit", "divisor", "storage", "averageValue"})
_OMITTED_WHEN_FALSE = frozenset(
    {"hostNetwork", "hostPID", "hostIPC", "readOnly", "stdin", "stdinOnce", "tty", "paused"}
)
"""Plain booleans: the API server does not return them when false."""

_QUANTITY = re.compile(r"([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,3}))?")
_SUFFIXES = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def fields_hash(desired: Mapping[str, Any]) -> str:
    """Hash of the fields we own in one object, the hash annotation itself left out."""
    metadata = dict(desired.get("metadata") or {})
    annotations = {
        k: v for k, v in (metadata.get("annotations") or {}).items() if k != ANNOTATION_APPLIED_HASH
    }
    metadata["annotations"] = annotations
    return digest(canonical({**desired, "metadata": metadata}), 16)


def stamped(desired: Mapping[str, Any]) -> dict[str, Any]:
    """The object with the hash of its own fields as annotation: what is applied."""
    metadata = dict(desired.get("metadata") or {})
    metadata["annotations"] = {
        **(metadata.get("annotations") or {}),
        ANNOTATION_APPLIED_HASH: fields_hash(desired),
    }
    return {**desired, "metadata": metadata}


def drifted(desired: Mapping[str, Any], live: Mapping[str, Any]) -> str | None:
    """Path of the first field of `desired` that `live` lacks or contradicts, else None.

    `desired` is a stamped object; its hash annotation is compared like any other field, so what we
    no longer want is noticed too.
    """
    return _difference(desired, live, "", quantity=False)


def replacement(desired: Mapping[str, Any], live: Mapping[str, Any]) -> dict[str, Any] | None:
    """`live` with our fields put in and colliding entries of others taken out; None without a collision.

    Ports are known by number, but their names must be unique too: a port whose number was edited by
    hand belongs to whoever did it, keeps its name, and makes ours invalid.
    """
    if not _collides(desired, live):
        return None
    result: dict[str, Any] = _overlaid(desired, live, "")
    return result


def parse_quantity(value: Any) -> Decimal | None:
    """A Kubernetes quantity as a number ("500m" -> 0.5, "1Gi" -> 1073741824), None if it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    match = _QUANTITY.fullmatch(str(value).strip())
    if match is None or not str(value).isascii():
        return None
    number, suffix, exponent = Decimal(match[1]), match[2], match[3]
    if suffix in _BINARY:
        return number * 1024 ** _BINARY[suffix]
    return number.scaleb(int(exponent) if exponent else _SUFFIXES.get(suffix or "", 0))


def _collides(desired: Any, live: Any) -> bool:
    if isinstance(desired, dict | Mapping) and isinstance(live, dict | Mapping):
        return any(
            _port_collision(value, live.get(key)) if key == "ports" else _collides(value, live.get(key))
            for key, value in desired.items()
        )
    if isinstance(desired, list) and isinstance(live, list):
        named = {_key_of(item, "name"): item for item in live}
        return any(_collides(item, named.get(_key_of(item, "name"))) for item in desired)
    return False


def _port_collision(desired: Any, live: Any) -> bool:
    ours, theirs = ([_port(item) for item in ports or ()] for ports in (desired, live))
    names = {name for name, _ in ours if name is not None}
    return any(name in names and (name, number) not in ours for name, number in theirs)


def _port(item: Any) -> tuple[str | int | None, str | int | None]:
    number = _key_of(item, "containerPort")
    return _key_of(item, "name"), _key_of(item, "port") if number is None else number


def _overlaid(desired: Any, live: Any, path: str) -> Any:
    if isinstance(desired, dict | Mapping) and isinstance(live, dict | Mapping):
        ours = {
            key: value if key in _ATOMIC else _overlaid(value, live.get(key), key)
            for key, value in desired.items()
        }
        return {**live, **ours}
    key = _merge_key(path, desired) if isinstance(desired, list) else None
    if key is None or path == "ports" or not isinstance(live, list):
        return desired
    theirs = {_key_of(item, key): item for item in live}
    known = {item[key] for item in desired}
    merged = [_overlaid(item, theirs.get(item[key]), "") for item in desired]
    return merged + [item for item in live if _key_of(item, key) not in known]


def _difference(desired: Any, live: Any, path: str, *, quantity: bool) -> str | None:
    if desired == live:
        return None
    if isinstance(desired, dict | Mapping):
        return _mapping_difference(desired, live, path, quantity=quantity)
    if isinstance(desired, Sequence) and not isinstance(desired, str):
        return _list_difference(desired, live, path)
    return None if _same_scalar(desired, live, quantity=quantity) else path


def _mapping_difference(desired: Mapping[Any, Any], live: Any, path: str, *, quantity: bool) -> str | None:
    if not isinstance(live, dict | Mapping):
        return path
    for key, value in desired.items():
        below = f"{path}.{key}" if path else str(key)
        found = live.get(key)
        if found is None and _may_be_absent(key, value):
            continue
        if key in _ATOMIC and value != found:
            return below
        numeric = quantity or key in _QUANTITY_FIELDS or key in _QUANTITIES
        if (different := _difference(value, found, below, quantity=numeric)) is not None:
            return different
    return None


def _list_difference(desired: Sequence[Any], live: Any, path: str) -> str | None:
    if not isinstance(live, Sequence) or isinstance(live, str):
        return path
    key = _merge_key(path, desired)
    if key is None:
        if len(desired) != len(live):
            return path
        pairs = zip(desired, live, strict=True)
    else:
        by_key = {_key_of(item, key): item for item in live}
        pairs = ((item, by_key.get(item[key])) for item in desired)  # type: ignore[assignment]
    for index, (want, have) in enumerate(pairs):
        name = f"{path}[{want[key] if key else index}]"
        if have is None or (different := _difference(want, have, name, quantity=False)) is not None:
            return name if have is None else different
    return None


def _key_of(item: Any, key: str) -> str | int | None:
    value = item.get(key) if isinstance(item, Mapping) else None
    return value if isinstance(value, str | int) else None


def _merge_key(path: str, items: Sequence[Any]) -> str | None:
    """The merge key shared by all items, or None when they cannot be told apart by one."""
    field = path.rpartition(".")[2]
    for key in MERGE_KEYS.get(field, ()):
        values = [_key_of(item, key) for item in items]
        if None not in values and len(set(values)) == len(values):
            return key
    return None


def _same_scalar(desired: Any, live: Any, *, quantity: bool) -> bool:
    if quantity and (wanted := parse_quantity(desired)) is not None:
        return bool(wanted == parse_quantity(live))
    return (type(desired) is type(live) and desired == live) or _same_number(desired, live)


def _same_number(desired: Any, live: Any) -> bool:
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (desired, live))
    return numeric and desired == live


def _may_be_absent(key: Any, value: Any) -> bool:
    """What the API server does not send back: null, empty collections, false of a plain boolean.

    `emptyDir: {}` is a choice, not an absence: without it the volume is another one.
    """
    if isinstance(value, Mapping | list | tuple):
        return len(value) == 0 and key != "emptyDir"
    return value is None or (value is False and key in _OMITTED_WHEN_FALSE)
