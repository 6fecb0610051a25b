"""PodDisruptionBudget of an agent. Layer: core, pure.

The one idea: a drain takes one pod of an agent at a time, and a pod that is not ready does not hold
up the drain. An agent of one replica has none: it could forbid nothing.
"""

from __future__ import annotations

from typing import Any

from agent_operator.core import naming
from agent_operator.core.children.metadata import Owner, metadata


def pdb(owner: Owner) -> dict[str, Any]:
    """The PodDisruptionBudget `<agent>`, over the pods of all revisions."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(owner, naming.agent_stem(owner.name)),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": naming.selector(owner.name)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
