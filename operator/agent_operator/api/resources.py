"""spec.resources: what each replica gets. Layer: api, pure; imports api.base, api.types."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from agent_operator.api.base import ApiModel, Rule
from agent_operator.api.types import ObjectName, QualifiedName, Quantity

DEFAULT_GPU_RESOURCE = "nvidia.com/gpu"
_COMPARABLE = ("cpu", "memory", "ephemeral-storage")


def _at_most_limit(resource: str) -> Rule:
    field = resource.replace("-", "__dash__")
    both = f"has(self.requests) && has(self.limits) && has(self.requests.{field}) && has(self.limits.{field})"
    request, limit = (f"quantity(string(self.{side}.{field}))" for side in ("requests", "limits"))
    return Rule(
        f"!({both}) || {request}.compareTo({limit}) <= 0",
        f"the request of {resource} is above its limit; lower requests or raise limits",
        f".requests['{resource}']",
    )


class GpuSharing(StrEnum):
    """Whether a device is used by one pod alone."""

    EXCLUSIVE = "Exclusive"
    MIG = "MIG"
    TIME_SLICING = "TimeSlicing"


class Gpu(ApiModel):
    """Devices of each replica."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!has(self.deviceClassName) || self.resourceName == '{DEFAULT_GPU_RESOURCE}'",
            "set either deviceClassName (dynamic resource allocation) or resourceName (device plugin), "
            "not both",
            ".deviceClassName",
            "FieldValueForbidden",
        ),
        Rule(
            "self.sharing != 'MIG' || has(self.deviceClassName) || "
            "self.resourceName.startsWith('nvidia.com/mig-')",
            "sharing MIG needs resourceName nvidia.com/mig-PROFILE, for example nvidia.com/mig-1g.10gb, or a "
            "deviceClassName",
            ".sharing",
        ),
        Rule(
            "self.sharing != 'TimeSlicing' || self.count <= 1",
            "sharing TimeSlicing gives a share of one device; set count to 1",
            ".count",
        ),
    )

    count: int = Field(default=1, ge=0, le=64, description="Whole devices per replica; 0 runs on the CPU.")
    resource_name: QualifiedName = Field(
        default=DEFAULT_GPU_RESOURCE,
        description="Extended resource offered by the node's device plugin. Not used with deviceClassName.",
    )
    device_class_name: ObjectName | None = Field(
        default=None,
        description="DeviceClass for dynamic resource allocation, instead of resourceName.",
        examples=["gpu.nvidia.com"],
    )
    sharing: GpuSharing = Field(
        default=GpuSharing.EXCLUSIVE,
        description="Exclusive devices, a hardware partition (MIG), or a share of time (TimeSlicing).",
    )


class ResourceAmounts(ApiModel):
    """Amounts of the node's own resources; GPUs are asked for in resources.gpu."""

    cpu: Quantity | None = Field(
        default=None,
        description="CPU in cores; a fraction is text, as in all custom resources.",
        examples=["500m"],
    )
    memory: Quantity | None = Field(default=None, description="Memory in bytes.", examples=["2Gi"])
    ephemeral_storage: Quantity | None = Field(
        default=None,
        alias="ephemeral-storage",
        description="Disk for the model cache and logs, in bytes.",
        examples=["20Gi"],
    )


class Resources(ApiModel):
    """What each replica gets."""

    rules: ClassVar[tuple[Rule, ...]] = tuple(_at_most_limit(resource) for resource in _COMPARABLE)

    gpu: Gpu | None = Field(default=None, description="Devices of each replica; none when absent.")
    requests: ResourceAmounts | None = Field(
        default=None, description="Amounts the scheduler reserves for each replica."
    )
    limits: ResourceAmounts | None = Field(
        default=None, description="Amounts a replica cannot exceed. Above the memory limit it is killed."
    )
