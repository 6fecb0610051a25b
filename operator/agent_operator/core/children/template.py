"""The user's pod template laid over ours. Layer: core, pure; imports api.names, core.drift and core.reading.

The one idea: a strategic merge of our own, on dicts: mappings merge by key, lists of Kubernetes
objects by their merge key, other lists are replaced, null removes. Whoever overrides knows best,
except for the fields without which the operator could not keep its promises (`owned`).

Hand-written because no Python library merges strategically, and the API server does it only for
PATCH requests on stored objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_operator.api.names import (
    RUNTIME_CONTAINER,
    VOLUME_API_KEYS,
    VOLUME_CONFIG,
    VOLUME_MODEL,
    VOLUME_SECRETS,
)
from agent_operator.core.drift import MERGE_KEYS
from agent_operator.core.reading import mapping, mappings

OWNED_CONTAINER_FIELDS = ("name", "image", "ports")
OWNED_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
OWNED_POD_FIELDS = ("restartPolicy",)
OWNED_MOUNTS = (VOLUME_CONFIG, VOLUME_MODEL, VOLUME_SECRETS, VOLUME_API_KEYS)
_REPLACED_WHOLE = frozenset({"env"})
"""Lists whose entries replace each other: a value merged with a valueFrom is no variable."""


def with_overrides(template: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """`template` with `override` merged in and the operator-owned fields put back.

    Owned (the CRD refuses most of them; an override has no effect): our labels; restartPolicy; in
    the container `runtime` its name, image, ports, probes, device limits, the mounts of configuration, model
    and secrets; every volume of ours. Two are combined: terminationGracePeriodSeconds is the longer one,
    tolerations are added to ours. Everything else is the user's: scheduling, ServiceAccount, security
    contexts, environment, the mounts at the cache path and /tmp, further containers and volumes,
    annotations.
    """
    if not override:
        return dict(template)
    kept: dict[str, Any] = merge(merge(template, override), owned(template))
    tolerations = [*_tolerations(template), *_tolerations(override)]
    if tolerations:
        kept["spec"]["tolerations"] = [t for i, t in enumerate(tolerations) if t not in tolerations[:i]]
    grace = (mapping(t, "spec").get("terminationGracePeriodSeconds") for t in (template, override))
    kept["spec"]["terminationGracePeriodSeconds"] = max(g for g in grace if isinstance(g, int))
    return kept


def owned(template: Mapping[str, Any]) -> dict[str, Any]:
    """The part of our template that no override may change, as a patch."""
    spec = template["spec"]
    runtime = next(c for c in spec["containers"] if c["name"] == RUNTIME_CONTAINER)
    container = {field: runtime[field] for field in OWNED_CONTAINER_FIELDS}
    container |= {probe: _whole(runtime[probe]) for probe in OWNED_PROBES}
    container["volumeMounts"] = [_whole(m) for m in runtime["volumeMounts"] if m["name"] in OWNED_MOUNTS]
    devices = {k: v for k, v in runtime["resources"].get("limits", {}).items() if "/" in k}
    container["resources"] = {"limits": devices} if devices else {}
    kept = {field: spec[field] for field in OWNED_POD_FIELDS}
    volumes = [_whole(volume) for volume in spec["volumes"]]
    return {
        "metadata": {"labels": template["metadata"]["labels"]},
        "spec": {**kept, "containers": [container], "volumes": volumes},
    }


def merge(base: Any, override: Any, field: str = "") -> Any:
    """Strategic merge of two JSON values; neither is changed, and what only one says is shared."""
    if isinstance(base, Mapping) and isinstance(override, Mapping):
        if override.get("$patch") == "replace":
            return {k: v for k, v in override.items() if k not in ("$patch", "$replace")}
        result = {k: v for k, v in base.items() if not (k in override and override[k] is None)}
        for key, value in override.items():
            if value is not None:
                result[key] = merge(base.get(key), value, str(key))
        return result
    if isinstance(base, list) and isinstance(override, list):
        return _merge_lists(base, override, field)
    return _without_nulls(override)


def _merge_lists(base: list[Any], override: list[Any], field: str) -> list[Any]:
    key = next((k for k in MERGE_KEYS.get(field, ()) if _keyed(base, k) and _keyed(override, k)), None)
    if key is None:
        return [_without_nulls(item) for item in override]
    changes = {item[key]: item for item in override}
    known = {item[key] for item in base}
    merged = [_merge_item(item, changes.get(item[key]), field) for item in base]
    merged += [_without_nulls(item) for item in override if item[key] not in known]
    removed = {name for name, item in changes.items() if item.get("$patch") == "delete"}
    return [item for item in merged if item[key] not in removed]


def _merge_item(item: Any, change: Any, field: str) -> Any:
    if change is None:
        return item
    return _without_nulls(change) if field in _REPLACED_WHOLE else merge(item, change)


def _keyed(items: list[Any], key: str) -> bool:
    return all(isinstance(item, Mapping) and isinstance(item.get(key), str | int) for item in items)


def _whole(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part to be put back as it is: one source per volume, one handler per probe, merging makes none."""
    return {**part, "$patch": "replace"}


def _tolerations(template: Mapping[str, Any]) -> list[Any]:
    return [dict(t) for t in mappings(template, "spec", "tolerations")]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None and k != "$patch"}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
