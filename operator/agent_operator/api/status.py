"""status: what the operator observed. Layer: api, pure; imports api.base, api.conditions, api.types.

The one idea: a bounded summary. Lists have small upper bounds and nothing grows with the replicas.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agent_operator.api.base import StatusModel
from agent_operator.api.conditions import Condition
from agent_operator.api.types import MAX_GENERATION, Decimal, Timestamp

MAX_SCALING_HISTORY = 10
MAX_DIAGNOSES = 5
MAX_TRIALS = 10
Text = Annotated[str, Field(max_length=2048)]
Word = Annotated[str, Field(max_length=253)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


class RevisionMeasurement(StatusModel):
    """What was measured of one revision."""

    revision: Word = Field(description="Revision hash.")
    p95_milliseconds: Count | None = Field(
        default=None, alias="p95Milliseconds", description="95th percentile of latency in milliseconds."
    )
    tokens_per_second: Decimal | None = Field(default=None, description="Generated tokens per second.")
    pass_percent: Count | None = Field(default=None, description="Functional cases passed, in percent.")


class RolloutStatus(StatusModel):
    """The replacement of one revision by another."""

    step: Word | None = Field(default=None, description="What the rollout is doing.")
    decision: Word | None = Field(default=None, description="What was decided: promote, roll back or wait.")
    evidence: Text | None = Field(default=None, description="Why it was decided.")
    baseline: RevisionMeasurement | None = Field(default=None, description="The revision that served.")
    candidate: RevisionMeasurement | None = Field(default=None, description="The revision to replace it.")


class ScalingEvent(StatusModel):
    """One change of the number of replicas."""

    time: Timestamp = Field(description="When it was decided.")
    from_replicas: Count = Field(description="Replicas before.")
    to_replicas: Count = Field(description="Replicas after.")
    reason: Text = Field(description="Why.")


class ScalingStatus(StatusModel):
    """What scaling wants and did."""

    desired: Count | None = Field(default=None, description="Replicas wanted.")
    requested: Count | None = Field(
        default=None,
        description="spec.replicas that scaling has taken note of: another value there is a request by hand.",
    )
    reason: Text | None = Field(default=None, description="Why this many.")
    history: tuple[ScalingEvent, ...] = Field(
        default=(), max_length=MAX_SCALING_HISTORY, description="Last changes, the newest first."
    )


class Diagnosis(StatusModel):
    """A fault that was recognised."""

    reason: Word = Field(description="What is wrong, one CamelCase word.")
    confidence: Decimal | None = Field(default=None, description="How sure, from 0 to 1.")
    evidence: Text | None = Field(default=None, description="What it was recognised by.")
    remedy: Text | None = Field(default=None, description="What to do.")
    first_seen: Timestamp | None = Field(default=None, description="When it was first seen.")


class LastStart(StatusModel):
    """Seconds the newest replica spent in each phase of its start."""

    pod: Word | None = Field(default=None, description="The replica.")
    time: Timestamp | None = Field(default=None, description="When it became ready.")
    ready_seconds: Decimal | None = Field(
        default=None, description="From its creation until it was ready, in seconds."
    )
    scheduled_seconds: Decimal | None = Field(default=None, description="Until a node was found, in seconds.")
    image_seconds: Decimal | None = Field(
        default=None, description="Fetching images and mounting volumes, in seconds."
    )
    fetch_seconds: Decimal | None = Field(default=None, description="Downloading the model, in seconds.")
    load_seconds: Decimal | None = Field(default=None, description="Loading weights, in seconds.")
    warmup_seconds: Decimal | None = Field(default=None, description="Warming up, in seconds.")
    first_token_seconds: Decimal | None = Field(
        default=None, description="Generating the first token, in seconds."
    )


class LoadStatus(StatusModel):
    """What the replicas do, in numbers that are kept coarse so that they seldom change."""

    time: Timestamp | None = Field(default=None, description="When the numbers were taken.")
    requests: Count | None = Field(default=None, description="Requests in flight and waiting, all replicas.")
    held: Count | None = Field(default=None, description="Requests that the gateway holds.")
    runs: Count | None = Field(default=None, description="Agent runs that have not ended.")
    p95_milliseconds: Count | None = Field(
        default=None,
        alias="p95Milliseconds",
        description="95th percentile of the response time over the last minute, the slowest replica's.",
    )
    tokens_per_second: Count | None = Field(
        default=None, description="Generated tokens per second, all replicas together."
    )
    gpu_percent: Count | None = Field(
        default=None, description="Mean use of the devices in percent, where they tell."
    )


class ParameterSetting(StatusModel):
    """One serving parameter and its value."""

    name: Word = Field(description="Parameter, as in spec.runtime.parameters.")
    value: Word = Field(description="Its value.")


class TuningTrial(StatusModel):
    """Settings that were tried and what they gave."""

    parameters: tuple[ParameterSetting, ...] = Field(
        default=(),
        max_length=16,
        description="Settings.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    tokens_per_second: Decimal | None = Field(default=None, description="Generated tokens per second.")
    p95_milliseconds: Count | None = Field(
        default=None, alias="p95Milliseconds", description="95th percentile of latency in milliseconds."
    )
    outcome: Text | None = Field(default=None, description="How the trial ended.")


class TuningStatus(StatusModel):
    """What tuning found."""

    best: TuningTrial | None = Field(default=None, description="Best settings so far.")
    trials: tuple[TuningTrial, ...] = Field(
        default=(), max_length=MAX_TRIALS, description="Last trials, the newest first."
    )


class AgentDeploymentStatus(StatusModel):
    """What the operator observed; written by the operator only."""

    observed_generation: int | None = Field(
        default=None,
        ge=-1,
        le=MAX_GENERATION,
        description="metadata.generation this status was computed from; -1 before the first time.",
    )
    replicas: Count | None = Field(default=None, description="Pods that exist, of all revisions.")
    ready_replicas: Count | None = Field(default=None, description="Pods that serve.")
    selector: Annotated[str, Field(max_length=1024)] | None = Field(
        default=None, description="Label selector of the pods, for the scale subresource."
    )
    ready: Annotated[str, Field(max_length=32)] | None = Field(
        default=None, description="Serving and wanted replicas, for tables.", examples=["1/1"]
    )
    model: Word | None = Field(
        default=None, description="Short name of the model, for tables.", examples=["google/flan-t5-xl"]
    )
    gpu: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="Devices per replica, or - for none, for tables.", examples=["1"]
    )
    url: Text | None = Field(
        default=None,
        description="Address of the agent inside the cluster.",
        examples=["http://geography.default.svc"],
    )
    current_revision: Word | None = Field(default=None, description="Hash of the revision that serves.")
    update_revision: Word | None = Field(
        default=None, description="Hash of the revision that the specification asks for."
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="Ready, Reconciling, Stalled, Validated, ScalingActive and Degraded.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    rollout: RolloutStatus | None = Field(
        default=None, description="The replacement of one revision by another."
    )
    scaling: ScalingStatus | None = Field(default=None, description="What scaling wants and did.")
    load: LoadStatus | None = Field(default=None, description="What the replicas do.")
    diagnoses: tuple[Diagnosis, ...] = Field(
        default=(), max_length=MAX_DIAGNOSES, description="Faults that were recognised, the newest first."
    )
    last_start: LastStart | None = Field(
        default=None, description="Seconds the newest replica spent in each phase of its start."
    )
    tuning: TuningStatus | None = Field(default=None, description="What tuning found.")
