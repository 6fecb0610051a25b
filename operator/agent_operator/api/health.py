"""spec.health: when a replica counts as failed. Layer: api, pure; imports api.base."""

from __future__ import annotations

from pydantic import Field

from agent_operator.api.base import ApiModel


class Health(ApiModel):
    """When a replica counts as failed and is restarted."""

    startup_deadline_seconds: int | None = Field(
        default=None,
        ge=10,
        le=86_400,
        description="Seconds a replica has to load its model; chosen by the operator when absent.",
        examples=[600],
    )
    stall_seconds: int = Field(
        default=60,
        ge=5,
        le=86_400,
        description="A replica that has work but made no progress for this many seconds is restarted. A busy "
        "replica that advances never is.",
    )
