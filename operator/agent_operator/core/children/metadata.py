"""Whose child it is. Layer: core, pure; imports api.names and core.naming.

The one idea: every child says in its metadata who controls it, so deleting the agent deletes all of
them without a finalizer of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent_operator.api.names import API_VERSION, KIND, LABEL_SHARD
from agent_operator.core import naming


@dataclass(frozen=True, slots=True)
class Owner:
    """Identity of the AgentDeployment that owns the children."""

    name: str
    namespace: str
    uid: str
    shard: str = ""
    """The agent's shard label, "" without one."""

    @property
    def shard_labels(self) -> dict[str, str]:
        """What the shard adds to the labels of every child and pod."""
        return {LABEL_SHARD: self.shard} if self.shard else {}


def metadata(owner: Owner, name: str, revision: str | None = None) -> dict[str, Any]:
    """Metadata of a child: name, labels and the controlling ownerReference."""
    labels = naming.agent_labels(owner.name)
    if revision is not None:
        labels = naming.revision_labels(owner.name, revision)
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": labels | owner.shard_labels,
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
