"""ServiceAccount of an agent. Layer: core, pure.

The one idea: pods of an agent have an identity of their own and no token for the API server.
"""

from __future__ import annotations

from typing import Any

from agent_operator.core import naming
from agent_operator.core.children.metadata import Owner, metadata


def service_account(owner: Owner) -> dict[str, Any]:
    """The ServiceAccount `<agent>`."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(owner, naming.agent_stem(owner.name)),
        "automountServiceAccountToken": False,
    }
