"""What a runtime sees of disks. Layer: core, pure; imports api, core.* and the contract.

The one idea: a volume and the place where the runtime's container sees it are one entry of one list, so
neither can be there without the other.

A log file needs a writable folder, and the root file system is read-only. Where the path lies on a volume
that is mounted anyway (the cache, /tmp, one of the user's own), nothing is added; otherwise its folder
becomes an empty volume, unless that would hide what the image has there. The file is rotated, so the volume
has no limit of size: passing one would end the pod.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from agent_operator.api import AgentDeploymentSpec
from agent_operator.api.model_uri import ModelUri, Scheme
from agent_operator.api.names import (
    RUNTIME_CONTAINER,
    VOLUME_API_KEYS,
    VOLUME_CACHE,
    VOLUME_CONFIG,
    VOLUME_LOGS,
    VOLUME_MODEL,
    VOLUME_SECRETS,
    VOLUME_TMP,
)
from agent_operator.core.children import secrets
from agent_operator.core.children.config_map import CONFIG_KEY
from agent_operator.core.reading import mappings, text
from agent_runtime.contract import CACHE_PATH, CONFIG_PATH, MODEL_MOUNT_PATH, SECRETS_PATH

_OF_THE_IMAGE = re.compile(
    r"/(app|bin|boot|dev|etc|lib\w*|opt|proc|root|run|sbin|sys|usr|var(?!/log(/|$)))(/|$)"
)
"""Folders that images have files in; of /var, /var/log is free."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """A volume and the folder where the runtime's container sees it."""

    name: str
    source: Mapping[str, Any]
    path: str
    read_only: bool = False

    @property
    def volume(self) -> dict[str, Any]:
        """The entry of the pod's volumes."""
        return {"name": self.name, **self.source}

    @property
    def mount(self) -> dict[str, Any]:
        """The entry of the container's volumeMounts."""
        mount: dict[str, Any] = {"name": self.name, "mountPath": self.path}
        return {**mount, "readOnly": True} if self.read_only else mount


def mounted(spec: AgentDeploymentSpec, model: ModelUri | None, config_map: str) -> list[Mounted]:
    """Every volume of the operator's own; the user's come with spec.template.

    `model` is None for a remote model.
    """
    found = [*_fixed(config_map), *_model(model), *_secrets(spec)]
    if (folder := _log_folder(spec, _folders(spec, found))) is not None:
        found.append(Mounted(VOLUME_LOGS, {"emptyDir": {}}, folder))
    return found


def log_problem(spec: AgentDeploymentSpec, model: ModelUri | None) -> str | None:
    """Why spec.runtime.logging.path cannot be written, None when it can; with the remedy."""
    path, folders = spec.runtime.logging.path, _folders(spec, [*_fixed(""), *_model(model), *_secrets(spec)])
    if path is None:
        return None
    place, folder = _covering(path, folders), PurePosixPath(path).parent
    mend = "choose a folder of its own such as /var/log/agent, or mount a volume there in spec.template"
    if place is not None:
        return f"{path} lies in {place}, which is mounted read-only; {mend}" if folders[place] else None
    hidden = [known for known in folders if folder in PurePosixPath(known).parents]
    if hidden or _OF_THE_IMAGE.match(str(folder)):
        what = hidden[0] if hidden else "files of the image"
        return f"an empty volume at {folder} would hide {what}; {mend}"
    return None


def _fixed(config_map: str) -> list[Mounted]:
    items = [{"key": CONFIG_KEY, "path": CONFIG_KEY}]
    config = {"configMap": {"name": config_map, "items": items}}
    return [
        Mounted(VOLUME_CONFIG, config, str(PurePosixPath(CONFIG_PATH).parent), read_only=True),
        Mounted(VOLUME_CACHE, {"emptyDir": {}}, CACHE_PATH),
        Mounted(VOLUME_TMP, {"emptyDir": {}}, "/tmp"),  # noqa: S108 an emptyDir of the pod's own
    ]


def _model(model: ModelUri | None) -> list[Mounted]:
    """A volume claim is mounted whole and the runtime is told the path inside it.

    With `subPath` the kubelet would create a missing folder in the user's volume, or fail without
    naming it; the runtime says which path is missing. The URI's syntax keeps the path inside the
    mount, and a symbolic link out of it ends in the container.
    """
    source: dict[str, Any]
    if model is not None and model.scheme is Scheme.OCI:
        source = {"image": {"reference": model.image, "pullPolicy": "IfNotPresent"}}
    elif model is not None and model.scheme is Scheme.PVC:
        source = {"persistentVolumeClaim": {"claimName": model.claim, "readOnly": True}}
    else:
        return []
    return [Mounted(VOLUME_MODEL, source, MODEL_MOUNT_PATH, read_only=True)]


def _secrets(spec: AgentDeploymentSpec) -> list[Mounted]:
    found = []
    if files := secrets.secret_files(spec):
        found.append(Mounted(VOLUME_SECRETS, secrets.projected(files), SECRETS_PATH, read_only=True))
    if spec.access is not None and (keys := spec.access.api_keys_secret_ref) is not None:
        source = secrets.whole(keys.name)
        found.append(Mounted(VOLUME_API_KEYS, source, secrets.API_KEYS_PATH, read_only=True))
    return found


def _folders(spec: AgentDeploymentSpec, ours: Iterable[Mounted]) -> dict[str, bool]:
    """Every folder that is mounted for the runtime, and whether read-only; the user's own included."""
    folders: dict[str, bool] = {}
    template = spec.template.to_manifest() if spec.template else {}
    for container in mappings(template, "spec", "containers"):
        if container.get("name") == RUNTIME_CONTAINER:
            for mount in mappings(container, "volumeMounts"):
                folders[text(mount, "mountPath") or "/"] = mount.get("readOnly") is True
    for entry in ours:
        if entry.read_only or entry.path not in folders:
            folders[entry.path] = entry.read_only
    return folders


def _covering(path: str, folders: Iterable[str]) -> str | None:
    """The innermost of these folders that a path lies in."""
    parents = PurePosixPath(path).parents
    around = [folder for folder in folders if PurePosixPath(folder) in parents and folder != "/"]
    return max(around, key=lambda folder: len(PurePosixPath(folder).parts), default=None)


def _log_folder(spec: AgentDeploymentSpec, folders: Mapping[str, bool]) -> str | None:
    path = spec.runtime.logging.path
    return None if path is None or _covering(path, folders) else str(PurePosixPath(path).parent)
