"""Which part of the children a change of the specification must reach. Layer: tests.

The one idea: two stored specifications are compared field by field, and each field that differs says where it
must show. The children are then compared in the same terms: configuration, pod template, replicas, deadline,
disruption budget. Both must name the same parts: an effect too many is as wrong as one too few.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from agent_operator.api.features import UNSUPPORTED
from tests.aot import schema, tables
from tests.aot.schema import Spec

CONFIG, TEMPLATE, REPLICAS, DEADLINE, BUDGET = "config", "template", "replicas", "deadline", "budget"
REVISION = "revision"
"""A new revision whose children say what those of the old one said."""
ROLLING = frozenset({CONFIG, TEMPLATE})
"""Parts whose change makes a new revision."""

_SECRET = re.compile(r"\.(\w*SecretRef)\.(name|key)$")
_TEMPLATE_FIELDS = ("runtime.image", "resources.requests", "resources.limits", "template", "health.startup")
_CONFIG_FIELDS = ("model", "agent", "runtime.parameters", "runtime.logging.level", "health.stallSeconds")
_ABSENT_IS_DEFAULT = ("agent.limits", "agent.prices", "tuning", "remediation")
"""Sections that say the same when they are absent as when every field has its default."""


@dataclass(frozen=True)
class Effect:
    """What must become of a manifest that the API server accepts."""

    parts: frozenset[str] = frozenset()
    """Parts of the children that change; the others must not."""
    reason: str = ""
    """Reason of condition Ready when the operator refuses the specification, or a child is refused."""
    named: str = ""
    """What that condition's message must contain."""
    shown: tuple[Any, ...] = field(default=())
    """Values that must be found in the changed configuration."""


def predict(old: Spec, new: Spec) -> Effect:
    """The effect of replacing one stored specification by another."""
    if missing := not_there(new):
        return Effect(reason="FeatureNotSupported", named=f"spec.{missing[0]}")
    before, after, said = flat(old), flat(new), dict(_flat(new, "", ""))
    changed = {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
    parts: set[str] = set()
    shown: list[Any] = []
    for path in sorted(changed):
        reached = _parts(path, before, after)
        parts |= reached
        value = after.get(path)
        if reached == {CONFIG} and path in said and path != "model.quantization":
            shown += [value] if isinstance(value, int | str) else []
    return Effect(parts=frozenset(parts), shown=tuple(shown))


def not_there(spec: Spec) -> list[str]:
    """The fields that ask for a feature this version does not have."""
    found = []
    for line in UNSUPPORTED:
        default = schema.fields()[line.path].get("default", schema.UNSET)
        asked = schema.get(spec, tuple(line.path.split(".")))
        if asked is not schema.UNSET and asked not in (default, [], None):
            found.append(line.path)
    return found


def flat(spec: Spec) -> dict[str, Any]:
    """The values of a stored specification by their paths, list items by index; defaults where absent."""
    found = {
        path: node["default"]
        for path, node in schema.leaves().items()
        if "default" in node and path.startswith(_ABSENT_IS_DEFAULT)
    }
    found |= dict(_flat(spec, "", ""))
    if not found.get("resources.gpu.count"):
        found = {path: value for path, value in found.items() if not path.startswith("resources.gpu.")}
        found["resources.gpu.count"] = 0
    return found


def _flat(value: Any, path: str, known: str) -> Iterator[tuple[str, Any]]:
    node = schema.fields().get(known)
    if known and (node is None or not schema.sections_below(node)):
        if value not in ([], {}):
            yield path, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            for name, child in item.items():
                yield from _flat(child, f"{path}[{index}].{name}", f"{known}[].{name}")
    else:
        for name, child in value.items():
            yield from _flat(child, f"{path}.{name}" if path else name, f"{known}.{name}" if known else name)


def _parts(path: str, before: Spec, after: Spec) -> set[str]:
    if path in ("replicas", "suspend"):
        return _scaled(before, after)
    if path == "strategy.progressDeadlineSeconds":
        return {DEADLINE}
    if path.startswith(tuple(tables.NO_EFFECT)):
        return set()
    if match := _SECRET.search(path):
        there = path[: match.end(1)] + ".name"
        return {TEMPLATE} if there in before and there in after else {CONFIG, TEMPLATE}
    if path == "model.uri":
        return {CONFIG} if _volume(before.get(path)) == _volume(after.get(path)) else {CONFIG, TEMPLATE}
    if path == "runtime.logging.path":
        same = _log_folder(before.get(path)) == _log_folder(after.get(path))
        return {CONFIG} if same else {CONFIG, TEMPLATE}
    if path == "resources.gpu.count":
        return {CONFIG, TEMPLATE}
    if re.fullmatch(r"agent\.tools\[\d+\]\.name", path):
        tool = path.removesuffix(".name")
        return {CONFIG, TEMPLATE} if f"{tool}.tokenSecretRef.name" in before | after else {CONFIG}
    if path.startswith(("resources.gpu.", *_TEMPLATE_FIELDS)):
        return {TEMPLATE}
    assert path.startswith(_CONFIG_FIELDS), f"nothing is known about the effect of {path}"
    return {CONFIG}


def _scaled(before: Spec, after: Spec) -> set[str]:
    wanted = [0 if spec["suspend"] else spec["replicas"] for spec in (before, after)]
    guarded = [spec["replicas"] > 1 for spec in (before, after)]
    return {part for part, (old, new) in ((REPLICAS, wanted), (BUDGET, guarded)) if old != new}


def _volume(uri: str | None) -> str:
    """What of a model's URI the pod has to know."""
    scheme, _, rest = (uri or "remote://").partition("://")
    return {"oci": rest, "pvc": rest.partition("/")[0]}.get(scheme, scheme)


def _log_folder(path: str | None) -> str:
    """The volume made for the log file; none at a path that is a volume anyway."""
    return "" if path is None or path.startswith("/tmp/") else str(PurePosixPath(path).parent)
