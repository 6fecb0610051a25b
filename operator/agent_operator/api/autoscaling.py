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
            "self.provider == 'HPA' || !has(self.targetCPUUtilizationPercent)",
            "only provider HPA scales by CPU; remove targetCPUUtilizationPercent, or use provider HPA",
            ".targetCPUUtilizationPercent",
            "FieldValueForbidden",
        ),
        Rule(
            "self.provider == 'Native' || (!has(self.schedules) && !has(self.targetQueuedTokens) && "
            "!has(self.targetP95Milliseconds))",
            "schedules, targetQueuedTokens and targetP95Milliseconds are signals of provider Native; "
            "remove them, or use provider Native",
            ".provider",
            "FieldValueForbidden",
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
    target_queued_tokens: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="Tokens that may wait in the queue of one replica: more replicas when there are more.",
        examples=[8192],
    )
    target_p95_milliseconds: int | None = Field(
        default=None,
        alias="targetP95Milliseconds",
        ge=1,
        le=3_600_000,
        description="95th percentile of the response time, in milliseconds, above which replicas are added "
        "while they are busy.",
        examples=[2000],
    )
    target_cpu_utilization_percent: int | None = Field(
        default=None,
        alias="targetCPUUtilizationPercent",
        ge=1,
        le=1000,
        description="Provider HPA: scale by the pods' use of CPU in percent of their request, which "
        "metrics-server alone provides, instead of by requests in flight, which need an adapter for the "
        "runtime's metrics. Every container needs a cpu request.",
        examples=[80],
    )
    tolerance_percent: int = Field(
        default=10,
        ge=0,
        le=100,
        description="Deviation from the target, in percent, that changes nothing; with HPA and KEDA the "
        "cluster's own tolerance holds.",
    )
    stable_window_seconds: int = Field(
        default=60,
        ge=6,
        le=3600,
        description="Seconds over which demand is averaged; a tenth of it for the panic that answers a jump. "
        "Provider Native only.",
    )
    scale_up_delay_seconds: int = Field(
        default=0, ge=0, le=3600, description="Seconds of higher demand before replicas are added."
    )
    scale_down_delay_seconds: int = Field(
        default=60,
        ge=0,
        le=86_400,
        description="Seconds of lower demand before replicas are removed, the last one included. HPA and "
        "KEDA wait at most 3600, KEDA for the last one as long as it says.",
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
