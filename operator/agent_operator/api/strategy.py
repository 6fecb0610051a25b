"""spec.strategy: how a new revision replaces the old one. Layer: api, pure; imports api.base, api.types."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from agent_operator.api.base import ApiModel, Rule
from agent_operator.api.types import ConfigMapKeyRef, Decimal, Label

_EXPECTATIONS = "[has(self.equals), has(self.contains), has(self.matches)]"


class StrategyType(StrEnum):
    """How a new revision replaces the old one."""

    BLUE_GREEN = "BlueGreen"
    CANARY = "Canary"
    RECREATE = "Recreate"


class GpuScarcity(StrEnum):
    """What to do when old and new revision do not fit side by side."""

    AUTO = "Auto"
    SWAP = "Swap"
    WAIT = "Wait"


class FunctionalCase(ApiModel):
    """A question and what its answer must look like."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"{_EXPECTATIONS}.exists_one(x, x)",
            "set exactly one of equals, contains and matches in each case",
            ".equals",
            "FieldValueRequired",
        ),
    )

    name: Label = Field(description="Name of the case, unique in the list.", examples=["capital-of-france"])
    prompt: str = Field(
        min_length=1,
        max_length=8192,
        description="What the agent is asked.",
        examples=["What is the capital of France?"],
    )
    equals: str | None = Field(
        default=None, max_length=8192, description="The whole answer, without surrounding space."
    )
    contains: str | None = Field(
        default=None,
        min_length=1,
        max_length=8192,
        description="Text the answer contains.",
        examples=["Paris"],
    )
    matches: str | None = Field(
        default=None, min_length=1, max_length=1024, description="Regular expression found in the answer."
    )


class FunctionalAnalysis(ApiModel):
    """Answers a revision must give."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.cases) && size(self.cases) > 0) != has(self.configMapRef)",
            "set exactly one of cases and configMapRef",
            ".cases",
            "FieldValueRequired",
        ),
    )

    cases: tuple[FunctionalCase, ...] = Field(
        default=(),
        max_length=64,
        description="Cases in the manifest itself.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    config_map_ref: ConfigMapKeyRef | None = Field(
        default=None, description="ConfigMap key holding the cases."
    )
    min_pass_percent: int = Field(
        default=100, ge=1, le=100, description="Share of cases that must pass, in percent."
    )


class PerformanceAnalysis(ApiModel):
    """Speed a revision must reach."""

    concurrency: int = Field(default=8, ge=1, le=4096, description="Requests in flight during the test.")
    duration_seconds: int = Field(default=20, ge=1, le=3600, description="Length of the test in seconds.")
    max_regression_percent: int = Field(
        default=10,
        ge=0,
        le=1000,
        description="How much slower than the current revision the new one may be, in percent.",
    )
    max_p95_milliseconds: int | None = Field(
        default=None,
        alias="maxP95Milliseconds",
        ge=1,
        le=3_600_000,
        description="Upper bound of the 95th percentile of latency, in milliseconds.",
        examples=[800],
    )
    min_tokens_per_second: Decimal | None = Field(
        default=None,
        description="Lower bound of generated tokens per second, over all requests.",
        examples=["120"],
    )


class Analysis(ApiModel):
    """A test of a revision."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.functional) || has(self.performance)",
            "an analysis needs functional, performance or both",
            ".functional",
            "FieldValueRequired",
        ),
    )

    functional: FunctionalAnalysis | None = Field(default=None, description="Answers it must give.")
    performance: PerformanceAnalysis | None = Field(default=None, description="Speed it must reach.")


class Strategy(ApiModel):
    """How a new revision replaces the old one."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.type != 'Recreate' || self.gpuScarcity == 'Auto'",
            "strategy Recreate never runs two revisions side by side; leave gpuScarcity at Auto",
            ".gpuScarcity",
            "FieldValueForbidden",
        ),
        Rule(
            "self.type != 'Recreate' || self.autoPromotionEnabled",
            "strategy Recreate has nothing left to serve while a promotion waits; use BlueGreen or "
            "Canary for manual promotion",
            ".autoPromotionEnabled",
            "FieldValueForbidden",
        ),
    )

    type: StrategyType = Field(
        default=StrategyType.BLUE_GREEN,
        description="BlueGreen starts the new revision beside the old one and switches when it is ready; "
        "Canary moves traffic in steps; Recreate stops the old one first.",
    )
    gpu_scarcity: GpuScarcity = Field(
        default=GpuScarcity.AUTO,
        description="When old and new do not fit side by side: Wait for devices, Swap (stop old replicas "
        "first), or let the operator choose (Auto).",
    )
    pre_promotion_analysis: Analysis | None = Field(
        default=None, description="Test a new revision must pass before it serves."
    )
    post_promotion_analysis: Analysis | None = Field(
        default=None,
        description="Test a new revision must pass while it serves; it is rolled back otherwise.",
    )
    auto_promotion_enabled: bool = Field(
        default=True, description="Whether a new revision serves as soon as it is ready and validated."
    )
    progress_deadline_seconds: int = Field(
        default=1800,
        ge=30,
        le=604_800,
        description="A rollout without progress for this many seconds is reported as failed.",
    )
    scale_down_delay_seconds: int | None = Field(
        default=None,
        ge=0,
        le=604_800,
        description="Seconds the old revision keeps its replicas after the switch; none when absent.",
        examples=[30],
    )
