"""What the gateway can be told. Layer: gateway; imports pydantic and program_settings.

What concerns one agent is not here: it comes with the agent's Route.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from agent_operator.api.gateway import CONTROL_PORT
from agent_operator.program_settings import DNS_LABEL, Labels, Program

PREFIX = "AGENT_GATEWAY_"


class GatewaySettings(BaseModel):
    """All settings, validated. Durations in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    watch_namespaces: Labels = Field(
        default=(), description="Comma-separated namespaces to serve; empty: all."
    )
    shard: str = Field(
        default="", pattern=f"{DNS_LABEL}|^$",
        description="Serve the agents labelled agentoperator.dev/shard=SHARD; empty: those without that "
        "label.",
    )  # fmt: skip
    listen_host: str = Field(default="", description="Address of the agents' ports; empty: all.")
    control_host: str = Field(default="", description="Address of the control port; empty: all.")
    control_port: int = Field(
        default=CONTROL_PORT, ge=0, le=65535, description="Port of /demand, probes and metrics; 0: any."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is logged."
    )
    resync_seconds: float = Field(
        default=600.0, ge=10, le=86400, description="Period of the slow check of every slice."
    )
    stop_delay_seconds: float = Field(
        default=5.0, ge=0, le=300,
        description="After SIGTERM the gateway serves on for so long: endpoints take time to leave.",
    )  # fmt: skip
    drain_seconds: float = Field(
        default=60.0, ge=0, le=3600, description="Longest wait for requests in flight after that."
    )


_PROGRAM = Program(
    GatewaySettings,
    PREFIX,
    "agent-gateway",
    "The gateway of the Agent Operator: holds the requests of agents that have no replica.",
)
load_settings = _PROGRAM.load
