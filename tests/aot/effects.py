"""Which part of the children a change of the specification must reach. Layer: tests.

The one idea: two stored specifications are compared field by field, and each field that differs says where it
must show; what several fields come to together (replicas, budget, scaler, gateway) is worked out of both. The
children are then compared in the same terms: configuration, pod template, replicas, deadline, disruption
budget, scaler, gateway. Both must name the same parts: an effect too many is as wrong as one too few.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from agent_operator.api.features import UNSUPPORTED
from tests.aot import schema, tables
from tests.aot.schema import Spec

CONFIG, TEMPLATE, REPLICAS, DEADLINE, BUDGET = "config", "template", "replicas", "deadline", "budget"
SCALER, GATEWAY = "scaler", "gateway"
"""The HorizontalPodAutoscaler; and what makes requests come by the gateway, which is told about the agent."""
REVISION = "revision"
"""A new revision whose children say what those of the old one said."""
ROLLING = frozenset({CONFIG, TEMPLATE})
"""Parts whose change makes a new revision."""

LONGEST_HPA_WINDOW = 3600
SHORTEST_DRAIN = 30
Shown = dict[str, Any]
"""Values of one part by a name of ours; None for what is there and not shown as it is."""

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
    """Values that must be new in the configuration, in the scaler, or in what the gateway is told."""
    scaling: dict[str, int] | None = None
    """What status.scaling must say, {} for nothing; None where it depends on what was before."""
    active: str = ""
    """Reason of condition ScalingActive; "" where it depends on more than the specification."""


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
    for part, of in _TOGETHER.items():
        then, now = of(before), of(after)
        if then != now:
            parts.add(part)
            shown += [value for name, value in now.items() if value is not None and then.get(name) != value]
    return Effect(frozenset(parts), shown=tuple(shown), scaling=_scaling(after), active=_active(after))


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


def _of(spec: Spec, path: str) -> Any:
    """A value of a flat specification, its default where its section is absent."""
    return spec.get(path, schema.fields()[path].get("default"))


def _provider(spec: Spec) -> str:
    """Who scales, "" where nobody does."""
    return str(_of(spec, "autoscaling.provider")) if "autoscaling.maxReplicas" in spec else ""


def _number(spec: Spec) -> int:
    """Replicas while not suspended and without load; windows that are open are not looked at."""
    asked: int = spec["replicas"]
    if _provider(spec) != "Native":
        return asked
    return min(max(asked, _of(spec, "autoscaling.minReplicas")), spec["autoscaling.maxReplicas"])


def _replicas(spec: Spec) -> Shown:
    return {str(0 if spec["suspend"] else _number(spec)): None}


def _budget(spec: Spec) -> Shown:
    return {"there": None} if spec.get("autoscaling.maxReplicas", spec["replicas"]) > 1 else {}


def _scaler(spec: Spec) -> Shown:
    if _provider(spec) != "HPA":
        return {}
    of = {name: _of(spec, f"autoscaling.{name}") for name in ("minReplicas", "maxReplicas")}
    cpu = spec.get("autoscaling.targetCPUUtilizationPercent")
    target = {"requests": _of(spec, "autoscaling.targetConcurrency")} if cpu is None else {"cpu": cpu}
    down = min(_of(spec, "autoscaling.scaleDownDelaySeconds"), LONGEST_HPA_WINDOW)
    return {**of, **target, "up": _of(spec, "autoscaling.scaleUpDelaySeconds"), "down": down}


def _gateway(spec: Spec) -> Shown:
    sleeps = _provider(spec) in ("Native", "KEDA") and _of(spec, "autoscaling.minReplicas") == 0
    if not sleeps and _of(spec, "access.gateway") != "Always":
        return {}
    parameters = [_of(spec, f"runtime.parameters.{name}") for name in ("maxConcurrency", "maxQueuedRequests")]
    return {
        "mode": _of(spec, "access.gateway"),
        "capacity": sum(parameters),
        "requests": _of(spec, "access.hold.maxRequests"),
        "bytes": _of(spec, "access.hold.maxMebibytes") * 2**20,
        "seconds": _of(spec, "access.hold.seconds"),
        "keys": spec.get("access.apiKeysSecretRef.name"),
    }


def _drain(spec: Spec) -> Shown:
    """What the pod's grace period follows."""
    return {str(max(SHORTEST_DRAIN, _of(spec, "runtime.parameters.requestTimeoutSeconds"))): None}


_TOGETHER: dict[str, Callable[[Spec], Shown]] = {
    REPLICAS: _replicas, BUDGET: _budget, SCALER: _scaler, GATEWAY: _gateway, TEMPLATE: _drain,
}  # fmt: skip
"""Parts that follow from several fields at once."""


def _scaling(spec: Spec) -> dict[str, int] | None:
    provider = _provider(spec)
    if not provider:
        return {}
    return None if provider == "Native" and spec["suspend"] else {"desired": _number(spec)}


def _active(spec: Spec) -> str:
    return {
        "": "FixedReplicas",
        "Native": "Suspended" if spec["suspend"] else "Autoscaling",
        "KEDA": "ScalerNotAvailable",
    }.get(_provider(spec), "")


def _volume(uri: str | None) -> str:
    """What of a model's URI the pod has to know."""
    scheme, _, rest = (uri or "remote://").partition("://")
    return {"oci": rest, "pvc": rest.partition("/")[0]}.get(scheme, scheme)


def _log_folder(path: str | None) -> str:
    """The volume made for the log file; none at a path that is a volume anyway."""
    return "" if path is None or path.startswith("/tmp/") else str(PurePosixPath(path).parent)
