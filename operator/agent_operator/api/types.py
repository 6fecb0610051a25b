"""Value types shared by the API models. Layer: api, pure.

May import pydantic, the standard library and api.base. The one idea: every string is bounded and every
decimal is a string, because the API server estimates the cost of CEL rules from the bounds and an API
must not contain floats.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema

from agent_operator.api.base import ApiModel

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
QUANTITY = r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
QUANTITY_MAX_LENGTH = 32
MAX_GENERATION = 2**53 - 1
"""The API server keeps schema bounds as 64-bit floats: a larger bound would refuse every generation."""
HTTP_URL = r"^https?://[^\s/?#@]+(/[^\s?#]*)?$"

Decimal = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,5})(\.[0-9]{1,6})?$", max_length=16)]
"""Non-negative decimal as a string, for example `"0.7"`."""
Fraction = Annotated[str, Field(pattern=r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$", max_length=8)]
"""Decimal from 0 to 1 as a string."""
Label = Annotated[str, Field(pattern=DNS_LABEL, min_length=1, max_length=63)]
"""DNS label."""
ObjectName = Annotated[str, Field(pattern=DNS_SUBDOMAIN, min_length=1, max_length=253)]
"""Name of a Kubernetes object (DNS subdomain)."""
DataKey = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", min_length=1, max_length=253)]
"""Key in a Secret or ConfigMap."""
QualifiedName = Annotated[
    str,
    Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", min_length=3, max_length=253),
]
"""Extended resource or similar: `vendor.example/name`."""
HttpUrl = Annotated[str, Field(pattern=HTTP_URL, min_length=8, max_length=2048)]
"""http or https URL without credentials, query or fragment."""
Timestamp = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
"""RFC 3339 time, for example `2026-01-31T12:00:00Z`."""
FreeObject = Annotated[
    dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})
]
"""An object of another Kubernetes API that is passed on without being interpreted."""


def _quantity_text(value: int | str) -> int | str:
    if isinstance(value, bool):
        raise ValueError("must be a quantity such as 500m or 2Gi, not a boolean")
    return value


Quantity = Annotated[
    int | str,
    AfterValidator(_quantity_text),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY,
            "maxLength": QUANTITY_MAX_LENGTH,
            "x-kubernetes-int-or-string": True,
        }
    ),
]
"""Kubernetes resource quantity: an integer or a string such as `500m` or `2Gi`; never negative."""


def _above_zero(value: str) -> str:
    if not float(value) > 0:
        raise ValueError("must be greater than 0")
    return value


PositiveDecimal = Annotated[Decimal, AfterValidator(_above_zero)]
"""Decimal above 0; the schema cannot say so, a CEL rule does."""


class Mode(StrEnum):
    """How far the operator may go on its own."""

    DISABLED = "Disabled"
    RECOMMEND = "Recommend"
    AUTO = "Auto"


class SecretKeyRef(ApiModel):
    """One key of a Secret in the AgentDeployment's namespace."""

    name: ObjectName = Field(description="Name of the Secret.", examples=["huggingface"])
    key: DataKey = Field(default="token", description="Key inside the Secret.")


class ConfigMapKeyRef(ApiModel):
    """One key of a ConfigMap in the AgentDeployment's namespace."""

    name: ObjectName = Field(description="Name of the ConfigMap.", examples=["geography-cases"])
    key: DataKey = Field(default="cases.yaml", description="Key inside the ConfigMap.")
