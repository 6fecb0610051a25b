"""spec.autoscaling: how many replicas, and when. Layer: api, pure; imports api.base, api.types."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from agent_operator.api.base import ApiModel, Rule
from agent_operator.api.types import Label

MAX_REPLICAS = 1000
CronExpression = Annotated[str, Field(pattern=r"^\S+( +\S+){4}$", min_length=9, max_length=128)]


class AutoscalingProvider(StrEnum):
    """Who changes the number of replicas."""

    NATIVE = "Native"
    HPA = "HPA"
    KEDA = "KEDA"


class Schedule(ApiModel):
    """A recurring time window with its own minimum."""

    name: Label = Field(description="Name of the window, unique in the list.", examples=["office-hours"])
    start: CronExpression = Field(
        description="Cron expression of five fields: when the window opens.", examples=["0 8 * * 1-5"]
    )
    end: CronExpression = Field(
        description="Cron expression of five fields: when the window closes.", examples=["0 18 * * 1-5"]
    )
    time_zone: str = Field(
        default="Etc/UTC",
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9_+/-]+$",
        description="IANA time zone of start and end.",
    )
    min_replicas: int = Field(
        ge=0, le=MAX_REPLICAS, description="Least number of replicas while the window is open.", examples=[2]
    )


class Autoscaling(ApiModel):
    """Bounds and target of automatic scaling."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas is above maxReplicas",
            ".minReplicas",
        ),
        Rule(
            "self.provider != 'HPA' || self.minReplicas >= 1",
            "provider HPA cannot scale to zero; set minReplicas to 1 or more, or use provider Native or KEDA",
            ".minReplicas",
        ),
        Rule(
            "!has(self.schedules) || self.schedules.all(s, s.minReplicas <= self.maxReplicas)",
            "a schedule's minReplicas is above maxReplicas",
            ".schedules",
        ),
    )

    min_replicas: int = Field(
        default=1,
        ge=0,
        le=MAX_REPLICAS,
        description="Least number of replicas; 0 lets an idle agent give back its GPUs.",
    )
    max_replicas: int = Field(ge=1, le=MAX_REPLICAS, description="Greatest number of replicas.", examples=[8])
    target_concurrency: int = Field(
        default=8, ge=1, le=4096, description="Requests in flight that one replica should carry."
    )
    scale_down_delay_seconds: int = Field(
        default=60, ge=0, le=86_400, description="Seconds of lower demand before replicas are removed."
    )
    provider: AutoscalingProvider = Field(
        default=AutoscalingProvider.NATIVE,
        description="Native scales by the operator's own measure; HPA and KEDA hand the decision over.",
    )
    schedules: tuple[Schedule, ...] = Field(
        default=(),
        max_length=16,
        description="Recurring time windows with their own minimum.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
