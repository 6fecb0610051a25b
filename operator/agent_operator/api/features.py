"""What this version of the operator can do of what the API models. Layer: api, pure; imports api.*.

The one idea: a field that is modelled but not built yet is refused with a sentence, never ignored. Every
field of the specification stands in exactly one of the two tables; a test walks the schema and says which
one is missing. The change that builds a feature moves its line from UNSUPPORTED to SUPPORTED.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from agent_operator.api.root import AgentDeploymentSpec

SUPPORTED = frozenset(
    {
        "replicas",
        "suspend",
        "model.uri",
        "model.revision",
        "model.tokenSecretRef",
        "model.remote",
        "model.dtype",
        "model.quantization",
        "agent.systemPrompt",
        "agent.tools",
        "agent.decision",
        "agent.limits",
        "agent.prices",
        "agent.sessions",
        "runtime.image",
        "runtime.parameters",
        "runtime.logging",
        "resources.gpu.count",
        "resources.gpu.resourceName",
        "resources.requests",
        "resources.limits",
        "strategy.progressDeadlineSeconds",
        "health.startupDeadlineSeconds",
        "health.stallSeconds",
        "access.apiKeysSecretRef",
        "access.gateway",
        "access.hold",
        "autoscaling",
        "template",
    }
)
"""Paths below spec that work, each with everything under it."""


@dataclass(frozen=True, slots=True)
class UnsupportedField:
    """A field of one specification that this version cannot honour."""

    path: str
    """Field path from the root, for example `spec.autoscaling`."""
    why: str
    """One sentence: what is not there."""
    remedy: str
    """What to change so that the manifest is accepted."""


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A line of the table: a path below spec whose feature is not built yet."""

    path: str
    feature: str
    """What the user would get, as subject of a sentence in the plural. Any value but the schema's default
    asks for it."""
    remedy: str


UNSUPPORTED = (
    Unsupported("model.candidates", "several model candidates", "name one model in model.uri"),
    Unsupported("model.selection", "model selection rules", "remove it and name one model in model.uri"),
    Unsupported(
        "resources.gpu.deviceClassName",
        "devices by dynamic resource allocation",
        "remove it and name the device plugin's resource in resources.gpu.resourceName",
    ),
    Unsupported("resources.gpu.sharing", "shared devices", "use Exclusive"),
    Unsupported("strategy.type", "rollouts other than BlueGreen", "use BlueGreen"),
    Unsupported("strategy.gpuScarcity", "rules for scarce devices", "use Auto"),
    Unsupported("strategy.prePromotionAnalysis", "tests before promotion", "remove it"),
    Unsupported("strategy.postPromotionAnalysis", "tests after promotion", "remove it"),
    Unsupported("strategy.autoPromotionEnabled", "manual promotions", "use true"),
    Unsupported("strategy.scaleDownDelaySeconds", "delays before the old revision ends", "remove it"),
    Unsupported("tuning.mode", "tuning runs", "use Disabled"),
    Unsupported("tuning.objective", "tuning runs", "remove tuning"),
    Unsupported("tuning.maxTrials", "tuning runs", "remove tuning"),
    Unsupported("remediation.mode", "automatic repairs", "use Disabled"),
    Unsupported(
        "access.allowedNamespaces",
        "rules of which namespaces may call",
        "remove it and use a NetworkPolicy of your own",
    ),
)


def unsupported(spec: AgentDeploymentSpec) -> list[UnsupportedField]:
    """The fields of `spec` that ask for a feature this version does not have, in the table's order."""
    found = []
    for line in UNSUPPORTED:
        present, value, default = _lookup(spec, line.path)
        if present and value != default:
            why = f"{line.feature} are not supported by this version of the operator"
            found.append(UnsupportedField(f"spec.{line.path}", why, line.remedy))
    return found


def _lookup(spec: BaseModel, path: str) -> tuple[bool, Any, Any]:
    """Whether the path's parents exist, the value at the path, and the schema's default of that field."""
    current: Any = spec
    default: Any = None
    for name in path.split("."):
        if current is None:
            return False, None, None
        attribute, field = next(
            (attribute, field)
            for attribute, field in type(current).model_fields.items()
            if (field.alias or attribute) == name
        )
        current, default = getattr(current, attribute), field.default
    return True, current, default
