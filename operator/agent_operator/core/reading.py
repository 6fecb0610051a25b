"""Reading JSON of unknown shape. Layer: core, pure; imports the standard library only.

The one idea: what comes from a cluster is read, never trusted. Each reader gives the value if it has
the expected type and an empty one otherwise, so a decision cannot be crashed by an odd object.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def mapping(value: Any, *path: str) -> Mapping[str, Any]:
    """The mapping at `path`, {} when there is none."""
    found = at(value, *path)
    return found if isinstance(found, dict | Mapping) else {}


def mappings(value: Any, *path: str) -> list[Mapping[str, Any]]:
    """The mappings in the list at `path`; other entries are left out."""
    found = at(value, *path)
    return (
        [item for item in found if isinstance(item, dict | Mapping)]
        if isinstance(found, list | tuple)
        else []
    )


def text(value: Any, *path: str) -> str:
    """The string at `path`, "" when there is none."""
    found = at(value, *path)
    return found if isinstance(found, str) else ""


def count(value: Any, *path: str) -> int:
    """The non-negative integer at `path`, 0 when there is none."""
    found = at(value, *path)
    return max(found, 0) if isinstance(found, int) and not isinstance(found, bool) else 0


def at(value: Any, *path: str) -> Any:
    """The value at `path` below mappings, None when the path ends early."""
    for key in path:
        if not isinstance(value, dict | Mapping):
            return None
        value = value.get(key)
    return value


def condition(obj: Any, kind: str) -> Mapping[str, Any]:
    """The condition of one type in status.conditions, {} when there is none."""
    return condition_in(mapping(obj, "status"), kind)


def is_ready(pod: Any) -> bool:
    """Whether Kubernetes takes a pod for ready."""
    return condition(pod, "Ready").get("status") == "True"


def condition_in(status: Any, kind: str) -> Mapping[str, Any]:
    """The condition of one type in a status, {} when there is none."""
    return next((c for c in mappings(status, "conditions") if c.get("type") == kind), {})


def timestamp(value: Any) -> datetime | None:
    """An RFC 3339 time of the API server, None when it is none."""
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
        return parsed.astimezone(UTC) if parsed.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def formatted(moment: datetime) -> str:
    """A time as the API server writes it: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
