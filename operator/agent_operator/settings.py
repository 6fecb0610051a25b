"""What the operator can be told. Layer: top, beside __main__; imports pydantic and the standard library.

The one idea: one model; every field is an environment variable AGENT_OPERATOR_<FIELD> and a flag --<field>
(flags win). Everything wrong is reported in one message that names the variable, its value and what is
allowed, before anything else happens. Unknown AGENT_OPERATOR_* variables are ignored: Kubernetes itself
sets such names in pods beside a Service called agent-operator.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

PREFIX = "AGENT_OPERATOR_"

_DNS_LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_DNS_NAME = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


Label = Annotated[str, Field(pattern=_DNS_LABEL)]


class Settings(BaseModel):
    """All settings, validated. Durations in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    runtime_image: str = Field(
        min_length=1, pattern=r"^\S+$",
        description="Image of the agent runtime for agents that do not name their own. Required.",
    )  # fmt: skip
    watch_namespaces: Annotated[tuple[Label, ...], BeforeValidator(_split)] = Field(
        default=(), description="Comma-separated namespaces to serve; empty: all.",
    )  # fmt: skip
    shard: str = Field(
        default="", pattern=f"{_DNS_LABEL}|^$",
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
        default="", pattern=f"{_DNS_LABEL}|^$",
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


class SettingsError(Exception):
    """Settings are invalid; the message is complete and for users."""


def load_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Settings from flags and environment; flags win. An empty variable counts as not set.

    Raises:
        SettingsError: with one line per problem.
        SystemExit: for --help (0) and unknown flags (2).
    """
    flags = {k: v for k, v in vars(_parser().parse_args(arguments)).items() if v is not None}
    variables = {
        name: value
        for name in Settings.model_fields
        if (value := environment.get(PREFIX + name.upper(), "").strip())
    }
    given = {**variables, **flags}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        lines = [_explain(problem, flags) for problem in error.errors(include_url=False)]
        raise SettingsError("invalid settings:\n" + "\n".join(f"  {line}" for line in lines)) from None


def flag_of(name: str) -> str:
    """The flag of a field."""
    return "--" + name.replace("_", "-")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agent-operator",
        description="The Agent Operator. Every flag can also be given as environment variable "
        f"{PREFIX}<FLAG>, for example {PREFIX}LOG_LEVEL=debug. Credentials come from the pod's service "
        "account or from KUBECONFIG.",
        allow_abbrev=False,
    )
    for name, info in Settings.model_fields.items():
        default = f" (default: {info.default})" if info.default and not info.is_required() else ""
        # A switch may stand alone or have a value, as with Go programs: --leader-elect=false.
        switch: dict[str, Any] = {"nargs": "?", "const": "true"} if info.annotation is bool else {}
        parser.add_argument(flag_of(name), metavar="VALUE", help=f"{info.description}{default}", **switch)
    return parser


def _explain(problem: ErrorDetails, flags: Mapping[str, Any]) -> str:
    """One problem: which variable or flag, its value, what is allowed."""
    if not problem["loc"]:
        return problem["msg"].removeprefix("Value error, ")
    name = str(problem["loc"][0])
    where = f"{PREFIX}{name.upper()} (or {flag_of(name)})"
    meaning = Settings.model_fields[name].description
    if problem["type"] == "missing":
        return f"{where} is not set. {meaning}"
    source = flag_of(name) if name in flags else PREFIX + name.upper()
    return f"{source}={json.dumps(problem['input'])}: {problem['msg']}. {meaning}"
