"""The children as they should be, and the writes that get them there. Layer: core, pure; imports core.*.

The one idea: first the whole desired state, then the difference to what exists. A child that is as it
should be costs nothing; one that is being deleted is waited for, never written.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agent_operator.core import drift, scalers
from agent_operator.core.children.config_map import config_map
from agent_operator.core.children.deployment import deployment, image_from_spec, recorded
from agent_operator.core.children.gateway import (
    BEHIND_GATEWAY,
    Gateway,
    always,
    backend_service,
    endpoint_slice,
)
from agent_operator.core.children.metadata import Owner
from agent_operator.core.children.pdb import pdb
from agent_operator.core.children.pod import pod_template
from agent_operator.core.children.service import service
from agent_operator.core.observed import Object, Observed, terminating
from agent_operator.core.plan import Apply, Delete
from agent_operator.core.reading import mapping, text
from agent_operator.core.request import Request
from agent_operator.core.revision import Revision
from agent_operator.core.rollout import Decision
from agent_operator.core.snapshot import Defaults

_OF_THE_AGENT = ("EndpointSlice", "PodDisruptionBudget", "Service", *scalers.HEALTH)
"""Kinds whose objects belong to the agent as a whole, not to one revision."""


def children(
    owner: Owner,
    request: Request,
    target: Revision,
    decision: Decision,
    seen: Observed,
    *,
    gateway: Gateway | None,
    defaults: Defaults,
    startup_deadline: int | None = None,
) -> list[dict[str, Any]]:
    """Every child that should exist, in the order in which they are needed."""
    existing = seen.deployments.get(target.name)
    template = recorded(existing) if existing is not None else None
    if template is None:
        template = pod_template(
            owner, request.spec, request.model, target.name, target.image, startup_deadline=startup_deadline
        )
    kept = {name: live for name, live in seen.deployments.items() if _kept(name, live, target, decision)}
    older = [
        _deployment(owner, request, name, recorded(live) or mapping(live, "spec", "template"), live=live)
        for name, live in sorted(kept.items())
    ]
    wanted = [
        *_gateway(owner, request, decision, gateway),
        config_map(owner, request.spec, request.model, target.name, seen.config_maps.get(target.name)),
        _deployment(owner, request, target.name, template, target=target),
        *older,
        service(owner, decision.serve, BEHIND_GATEWAY if gateway is not None and gateway.in_front else None),
    ]
    if _protected(request):
        wanted.append(pdb(owner))
    if (scaler := scalers.child(owner, request.spec, defaults, seen)) is not None:
        wanted.append(scaler)
    return [drift.stamped(child) for child in wanted]


def changes(wanted: Iterable[dict[str, Any]], seen: Observed) -> list[Apply]:
    """The children that must be written."""
    writes = []
    for child in wanted:
        live = seen.by_name.get((child["kind"], child["metadata"]["name"]))
        if live is None:
            writes.append(Apply(child, None, "missing"))
        elif not terminating(live) and (path := drift.drifted(child, live)) is not None:
            reason, whole = f"{path} is not as it should be", drift.replacement(child, live)
            writes.append(Apply(child, text(live, "metadata", "uid"), reason, whole))
    return writes


def removals(
    wanted: Iterable[dict[str, Any]], target: Revision, decision: Decision, seen: Observed
) -> list[Delete]:
    """What is wanted no more: Deployments of superseded revisions, their ConfigMaps, and what no other
    revision could need: a disruption budget, the way to the gateway, a scaler."""
    gone = [seen.deployments[name] for name in decision.remove]
    needed = {target.name, decision.serve}
    needed |= {name for name, live in seen.deployments.items() if _kept(name, live, target, decision)}
    gone += [live for name, live in sorted(seen.config_maps.items()) if name not in needed]
    places = {(child["kind"], child["metadata"]["name"]) for child in wanted}
    gone += [
        live for place, live in seen.by_name.items() if place[0] in _OF_THE_AGENT and place not in places
    ]
    return [_delete(live) for live in gone if not terminating(live)]


def _protected(request: Request) -> bool:
    """Whether a disruption budget could hold anything up; being suspended for a while changes nothing."""
    return request.most > 1


def _gateway(
    owner: Owner, request: Request, decision: Decision, gateway: Gateway | None
) -> list[dict[str, Any]]:
    if gateway is None:
        return []
    found = [endpoint_slice(owner, request.spec, gateway)]
    return [backend_service(owner, decision.serve), *found] if always(request.spec) else found


def _kept(name: str, live: Object, target: Revision, decision: Decision) -> bool:
    return name != target.name and name not in decision.remove and not terminating(live)


def _deployment(
    owner: Owner,
    request: Request,
    name: str,
    template: Any,
    *,
    target: Revision | None = None,
    live: Object | None = None,
) -> dict[str, Any]:
    return deployment(
        owner,
        name,
        template,
        replicas=request.wanted,
        progress_deadline_seconds=request.spec.strategy.progress_deadline_seconds,
        image_from_spec=target.image_from_spec if target else image_from_spec(live or {}),
    )


def _delete(live: Object) -> Delete:
    return Delete(
        api_version=text(live, "apiVersion"),
        kind=text(live, "kind"),
        namespace=text(live, "metadata", "namespace"),
        name=text(live, "metadata", "name"),
        uid=text(live, "metadata", "uid"),
        reason="it is wanted no more",
    )
