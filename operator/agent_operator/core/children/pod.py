"""Pod template of a revision. Layer: core, pure; imports api, core.* and agent_runtime.contract.

The one idea: a pod that a namespace enforcing the Pod Security Standard `restricted` admits, that is
given time to load its model and time to finish its requests, and that sees its model read-only.

Start: the startup probe alone decides how long a model may load; until it succeeds the other probes do
not run. Without health.startupDeadlineSeconds the deadline is 30 minutes. It is not derived from the
GPU or the size of the model: the size is not known before the pull, and what differs most is the
network and the disk; a deadline that is too short kills healthy loads for ever, one that is too long
only delays the restart of a hung one. A runtime that fails says so and exits, it does not wait.

End: the pod first leaves the endpoints (PRE_STOP_SECONDS, so no new request finds a closed port), then
drains for the seconds it was told, and is only then killed.
"""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from typing import Any

from agent_operator.api import AgentDeploymentSpec
from agent_operator.api.model_uri import ModelUri, Scheme
from agent_operator.api.names import (
    RUNTIME_CONTAINER,
    RUNTIME_PORT_NAME,
    VOLUME_CACHE,
    VOLUME_CONFIG,
    VOLUME_MODEL,
    VOLUME_TMP,
)
from agent_operator.api.resources import ResourceAmounts
from agent_operator.core import naming
from agent_operator.core.children.config_map import CONFIG_KEY
from agent_operator.core.children.metadata import Owner
from agent_operator.core.children.template import with_overrides
from agent_runtime.contract import CACHE_PATH, CONFIG_PATH, HTTP_PORT, MODEL_MOUNT_PATH, RuntimeConfig

USER_ID = 65532
STARTUP_DEADLINE_SECONDS = 1800
STARTUP_PERIOD_SECONDS = 1
PRE_STOP_SECONDS = 5
EXIT_MARGIN_SECONDS = 10
DRAIN_SECONDS: float = RuntimeConfig.model_fields["drain_seconds"].default
GRACE_SECONDS = math.ceil(PRE_STOP_SECONDS + DRAIN_SECONDS + EXIT_MARGIN_SECONDS)


def pod_template(
    owner: Owner, spec: AgentDeploymentSpec, model: ModelUri, revision: str, image: str
) -> dict[str, Any]:
    """The pod template of a revision, with the user's overrides laid over it."""
    name = naming.revisioned(owner.name, revision)
    pod: dict[str, Any] = {
        "serviceAccountName": naming.agent_stem(owner.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": _pod_security(),
        "topologySpreadConstraints": [_spread(owner, revision)],
        "containers": [_container(spec, model, image)],
        "volumes": _volumes(name, model),
    }
    if tolerations := _tolerations(spec):
        pod["tolerations"] = tolerations
    template = {"metadata": {"labels": naming.revision_labels(owner.name, revision)}, "spec": pod}
    override = spec.template.to_manifest() if spec.template else {}
    return with_overrides(template, override)


def _container(spec: AgentDeploymentSpec, model: ModelUri, image: str) -> dict[str, Any]:
    return {
        "name": RUNTIME_CONTAINER,
        "image": image,
        "ports": [{"name": RUNTIME_PORT_NAME, "containerPort": HTTP_PORT, "protocol": "TCP"}],
        "env": _environment(spec, model),
        "resources": _resources(spec),
        **_probes(spec),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(model),
    }


def _probes(spec: AgentDeploymentSpec) -> dict[str, Any]:
    deadline = spec.health.startup_deadline_seconds or STARTUP_DEADLINE_SECONDS
    return {
        "startupProbe": {
            "httpGet": {"path": "/health/startup", "port": RUNTIME_PORT_NAME},
            "periodSeconds": STARTUP_PERIOD_SECONDS,
            "timeoutSeconds": 5,
            "failureThreshold": math.ceil(deadline / STARTUP_PERIOD_SECONDS),
        },
        "readinessProbe": {
            "httpGet": {"path": "/health/ready", "port": RUNTIME_PORT_NAME},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 2,
        },
        "livenessProbe": {
            "httpGet": {"path": "/health/live", "port": RUNTIME_PORT_NAME},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
    }


def _environment(spec: AgentDeploymentSpec, model: ModelUri) -> list[dict[str, Any]]:
    """What the runtime cannot be told by its configuration file: settings of the hub's own client."""
    environment: list[dict[str, Any]] = [{"name": "HF_HOME", "value": CACHE_PATH}]
    if model.scheme is not Scheme.HF:
        return [*environment, {"name": "HF_HUB_OFFLINE", "value": "1"}]
    if (token := spec.model.token_secret_ref) is not None:
        reference = {"name": token.name, "key": token.key}
        environment.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}})
    return environment


def _resources(spec: AgentDeploymentSpec) -> dict[str, Any]:
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


def _volumes(config_map: str, model: ModelUri) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {
            "name": VOLUME_CONFIG,
            "configMap": {"name": config_map, "items": [{"key": CONFIG_KEY, "path": CONFIG_KEY}]},
        },
        {"name": VOLUME_CACHE, "emptyDir": {}},
        {"name": VOLUME_TMP, "emptyDir": {}},
    ]
    if model.scheme is Scheme.OCI:
        volumes.append(
            {"name": VOLUME_MODEL, "image": {"reference": model.image, "pullPolicy": "IfNotPresent"}}
        )
    if model.scheme is Scheme.PVC:
        claim = {"claimName": model.claim, "readOnly": True}
        volumes.append({"name": VOLUME_MODEL, "persistentVolumeClaim": claim})
    return volumes


def _mounts(model: ModelUri) -> list[dict[str, Any]]:
    """A volume claim is mounted whole and the runtime is told the path inside it.

    With `subPath` the kubelet would create a missing folder in the user's volume, or fail without
    naming it; the runtime says which path is missing. The URI's syntax keeps the path inside the
    mount, and a symbolic link out of it ends in the container.
    """
    mounts: list[dict[str, Any]] = [
        {"name": VOLUME_CONFIG, "mountPath": str(PurePosixPath(CONFIG_PATH).parent), "readOnly": True},
        {"name": VOLUME_CACHE, "mountPath": CACHE_PATH},
        {"name": VOLUME_TMP, "mountPath": "/tmp"},  # noqa: S108 an emptyDir of the pod's own
    ]
    if model.scheme in (Scheme.OCI, Scheme.PVC):
        mounts.append({"name": VOLUME_MODEL, "mountPath": MODEL_MOUNT_PATH, "readOnly": True})
    return mounts
