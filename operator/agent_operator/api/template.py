"""spec.template: overrides of the runtime's pod. Layer: api, pure; imports api.base, api.names, api.types.

The one idea: any field of a pod template passes through except those the operator owns. Owned fields are
named here, so that CEL can see and refuse them; all others are kept as they are.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.config import JsonDict

from agent_operator.api.base import ApiModel, OpenModel, Rule
from agent_operator.api.names import OWNED_LABELS, OWNED_VOLUMES, RUNTIME_CONTAINER
from agent_operator.api.types import FreeObject

_OWNED_CONTAINER_FIELDS = {
    "image": "use spec.runtime.image",
    "command": "the operator starts the runtime",
    "args": "the operator starts the runtime",
    "ports": "the runtime's ports are fixed",
    "resources": "use spec.resources",
    "startupProbe": "use spec.health",
    "readinessProbe": "use spec.health",
    "livenessProbe": "use spec.health",
    "terminationMessagePath": "the operator reads the reason of a failure there",
    "terminationMessagePolicy": "the operator reads the reason of a failure there",
}
_OWNED_POD_FIELDS = {
    "restartPolicy": "a Deployment's pods are always restarted",
}
_MAX_CONTAINERS = 16
_MAX_VOLUMES = 32
_MAX_LABELS = 64

ShortText = Annotated[str, Field(max_length=1024)]
LabelMap = Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=_MAX_LABELS)]
AnnotationMap = Annotated[dict[str, Annotated[str, Field(max_length=16_384)]], Field(max_length=_MAX_LABELS)]
NamedList: JsonDict = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


def _owned_by_operator(field: str, instead: str) -> Rule:
    return Rule(
        f"self.name != '{RUNTIME_CONTAINER}' || !has(self.{field})",
        f"{field} of container {RUNTIME_CONTAINER} is set by the operator: {instead}",
        f".{field}",
        "FieldValueForbidden",
    )


class ContainerOverride(OpenModel):
    """A container of the pod: `runtime` is the agent's, others are added beside it."""

    rules: ClassVar[tuple[Rule, ...]] = tuple(
        _owned_by_operator(field, instead) for field, instead in _OWNED_CONTAINER_FIELDS.items()
    )

    name: Annotated[str, Field(min_length=1, max_length=63)] = Field(
        description="Name of the container.", examples=[RUNTIME_CONTAINER]
    )
    image: ShortText | None = Field(default=None, description="Image, of other containers than runtime.")
    command: tuple[ShortText, ...] | None = Field(
        default=None, max_length=64, description="Entry point, of other containers than runtime."
    )
    args: tuple[ShortText, ...] | None = Field(
        default=None, max_length=64, description="Arguments, of other containers than runtime."
    )
    ports: tuple[FreeObject, ...] | None = Field(
        default=None, max_length=16, description="Ports, of other containers than runtime."
    )
    resources: FreeObject | None = Field(
        default=None, description="Resources, of other containers than runtime."
    )
    startup_probe: FreeObject | None = Field(
        default=None, description="Startup probe, of other containers than runtime."
    )
    readiness_probe: FreeObject | None = Field(
        default=None, description="Readiness probe, of other containers than runtime."
    )
    liveness_probe: FreeObject | None = Field(
        default=None, description="Liveness probe, of other containers than runtime."
    )
    termination_message_path: ShortText | None = Field(
        default=None, description="Termination message path, of other containers than runtime."
    )
    termination_message_policy: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="Termination message policy, of other containers than runtime."
    )


class VolumeOverride(OpenModel):
    """A volume added to the pod."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!(self.name in {list(OWNED_VOLUMES)})",
            f"volume names {', '.join(OWNED_VOLUMES)} are the operator's; choose another name",
            ".name",
            "FieldValueForbidden",
        ),
    )

    name: Annotated[str, Field(min_length=1, max_length=63)] = Field(
        description="Name of the volume.", examples=["extra-ca"]
    )


class PodSpecOverride(OpenModel):
    """Fields of the pod's spec; see `kubectl explain pod.spec` for all of them."""

    rules: ClassVar[tuple[Rule, ...]] = tuple(
        Rule(
            f"!has(self.{field})",
            f"{field} is set by the operator: {why}",
            f".{field}",
            "FieldValueForbidden",
        )
        for field, why in _OWNED_POD_FIELDS.items()
    )

    containers: tuple[ContainerOverride, ...] | None = Field(
        default=None,
        max_length=_MAX_CONTAINERS,
        description="Overrides of container runtime (env, volumeMounts, securityContext, ...) and further "
        "containers, merged by name.",
        json_schema_extra=NamedList,
    )
    volumes: tuple[VolumeOverride, ...] | None = Field(
        default=None,
        max_length=_MAX_VOLUMES,
        description="Further volumes, merged by name.",
        json_schema_extra=NamedList,
    )
    service_account_name: Annotated[str, Field(max_length=253)] | None = Field(
        default=None,
        description="ServiceAccount of the pods, in the same namespace; without it the namespace's "
        "`default`. Its token is mounted only where `automountServiceAccountToken` is true too.",
        examples=["reader"],
    )
    restart_policy: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, description="Not accepted: a Deployment's pods are always restarted."
    )


class TemplateMetadata(ApiModel):
    """Labels and annotations of the pods."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!has(self.labels) || !self.labels.exists(k, k in {list(OWNED_LABELS)})",
            f"labels {', '.join(OWNED_LABELS)} are the operator's; choose other names",
            ".labels",
            "FieldValueForbidden",
        ),
    )

    labels: LabelMap | None = Field(
        default=None, description="Labels added to the pods.", examples=[{"team": "maps"}]
    )
    annotations: AnnotationMap | None = Field(default=None, description="Annotations added to the pods.")


class PodTemplate(ApiModel):
    """Overrides of the runtime's pod template, merged like a strategic merge patch."""

    metadata: TemplateMetadata | None = Field(default=None, description="Labels and annotations of the pods.")
    spec: PodSpecOverride | None = Field(default=None, description="Fields of the pod's spec.")

    def to_manifest(self) -> dict[str, Any]:
        """Exactly what the user wrote: a partial PodTemplateSpec."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)
