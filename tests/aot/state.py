"""What there is of an agent, in a form that can be compared. Layer: tests.

The one idea: a state without what every write changes (versions, times, uids of owners), so that equal states
are equal values; and the parts in which two states differ, in the terms of `effects`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from agent_operator.api.gateway import GATEWAY_ANNOTATION
from agent_operator.api.names import GROUP
from tests.aot.cluster import Mirror, Object
from tests.aot.effects import BUDGET, CONFIG, DEADLINE, GATEWAY, REPLICAS, SCALER, TEMPLATE

_POD = re.compile(r"(-[a-z0-9]{8})-[a-z0-9]{6,10}-[a-z0-9]{5}\b")
"""Names of pods and their ReplicaSets, which are new each time."""
BEHIND = f"{GROUP}/behind"
"""In a Service's selector: it matches no pod, the gateway stands in front."""
_OWN_METADATA = ("name", "labels", "annotations")


@dataclass(frozen=True)
class State:
    """An agent's children and status at one moment."""

    generation: int
    observed: int
    children: dict[str, Any]
    status: dict[str, Any]

    @property
    def revision(self) -> str:
        """The revision that the operator says the specification asks for."""
        return str(self.status.get("updateRevision", ""))

    @property
    def ready(self) -> tuple[str, str, str]:
        """Status, reason and message of condition Ready."""
        found: tuple[str, str, str] = self.status["conditions"].get("Ready", ("", "", ""))
        return found

    @property
    def scaling_active(self) -> str:
        """Reason of condition ScalingActive."""
        return str(self.status["conditions"].get("ScalingActive", ("", "", ""))[1])


def state_of(mirror: Mirror, agent: str) -> State | None:
    """The agent as the mirror shows it, None where there is none."""
    found = mirror.agents.get(agent)
    if found is None:
        return None
    status = found.get("status", {})
    children = {key: _child(child) for key, child in mirror.children[agent].items()}
    generation = int(found["metadata"]["generation"])
    return State(generation, int(status.get("observedGeneration", 0)), children, _status(status))


def _status(status: Object) -> Object:
    conditions = {
        c["type"]: (c["status"], c["reason"], _POD.sub(r"\1-POD", c.get("message", "")))
        for c in status.get("conditions", ())
    }
    diagnoses = sorted(d["reason"] for d in status.get("diagnoses", ()))
    kept = {k: v for k, v in status.items() if k not in ("observedGeneration", "conditions", "diagnoses")}
    # The rest of it tells how the number came about, which is another story after every change.
    scaling = {"desired": status["scaling"]["desired"]} if "scaling" in status else {}
    return {**kept, "scaling": scaling, "conditions": conditions, "diagnoses": diagnoses}


def _child(child: Object) -> Object:
    meta = {key: child["metadata"].get(key) for key in _OWN_METADATA}
    # The Deployment controller's own annotation counts the templates a Deployment has had.
    own = {k: v for k, v in (meta["annotations"] or {}).items() if k.startswith(GROUP)}
    body = {k: v for k, v in child.items() if k not in ("metadata", "status", "apiVersion", "kind")}
    deleted = {"deleting": True} if "deletionTimestamp" in child["metadata"] else {}
    return {"metadata": {**meta, "annotations": own}, **body, **deleted}


def parts(old: State, new: State) -> tuple[frozenset[str], list[Any]]:
    """The parts in which the children of two states differ, and the values of those that are shown whole
    that are new."""
    before, after = _in_parts(old), _in_parts(new)
    differ = frozenset(part for part in before.keys() | after.keys() if before.get(part) != after.get(part))
    fresh = [
        value
        for part in (CONFIG, SCALER, GATEWAY)
        for path, value in after[part].items()
        if before[part].get(path, ...) != value
    ]
    return differ, fresh


def _in_parts(state: State) -> dict[str, Any]:
    """The children by part; whatever fits no part is one of its own, under its key."""
    revision = state.revision
    found: dict[str, Any] = {CONFIG: {}, BUDGET: False, SCALER: {}, GATEWAY: {}}
    for key, child in state.children.items():
        neutral = json.loads(
            json.dumps(child).replace(f"-{revision}", "-REV").replace(f'"{revision}"', '"REV"')
        )
        told = neutral["metadata"].pop("annotations", {})
        kind, _, name = key.replace(f"-{revision}", "-REV").partition("/")
        if kind == "ConfigMap" and name.endswith("-REV"):
            config = json.loads(neutral["data"].pop("config.json"))
            config.pop("revision")
            found[CONFIG] = dict(_flat(config, ""))
        elif kind == "Deployment" and name.endswith("-REV"):
            spec = neutral["spec"]
            found[REPLICAS] = spec.pop("replicas")
            found[DEADLINE] = spec.pop("progressDeadlineSeconds")
            found[TEMPLATE] = spec.pop("template")
        elif kind == "PodDisruptionBudget":
            found[BUDGET] = True
            continue
        elif kind == "HorizontalPodAutoscaler":
            found[SCALER] = dict(_flat(neutral, ""))
            continue
        elif kind == "EndpointSlice":
            found[GATEWAY] |= dict(_flat({**neutral, "route": json.loads(told[GATEWAY_ANNOTATION])}, "slice"))
            continue
        elif kind == "Service" and name.endswith("-pods"):
            found[GATEWAY] |= dict(_flat(neutral, "pods"))
            continue
        elif kind == "Service" and _behind(neutral):
            found[GATEWAY][BEHIND] = True
        found[f"{kind}/{name}"] = neutral
    return found


def _behind(service: Object) -> bool:
    """Whether the gateway stands in front of a Service, which then is as it would be without."""
    selector: Object = service.get("spec", {}).get("selector", {})
    return selector.pop(BEHIND, None) is not None


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from _flat(child, f"{path}.{key}")
    elif isinstance(value, list) and value:
        for index, child in enumerate(value):
            yield from _flat(child, f"{path}[{index}]")
    else:
        yield path, value
