"""What kstatus would say about an object. Layer: tests.

The one idea: the rules that Flux, kpt and others apply to a custom resource, written down here from their
description, so that the conditions are judged as such a tool judges them: it is being deleted; its newest
generation was not observed; Reconciling or Stalled is True, whichever is listed first; then Ready.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What a waiting tool does with it."""

    IN_PROGRESS = "InProgress"
    CURRENT = "Current"
    FAILED = "Failed"
    TERMINATING = "Terminating"


def compute(obj: Mapping[str, Any]) -> Verdict:
    """The verdict over one custom resource, as read from the API server."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return Verdict.TERMINATING
    if status.get("observedGeneration", metadata["generation"]) != metadata["generation"]:
        return Verdict.IN_PROGRESS
    conditions = status.get("conditions") or ()
    for condition in conditions:
        if condition["status"] == "True" and condition["type"] in ("Reconciling", "Stalled"):
            return Verdict.IN_PROGRESS if condition["type"] == "Reconciling" else Verdict.FAILED
    ready = next((c["status"] for c in conditions if c["type"] == "Ready"), "True")
    return Verdict.CURRENT if ready == "True" else Verdict.IN_PROGRESS
