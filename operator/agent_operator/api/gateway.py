"""What the operator tells the gateway, and what the gateway tells the operator. Layer: api, pure; pydantic
and api.names only.

The one idea: both directions are one small record each. `Route` travels in an annotation of the EndpointSlice
that makes the gateway an agent's endpoint, so whoever sees the port sees what to do with it, in one object.
`Demand` is the answer of GET /demand on the gateway's control port, and the only way by which a request wakes
an agent: the gateway has no right to write. As with the runtime's /stats, `v` changes when a field changes
its meaning, and a reader ignores fields it does not know.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent_operator.api.names import GROUP

GATEWAY_ANNOTATION: Final = f"{GROUP}/gateway"
"""On our EndpointSlice: a Route as JSON."""
MANAGED_BY: Final = GROUP
"""Value of LABEL_SLICE_MANAGED_BY on the slices of ours."""
LABEL_SLICE_MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
LABEL_SERVICE_NAME: Final = "kubernetes.io/service-name"
"""Which Service an EndpointSlice belongs to."""

PORT_NAME: Final = "http"
"""Name of the port in every slice: the gateway's in ours, the pods' in the selector's own."""
PORT_RANGE: Final = range(20_000, 30_000)
"""Ports of the gateway of which each agent gets one: the port a request arrives at says whose it is."""
CONTROL_PORT: Final = 8082

DEMAND_PATH: Final = "/demand"
LONGEST_WAIT_SECONDS: Final = 60.0
"""Longest time GET /demand?wait=SECONDS waits for news; more is cut to this."""

Mode = Literal["OnDemand", "Always"]


def slice_name(agent: str) -> str:
    """Name of the EndpointSlice that makes the gateway an endpoint of the agent's Service."""
    return f"{agent}-gateway"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    def encode(self) -> str:
        """Compact JSON; equal records give equal text."""
        return self.model_dump_json(exclude_none=True)


class Route(_Record):
    """How the gateway treats the requests of one agent."""

    v: Literal[1] = 1
    namespace: str = Field(min_length=1, description="The slice's own namespace; any other is not obeyed.")
    agent: str = Field(min_length=1, description="Name of the AgentDeployment.")
    mode: Mode = Field(
        default="OnDemand",
        description="OnDemand: requests come here only while no pod is ready. Always: they all do.",
    )
    backend_service: str = Field(
        min_length=1, description="Service whose EndpointSlices list the pods: the agent's own in OnDemand."
    )
    capacity_per_replica: int = Field(
        default=16, ge=1, description="Requests that one replica should have at once."
    )
    max_held_requests: int = Field(default=1000, ge=1, description="More get 503.")
    max_held_bytes: int = Field(
        default=64 * 2**20, ge=1024, description="Heads and bodies of all held requests; more get 503."
    )
    hold_seconds: float = Field(default=600.0, gt=0, description="Longest hold of a request.")
    api_keys_secret: str | None = Field(
        default=None,
        description="Secret of API keys in the same namespace; with one, nobody without a key is held.",
    )
    admin_port: int = Field(default=8001, ge=1, le=65_535, description="The pods' port with /stats.")

    @property
    def key(self) -> str:
        """`namespace/name`, as in Demand."""
        return f"{self.namespace}/{self.agent}"

    @classmethod
    def decode(cls, text: str | bytes) -> Route | None:
        """The route in an annotation, or None when it is not one this version understands."""
        try:
            return cls.model_validate_json(text)
        except ValueError:
            return None


class AgentDemand(_Record):
    """What one gateway has of one agent at this moment."""

    held: int = Field(default=0, ge=0, description="Requests waiting for a replica.")
    held_bytes: int = Field(default=0, ge=0)
    oldest_seconds: float = Field(default=0.0, ge=0, description="How long the first of them has waited.")
    in_flight: int = Field(default=0, ge=0, description="Requests that replicas are answering.")
    held_total: int = Field(
        default=0, ge=0,
        description="Requests held since the gateway started: a hold between two answers shows here.",
    )  # fmt: skip


class Demand(_Record):
    """Every agent of which this gateway has, or had, requests. Of several gateways, add up."""

    v: Literal[1] = 1
    version: str = Field(
        description="Pass it as `since` to be answered at the next change that matters; opaque, and another "
        "one after a restart of the gateway.",
    )
    agents: dict[str, AgentDemand] = Field(default_factory=dict, description="By `namespace/name`.")

    @classmethod
    def decode(cls, text: str | bytes) -> Demand | None:
        """The record in an answer, or None when it is not one this version understands."""
        try:
            return cls.model_validate_json(text)
        except ValueError:
            return None
