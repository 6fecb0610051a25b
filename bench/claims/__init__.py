"""All claims, in the order they are listed."""

from __future__ import annotations

from bench.claim import Claim
<<<<<<< HEAD
from bench.claims import agent, gateway, install, operator, runtime, scaling, signals
=======
from bench.claims import agent, gateway, install, operator, runtime, scaling, scaling_live
>>>>>>> work-live

CLAIMS: tuple[Claim, ...] = (
    *operator.CLAIMS,
    *agent.CLAIMS,
    *install.CLAIMS,
    *runtime.CLAIMS,
    *gateway.CLAIMS,
    *scaling.CLAIMS,
<<<<<<< HEAD
    *signals.CLAIMS,
=======
    *scaling_live.CLAIMS,
>>>>>>> work-live
)
