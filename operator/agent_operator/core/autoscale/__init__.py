"""How many replicas an agent should have, and why. Layer: core, pure; imports cronsim besides the library.

The one idea: what was seen is folded into a small immutable memory (`observe`), and the number of
replicas is a pure function of that memory, the policy and the time (`recommend`).
"""

from __future__ import annotations

from agent_operator.core.autoscale.decide import recommend
from agent_operator.core.autoscale.memory import EMPTY, Memory, observe, requested
from agent_operator.core.autoscale.model import Capacity, Observation, Policy, Recommendation, Window
from agent_operator.core.autoscale.schedule import problems

__all__ = [
    "EMPTY",
    "Capacity",
    "Memory",
    "Observation",
    "Policy",
    "Recommendation",
    "Window",
    "observe",
    "problems",
    "recommend",
    "requested",
]
