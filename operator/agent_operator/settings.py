"""What the operator can be told. Layer: top, beside __main__; imports pydantic and program_settings."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent_operator.program_settings import DNS_LABEL, Label, Labels, Program

PREFIX = "AGENT_OPERATOR_"

_DNS_NAME = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"


class Settings(BaseModel):
    """All settings, validated. Durations in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    runtime_image: str = Field(
        min_length=1, pattern=r"^\S+$",
        description="Image of the agent runtime for agents that do not name their own. Required.",
    )  # fmt: skip
    watch_namespaces: Labels = Field(
        default=(), description="Comma-separated namespaces to serve; empty: all.",
    )  # fmt: skip
    shard: str = Field(
        default="", pattern=f"{DNS_LABEL}|^$",
        description="Serve the agents labelled agentoperator.dev/shard=SHARD, under a Lease of their own; "
        "empty: those without that label.",
    )  # fmt: skip
    leader_elect: bool = Field(default=True, description="Act only while holding the Lease.")
    lease_namespace: Label | None = Field(
        default=None, description="Namespace of the Lease; default: the pod's own, else 'default'."
    )  # fmt: skip
    lease_name: str = Field(default="agent-operator", pattern=_DNS_NAME, description="Name of the Lease.")
    lease_seconds: float = Field(
        default=15.0, ge=1, le=600, description="Others may take over this long after the last renewal."
    )
    renew_seconds: float = Field(
        default=10.0, gt=0, description="The leader gives up after this long without renewal."
    )
    retry_seconds: float = Field(default=2.0, gt=0, description="Pause between attempts at the Lease.")
    http_host: str = Field(default="", description="Address for probes and metrics; empty: all.")
    http_port: int = Field(default=8080, ge=0, le=65535, description="Port for probes and metrics; 0: any.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is logged."
    )
    workers: int = Field(default=16, ge=1, le=256, description="Reconciles at the same time.")
    reconcile_timeout_seconds: float = Field(
        default=60.0, ge=1, le=3600, description="Longest time one reconcile may take."
    )
    resync_seconds: float = Field(
        default=600.0, ge=10, le=86400, description="Period of the slow check of every object."
    )

    gateway_service: str = Field(
        default="", pattern=f"{DNS_LABEL}|^$",
        description="Service of the gateways, in the Lease's namespace; empty: there are none, and an agent "
        "that was scaled to zero is not woken by requests.",
    )  # fmt: skip
    keda_enabled: bool = Field(
        default=False, description="KEDA is installed: agents may name it as their autoscaling.provider."
    )
    keda_prometheus_address: str | None = Field(
        default=None, pattern=r"^https?://[^\s/]+\S*$",
        description="URL of the Prometheus that KEDA asks; needed with keda_enabled.",
    )  # fmt: skip

    @property
    def shard_lease_name(self) -> str:
        """Name of the Lease: shards never wait for each other."""
        return f"{self.lease_name}-{self.shard}" if self.shard else self.lease_name

    @model_validator(mode="after")
    def _ordered(self) -> Settings:
        if not self.retry_seconds * 1.2 < self.renew_seconds < self.lease_seconds:
            raise ValueError(
                "1.2 * retry_seconds < renew_seconds < lease_seconds must hold, not "
                f"{1.2 * self.retry_seconds:g} < {self.renew_seconds:g} < {self.lease_seconds:g}"
            )
        if self.keda_enabled and self.keda_prometheus_address is None:
            variable = f"{PREFIX}KEDA_PROMETHEUS_ADDRESS"
            raise ValueError(f"{variable} is not set: with keda_enabled, KEDA needs a Prometheus to ask")
        return self


_PROGRAM = Program(Settings, PREFIX, "agent-operator", "The Agent Operator.")
load_settings = _PROGRAM.load
