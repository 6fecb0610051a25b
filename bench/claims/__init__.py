"""All claims, in the order they are listed."""

from __future__ import annotations

from bench.claim import Claim
from bench.claims import (
    agent,
    gateway,
    install,
    operator,
    runtime,
    runtime_gpu,
    scaling,
    scaling_live,
    signals,
)

CLAIMS: tuple[Claim, ...] = (
    *operator.CLAIMS,
    *agent.CLAIMS,
    *install.CLAIMS,
    *runtime.CLAIMS,
    *runtime_gpu.CLAIMS,
    *gateway.CLAIMS,
    *scaling.CLAIMS,
    *scaling_live.CLAIMS,
    *signals.CLAIMS,
)
