"""Pod template of a revision. Layer: core, pure; imports api, core.* and agent_runtime.contract.

The one idea: a pod that a namespace enforcing the Pod Security Standard `restricted` admits, that is
given time to load its model and time to finish its requests, and that sees its model read-only.

Start: the startup probe alone decides how long a model may load; until it succeeds the other probes do
not run. Without health.startupDeadlineSeconds the deadline is 30 minutes, and for a later revision more if
starts of this agent were seen to need it (`core.ledger`). It is not derived from the GPU or the size of the
model: the size is not known before the pull, and what differs most is the network and the disk; a deadline
that is too short kills healthy loads for ever, one that is too long only delays the restart of a hung one. A
runtime that fails says so and exits, it does not wait.

Probes ask the admin port, which answers when the serving port has no connection left to give. The runtime
itself says when its engine has stalled (health.stallSeconds), so a refusal is news and not noise: three in
LIVENESS_PERIOD_SECONDS each end a hung engine within ten seconds of its stall, and one or two after a blip
end nothing. An answer that does not come is another thing: a busy server short of CPU answers late. It gets
PROBE_TIMEOUT_SECONDS, which may be longer than the period (the kubelet sends one probe after the other), so
only half a minute without any answer ends a server whose engine may well be computing.

End: the pod first leaves the endpoints (PRE_STOP_SECONDS, so no new request finds a closed port), then
drains for the seconds it was told, and is only then killed.
"""

from __future__ import annotations

import math
from typing import Any

from agent_operator.api import AgentDeploymentSpec
from agent_operator.api.model_uri import ModelUri, Scheme
from agent_operator.api.names import ADMIN_PORT_NAME, RUNTIME_CONTAINER, RUNTIME_PORT_NAME
from agent_operator.api.resources import ResourceAmounts
from agent_operator.core import naming
from agent_operator.core.children.metadata import Owner
from agent_operator.core.children.runtime_config import drain_seconds
from agent_operator.core.children.template import with_overrides
from agent_operator.core.children.volumes import Mounted, mounted
from agent_runtime.contract import ADMIN_PORT, CACHE_PATH, HTTP_PORT

USER_ID = 65532
STARTUP_DEADLINE_SECONDS = 1800
STARTUP_PERIOD_SECONDS = 1
LIVENESS_PERIOD_SECONDS = 3
LIVENESS_FAILURES = 3
PROBE_TIMEOUT_SECONDS = 10
PRE_STOP_SECONDS = 5
EXIT_MARGIN_SECONDS = 10


def grace_seconds(spec: AgentDeploymentSpec) -> int:
    """Seconds until a replica that is to end is killed."""
    return math.ceil(PRE_STOP_SECONDS + drain_seconds(spec) + EXIT_MARGIN_SECONDS)


def pod_template(
    owner: Owner,
    spec: AgentDeploymentSpec,
    model: ModelUri | None,
    revision: str,
    image: str,
    *,
    startup_deadline: int | None = None,
) -> dict[str, Any]:
    """The pod template of a revision, with the user's overrides laid over it.

    `model` is None for a remote model, which needs no volume. `startup_deadline`: seconds that starts of this
    agent have proved to need, None where none was seen.
    """
    volumes = mounted(spec, model, naming.revisioned(owner.name, revision))
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": grace_seconds(spec),
        "securityContext": _pod_security(),
        "topologySpreadConstraints": [_spread(owner, revision)],
        "containers": [_container(spec, model, image, volumes, startup_deadline)],
        "volumes": [entry.volume for entry in volumes],
    }
    if tolerations := _tolerations(spec):
        pod["tolerations"] = tolerations
    labels = naming.revision_labels(owner.name, revision) | owner.shard_labels
    template = {"metadata": {"labels": labels}, "spec": pod}
    override = spec.template.to_manifest() if spec.template else {}
    return with_overrides(template, override)


def _container(
    spec: AgentDeploymentSpec,
    model: ModelUri | None,
    image: str,
    volumes: list[Mounted],
    startup_deadline: int | None,
) -> dict[str, Any]:
    return {
        "name": RUNTIME_CONTAINER,
        "image": image,
        "ports": [
            {"name": RUNTIME_PORT_NAME, "containerPort": HTTP_PORT, "protocol": "TCP"},
            {"name": ADMIN_PORT_NAME, "containerPort": ADMIN_PORT, "protocol": "TCP"},
        ],
        "env": _environment(model),
        "resources": resources(spec),
        **_probes(spec, startup_deadline),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [entry.mount for entry in volumes],
    }


def _probes(spec: AgentDeploymentSpec, proved: int | None) -> dict[str, Any]:
    deadline = spec.health.startup_deadline_seconds or max(STARTUP_DEADLINE_SECONDS, proved or 0)
    return {
        "startupProbe": {
            "httpGet": {"path": "/health/startup", "port": ADMIN_PORT_NAME},
            "periodSeconds": STARTUP_PERIOD_SECONDS,
            "timeoutSeconds": 5,
            "failureThreshold": math.ceil(deadline / STARTUP_PERIOD_SECONDS),
        },
        "readinessProbe": {
            "httpGet": {"path": "/health/ready", "port": ADMIN_PORT_NAME},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 2,
        },
        "livenessProbe": {
            "httpGet": {"path": "/health/live", "port": ADMIN_PORT_NAME},
            "periodSeconds": LIVENESS_PERIOD_SECONDS,
            "timeoutSeconds": PROBE_TIMEOUT_SECONDS,
            "failureThreshold": LIVENESS_FAILURES,
        },
    }


def _environment(model: ModelUri | None) -> list[dict[str, Any]]:
    """What the runtime cannot be told by its configuration file: settings of the hub's own client."""
    environment = [{"name": "HF_HOME", "value": CACHE_PATH}]
    if model is None or model.scheme is not Scheme.HF:
        environment.append({"name": "HF_HUB_OFFLINE", "value": "1"})
    return environment


def resources(spec: AgentDeploymentSpec) -> dict[str, Any]:
    """Requests and limits of the runtime container, before the user's template is laid over it."""
    if spec.resources is None:
        return {}
    limits = _amounts(spec.resources.limits)
    if (gpu := spec.resources.gpu) is not None and gpu.count > 0:
        limits[gpu.resource_name] = str(gpu.count)
    requests = _amounts(spec.resources.requests)
    return {side: amounts for side, amounts in (("limits", limits), ("requests", requests)) if amounts}


def _amounts(amounts: ResourceAmounts | None) -> dict[str, str]:
    return {} if amounts is None else {name: str(value) for name, value in amounts.to_manifest().items()}


def _tolerations(spec: AgentDeploymentSpec) -> list[dict[str, Any]]:
    """GPU nodes are usually tainted with the name of their resource, to keep other pods away."""
    gpu = spec.resources.gpu if spec.resources else None
    return [{"key": gpu.resource_name, "operator": "Exists"}] if gpu and gpu.count > 0 else []


def _pod_security() -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _spread(owner: Owner, revision: str) -> dict[str, Any]:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": naming.selector(owner.name, revision)},
    }
