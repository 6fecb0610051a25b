"""spec.tuning and spec.remediation: what the operator may change itself. Layer: api, pure; imports api.base.

The mode that switches a feature off is called Disabled, not Off: YAML 1.1, which kubectl reads, takes an
unquoted `Off` for the boolean false, and the manifest would be refused for its type.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from agent_operator.api.base import ApiModel
from agent_operator.api.types import Mode


class TuningObjective(StrEnum):
    """What tuning makes better."""

    THROUGHPUT = "Throughput"
    LATENCY = "Latency"


class Tuning(ApiModel):
    """Search for better serving parameters."""

    mode: Mode = Field(
        default=Mode.DISABLED, description="Disabled, Recommend in status only, or apply by itself (Auto)."
    )
    objective: TuningObjective = Field(
        default=TuningObjective.THROUGHPUT, description="What tuning makes better."
    )
    max_trials: int = Field(default=6, ge=1, le=50, description="Settings tried before the search ends.")


class Remediation(ApiModel):
    """Repair of diagnosed faults."""

    mode: Mode = Field(
        default=Mode.DISABLED, description="Disabled, Recommend in status only, or act by itself (Auto)."
    )
