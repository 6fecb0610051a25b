"""The kinds of an agent's children, as kubectl lists them by the agent's label. Layer: tests.

The one idea: the operator's own table of kinds is the list, so a kind it learns is looked for everywhere. Of
EndpointSlices Kubernetes makes some too and gives them the Service's labels: they are listed only where
nothing at all may be left.
"""

from __future__ import annotations

from agent_operator.shell.kinds import CHILDREN, ENDPOINT_SLICE

MADE = ",".join(kind.plural for kind in CHILDREN if kind != ENDPOINT_SLICE)
"""What the operator alone makes."""
EVERYTHING = f"{MADE},{ENDPOINT_SLICE.plural},replicasets,pods"
"""That and what Kubernetes makes of it."""
