"""What one decision sees. Layer: core, pure; imports core.signals.

The one idea: everything `reconcile` may depend on is in one value, so a decision can be replayed
from a test or from a bug report without a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agent_operator.core.signals import NOTHING, Signals

__all__ = ["ApplyFailure", "Defaults", "FailureKind", "PodReference", "Snapshot"]

FailureKind = Literal["NameTaken", "Forbidden", "Invalid", "Conflict", "Other"]


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the operator was configured with and the user did not say."""

    runtime_image: str
    keda_prometheus_address: str | None = None
    """URL of the Prometheus that KEDA asks; None: KEDA is not used."""


@dataclass(frozen=True, slots=True)
class ApplyFailure:
    """A child the API server (or our own ownership check) refused the last time we tried."""

    kind: str
    name: str
    code: FailureKind
    message: str


@dataclass(frozen=True, slots=True)
class PodReference:
    """One pod, as an Event names it."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One AgentDeployment and everything that belongs to it, as read from the cache. Never mutated."""

    agent: Mapping[str, Any]
    """The AgentDeployment as the API server returned it."""
    children: tuple[Mapping[str, Any], ...]
    """Every child we own, any kind; each with apiVersion and kind."""
    pods: tuple[Mapping[str, Any], ...]
    """Pods labelled with this agent's name."""
    defaults: Defaults
    blocked: tuple[ApplyFailure, ...] = ()
    """What could not be written at the last attempt, as data; empty once it succeeds."""
    warnings: tuple[Mapping[str, Any], ...] = ()
    """Events of type Warning (events.k8s.io) about the pods that the plan without them asked for."""
    signals: Signals = NOTHING
