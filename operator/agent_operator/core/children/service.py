"""Service of an agent. Layer: core, pure.

The one idea: it selects the pods of one revision, so moving traffic is one write of one field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_operator.api.names import RUNTIME_PORT_NAME
from agent_operator.core import naming
from agent_operator.core.children.metadata import Owner, metadata

PORT = 80


def service(owner: Owner, revision: str, besides: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The Service `<agent>`, in front of the pods of `revision`; `besides` is added to the selector."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(owner, naming.agent_stem(owner.name)),
        "spec": {
            "type": "ClusterIP",
            "selector": {**naming.selector(owner.name, revision), **(besides or {})},
            "ports": [{"name": "http", "port": PORT, "protocol": "TCP", "targetPort": RUNTIME_PORT_NAME}],
        },
    }


def url(owner: Owner) -> str:
    """Address of the agent inside the cluster."""
    return f"http://{naming.agent_stem(owner.name)}.{owner.namespace}.svc"
