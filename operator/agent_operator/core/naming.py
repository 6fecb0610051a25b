"""Names and labels of everything we create. Layer: core, pure; imports api.names.

The one idea: a name is a function of the agent and the revision alone, valid for every kind that
uses it and at most 63 characters, so a lost cache or a restart never invents a second object.
"""

from __future__ import annotations

import hashlib
import re

from agent_operator.api.names import (
    FIELD_MANAGER,
    GROUP,
    LABEL_AGENT,
    LABEL_INSTANCE,
    LABEL_MANAGED_BY,
    LABEL_NAME,
    LABEL_REVISION,
    NAME_MAX_LENGTH,
    NAME_PATTERN,
)

REVISION_LENGTH = 8
MAX_NAME = 63
SAFE_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' own alphabet for generated names: no vowels, so no words by accident."""

IMAGE_SOURCE = f"{GROUP}/image-source"
"""Annotation of a Deployment: whether its runtime image was named in the spec or was the default."""
POD_TEMPLATE = f"{GROUP}/pod-template"
"""Annotation of a Deployment: the pod template as it was rendered when the revision was made."""

_REVISION = re.compile(f"[{SAFE_ALPHABET}]{{{REVISION_LENGTH}}}")


def digest(text: str, length: int = REVISION_LENGTH) -> str:
    """A stable hash of `text`: `length` characters of SAFE_ALPHABET (4.75 bits each)."""
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(), "big")
    letters = []
    for _ in range(length):
        number, index = divmod(number, len(SAFE_ALPHABET))
        letters.append(SAFE_ALPHABET[index])
    return "".join(letters)


def agent_stem(agent: str) -> str:
    """The agent's name where it is a DNS label of at most 50 characters, else a safe stand-in.

    The CRD admits only good names, so the stand-in is for objects that reached us some other way.
    """
    if len(agent) <= NAME_MAX_LENGTH and re.fullmatch(NAME_PATTERN, agent) and not agent.endswith("\n"):
        return agent
    kept = re.sub(r"[^a-z0-9]+", "-", agent.lower()).strip("-")[: NAME_MAX_LENGTH - REVISION_LENGTH - 3]
    return "a-" + "-".join(part for part in (kept.strip("-"), digest(agent)) if part)


def revisioned(agent: str, revision: str) -> str:
    """Name of the Deployment and the ConfigMap of one revision."""
    return f"{agent_stem(agent)}-{revision}"


def revision_of(agent: str, name: str) -> str | None:
    """The revision in the name of a Deployment or ConfigMap of ours, None when it has none.

    The name, not the label, is what a revision is known by: a label can be edited by hand.
    """
    stem, dash, revision = name.rpartition("-")
    return revision if dash and stem == agent_stem(agent) and _REVISION.fullmatch(revision) else None


def agent_labels(agent: str) -> dict[str, str]:
    """Labels of every child and every pod of an agent."""
    return {
        LABEL_NAME: "agent-runtime",
        LABEL_MANAGED_BY: FIELD_MANAGER,
        LABEL_INSTANCE: agent_stem(agent),
        LABEL_AGENT: agent_stem(agent),
    }


def revision_labels(agent: str, revision: str) -> dict[str, str]:
    """Labels of what belongs to one revision: Deployment, ConfigMap, pods."""
    return {**agent_labels(agent), LABEL_REVISION: revision}


def selector(agent: str, revision: str | None = None) -> dict[str, str]:
    """The label selector of an agent's pods, of one revision or of all. Never changes: a Deployment's
    selector is immutable."""
    chosen = {LABEL_AGENT: agent_stem(agent)}
    if revision is not None:
        chosen[LABEL_REVISION] = revision
    return chosen
