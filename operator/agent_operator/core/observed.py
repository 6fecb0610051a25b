"""What exists of an agent, sorted out. Layer: core, pure; imports core.*.

The one idea: from a heap of objects to a table by kind and revision, once, so that every decision
after it reads names instead of searching.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_operator.api.gateway import slice_name
from agent_operator.api.names import LABEL_REVISION
from agent_operator.core import naming
from agent_operator.core.children import deployment
from agent_operator.core.children.metadata import Owner
from agent_operator.core.reading import at, condition, count, is_ready, mapping, mappings, text
from agent_operator.core.revision import Running
from agent_operator.core.rollout import RevisionState
from agent_operator.core.snapshot import Snapshot

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Observed:
    """The children that are certainly ours, and the pods by revision."""

    by_name: Mapping[tuple[str, str], Object]
    """Children by kind and name."""
    deployments: Mapping[str, Object]
    """Deployments by revision, those being deleted included."""
    config_maps: Mapping[str, Object]
    pods: Mapping[str, tuple[Object, ...]] = field(default_factory=dict)
    """Pods by revision, those being deleted left out."""
    active: str | None = None
    """Revision that the Service selects, None without one."""
    gateway_slice: Object | None = None
    """The EndpointSlice of ours that leads to the gateway."""

    @property
    def gateway_port(self) -> int | None:
        """Port of the gateway that it reserves, None without one."""
        return next((count(port, "port") for port in mappings(self.gateway_slice, "ports")), 0) or None


def observe(snapshot: Snapshot, owner: Owner) -> Observed:
    """Sort a snapshot. An object with our label but another controller is a stranger and left out."""
    children = [child for child in snapshot.children if _controlled_by(child, owner.uid)]
    by_name = {(text(c, "kind"), text(c, "metadata", "name")): c for c in children}
    stem = naming.agent_stem(owner.name)
    service = by_name.get(("Service", stem))
    return Observed(
        by_name=by_name,
        deployments=_by_revision(children, "Deployment", owner.name),
        config_maps=_by_revision(children, "ConfigMap", owner.name),
        pods=_pods(snapshot.pods),
        active=text(service, "spec", "selector", LABEL_REVISION) or None,
        gateway_slice=by_name.get(("EndpointSlice", slice_name(stem))),
    )


def terminating(obj: Object | None) -> bool:
    """Whether an object is being deleted."""
    return at(obj, "metadata", "deletionTimestamp") is not None


def running(observed: Observed, preferred: tuple[str | None, ...]) -> list[Running]:
    """The revisions that run, the preferred ones first, each once per image that may be its own.

    The recorded template comes before the live one, which may have been edited by hand.
    """
    names = sorted(observed.deployments, key=lambda name: (_rank(preferred, name), name))
    found = []
    for name in names:
        live = observed.deployments[name]
        if terminating(live):
            continue
        templates = (deployment.recorded(live) or {}, mapping(live, "spec", "template"))
        images = {deployment.runtime_image(template): None for template in templates}
        from_spec = deployment.image_from_spec(live)
        found += [Running(name, image, image_from_spec=from_spec) for image in images if image]
    return found


def _rank(preferred: tuple[str | None, ...], name: str) -> int:
    """Position of a name in the order of preference, behind all others when it is not in it."""
    return preferred.index(name) if name in preferred else len(preferred)


def ready_pods(observed: Observed, revision: str) -> frozenset[str]:
    """Names of the pods of a revision that Kubernetes takes for ready."""
    pods = observed.pods.get(revision, ())
    return frozenset(text(pod, "metadata", "name") for pod in pods if is_ready(pod))


def revision_states(
    observed: Observed, proven: str | None, wanted: int, lost: frozenset[str] = frozenset()
) -> tuple[RevisionState, ...]:
    """Every revision's Deployment, as far as a rollout cares. `lost`: pods said to be ready that are not."""
    return tuple(
        state(name, live, proven=proven, wanted=wanted, lost=len(ready_pods(observed, name) & lost))
        for name, live in sorted(observed.deployments.items())
    )


def state(name: str, live: Object, *, proven: str | None, wanted: int, lost: int = 0) -> RevisionState:
    """One revision. Its counts are trusted only when the Deployment controller has seen the newest spec."""
    ready = max(0, count(live, "status", "readyReplicas") - lost)
    seen = count(live, "status", "observedGeneration") >= count(live, "metadata", "generation")
    complete = (
        seen
        and at(live, "spec", "replicas") == wanted
        and count(live, "status", "updatedReplicas") >= wanted
        and ready >= wanted
        and count(live, "status", "unavailableReplicas") == 0
    )
    return RevisionState(
        revision=name,
        ready=ready,
        complete=complete and wanted > 0,
        proven=proven == name or ready > 0,
        terminating=terminating(live),
    )


def deadline_exceeded(live: Object | None) -> bool:
    """Whether the Deployment controller has given up waiting for progress."""
    progressing = condition(live, "Progressing")
    return progressing.get("status") == "False" and progressing.get("reason") == "ProgressDeadlineExceeded"


def _controlled_by(child: Object, uid: str) -> bool:
    references = mappings(child, "metadata", "ownerReferences")
    return any(r.get("controller") is True and r.get("uid") == uid for r in references)


def _by_revision(children: list[Object], kind: str, agent: str) -> dict[str, Object]:
    found = {}
    for child in children:
        revision = naming.revision_of(agent, text(child, "metadata", "name"))
        if child.get("kind") == kind and revision is not None:
            found[revision] = child
    return found


def _pods(pods: tuple[Object, ...]) -> dict[str, tuple[Object, ...]]:
    found: dict[str, tuple[Object, ...]] = {}
    for pod in sorted(pods, key=lambda p: text(p, "metadata", "name")):
        if not terminating(pod):
            revision = text(pod, "metadata", "labels", LABEL_REVISION)
            found[revision] = (*found.get(revision, ()), pod)
    return found
