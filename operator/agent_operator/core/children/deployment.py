"""Deployment of a revision. Layer: core, pure.

The one idea: the pod template is rendered when the revision is made and recorded on the Deployment
itself. From then on the record is what we want: a new version of the operator changes no pod, and a
template edited by hand is put back even when the spec has moved on. The record lies on the Deployment
and nowhere else because whoever can write there may run pods anyway.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agent_operator.api.names import RUNTIME_CONTAINER
from agent_operator.core import naming
from agent_operator.core.children.metadata import Owner, metadata
from agent_operator.core.drift import canonical
from agent_operator.core.reading import mappings, text

FROM_SPEC = "Spec"
FROM_DEFAULT = "Default"


def deployment(
    owner: Owner,
    revision: str,
    template: Mapping[str, Any],
    *,
    replicas: int,
    progress_deadline_seconds: int,
    image_from_spec: bool,
) -> dict[str, Any]:
    """The Deployment `<agent>-<revision>`.

    Within a revision pods are replaced only for `kubectl rollout restart` or a repair; then a new pod
    is ready before an old one goes.
    """
    meta = metadata(owner, naming.revisioned(owner.name, revision), revision)
    meta["annotations"] = {
        naming.POD_TEMPLATE: record(template),
        naming.IMAGE_SOURCE: FROM_SPEC if image_from_spec else FROM_DEFAULT,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": progress_deadline_seconds,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": naming.selector(owner.name, revision)},
            "template": dict(template),
        },
    }


def record(template: Mapping[str, Any]) -> str:
    """A pod template as one annotation: its digest, a space, its JSON."""
    written = canonical(template)
    return f"{naming.digest(written, 16)} {written}"


def recorded(live: Mapping[str, Any]) -> dict[str, Any] | None:
    """The pod template a Deployment was made with, None when the record is missing or was edited."""
    checksum, _, written = text(live, "metadata", "annotations", naming.POD_TEMPLATE).partition(" ")
    if not written or naming.digest(written, 16) != checksum:
        return None
    try:
        template = json.loads(written)
    except (ValueError, RecursionError):
        return None
    return template if isinstance(template, dict) and runtime_image(template) else None


def runtime_image(template: Mapping[str, Any]) -> str:
    """Image of the container `runtime` in a pod template, "" without one."""
    containers = mappings(template, "spec", "containers")
    return next((text(c, "image") for c in containers if c.get("name") == RUNTIME_CONTAINER), "")


def image_from_spec(live: Mapping[str, Any]) -> bool:
    """Whether the user named the image of this Deployment."""
    return text(live, "metadata", "annotations", naming.IMAGE_SOURCE) == FROM_SPEC
