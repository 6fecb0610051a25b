"""What the gateway can be told. Layer: gateway; imports pydantic and the operator's manner of settings.

The one idea: as the operator's: every field is a variable AGENT_GATEWAY_<FIELD> and a flag --<field> (flags
win), and everything that is wrong is said in one message before anything happens. What concerns one agent is
not here: it comes with the agent's Route.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from agent_operator.api.gateway import CONTROL_PORT
from agent_operator.settings import Label, SettingsError, flag_of

PREFIX = "AGENT_GATEWAY_"

_DNS_LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


class GatewaySettings(BaseModel):
    """All settings, validated. Durations in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    watch_namespaces: Annotated[tuple[Label, ...], BeforeValidator(_split)] = Field(
        default=(), description="Comma-separated namespaces to serve; empty: all."
    )
    shard: str = Field(
        default="", pattern=f"{_DNS_LABEL}|^$",
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


def load_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> GatewaySettings:
    """Settings from flags and environment; flags win. An empty variable counts as not set.

    Raises:
        SettingsError: with one line per problem.
        SystemExit: for --help (0) and unknown flags (2).
    """
    flags = {
        name: value for name, value in vars(_parser().parse_args(arguments)).items() if value is not None
    }
    variables = {
        name: value
        for name in GatewaySettings.model_fields
        if (value := environment.get(PREFIX + name.upper(), "").strip())
    }
    try:
        return GatewaySettings.model_validate({**variables, **flags})
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            name = str(problem["loc"][0])
            source = flag_of(name) if name in flags else PREFIX + name.upper()
            meaning = GatewaySettings.model_fields[name].description
            lines.append(f"  {source}={json.dumps(problem['input'])}: {problem['msg']}. {meaning}")
        raise SettingsError("invalid settings:\n" + "\n".join(lines)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agent-gateway",
        description="The gateway of the Agent Operator: holds the requests of agents that have no replica. "
        f"Every flag can also be given as environment variable {PREFIX}<FLAG>. Credentials come from the "
        "pod's service account or from KUBECONFIG.",
        allow_abbrev=False,
    )
    for name, info in GatewaySettings.model_fields.items():
        default = f" (default: {info.default})" if info.default else ""
        parser.add_argument(flag_of(name), metavar="VALUE", help=f"{info.description}{default}")
    return parser
