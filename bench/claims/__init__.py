"""All claims, in the order they are listed."""

from __future__ import annotations

from bench.claim import Claim
from bench.claims import agent, install, operator, runtime, runtime_gpu

CLAIMS: tuple[Claim, ...] = (
    *operator.CLAIMS,
    *agent.CLAIMS,
    *install.CLAIMS,
    *runtime.CLAIMS,
    *runtime_gpu.CLAIMS,
)
