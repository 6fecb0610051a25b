"""The product, told top-down. Layer: core, pure; imports api and core.*.

The one idea: from what is seen to what is to be done in one function without effects. It depends on
nothing but its arguments, so the same snapshot gives the same plan, and carrying a plan out leads to a
snapshot whose plan is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from agent_operator.api.names import ANNOTATION_PAUSED, LABEL_SHARD
from agent_operator.core import (
    desired,
    findings,
    handover,
    ledger,
    load,
    observed,
    request,
    revision,
    rollout,
    scalers,
    scaling,
    status,
)
from agent_operator.core import signals as signals_of
from agent_operator.core.children.gateway import Gateway
from agent_operator.core.children.gateway import wanted as wants_gateway
from agent_operator.core.children.metadata import Owner
from agent_operator.core.conditions import Situation
from agent_operator.core.events import events
from agent_operator.core.findings import Findings
from agent_operator.core.observed import Observed
from agent_operator.core.plan import Apply, Delete, Plan
from agent_operator.core.reading import condition, count, mapping, text
from agent_operator.core.request import Refusal, Request
from agent_operator.core.revision import Revision
from agent_operator.core.rollout import Decision, RevisionState
from agent_operator.core.signals import Signals
from agent_operator.core.snapshot import ApplyFailure, Snapshot
from agent_operator.core.verdict import FIXED
from agent_operator.core.victims import deletion_costs

Writes = tuple[Apply | Delete, ...]


def reconcile(snapshot: Snapshot, now: datetime) -> Plan:
    """What to do about one AgentDeployment. Total: any object of the right outer shape gives a plan."""
    agent = snapshot.agent
    if observed.terminating(agent):
        return Plan(why="being deleted: the garbage collector removes the children")
    owner = _owner(agent)
    seen = observed.observe(snapshot, owner)
    asked = request.read(agent)
    if isinstance(asked, Refusal):
        return _refused(agent, owner, seen, asked, now)

    signals = snapshot.signals
    lost = signals_of.lost(signals, now.timestamp())
    scaled = scaling.decide(agent, asked, signals, _ready_now(seen, lost), now)
    asked = replace(asked, scaled=scaled.wanted)
    target = _target(agent, asked, seen, snapshot.defaults.runtime_image)
    states = observed.revision_states(seen, _served_last(agent), asked.wanted, lost)
    decision = rollout.decide(
        target=target.name, active=seen.active, revisions=states, wanted_replicas=asked.wanted
    )
    by_name = {state.revision: state for state in states}
    gateway, later = handover.plan(asked, seen, signals, _ready(by_name.get(decision.serve)), now)
    children = desired.children(
        owner, asked, target, decision, seen,
        gateway=gateway, defaults=snapshot.defaults, startup_deadline=signals.startup_deadline,
    )  # fmt: skip
    writes: Writes = (
        *_farewells(asked, seen, signals),
        *desired.changes(children, seen),
        *desired.removals(children, target, decision, seen),
    )
    blocked = _still_blocked(snapshot.blocked, children)
    if paused := text(agent, "metadata", "annotations", ANNOTATION_PAUSED) == "true":
        decision = Decision(seen.active or "", (), "paused: children are left as they are")
        writes, blocked = (), ()

    found = findings.investigate(
        seen, states, target=target.name, serve=decision.serve, wanted=asked.wanted, blocked=blocked,
        warnings=snapshot.warnings, now=now,
    )  # fmt: skip
    found = findings.with_lost(found, seen.pods.get(decision.serve, ()), lost, signals)
    if seen.active is None and any(failure.kind == "Service" for failure in blocked):
        decision = Decision("", (), decision.why)  # whatever is ready, no Service of ours leads there
    verdict = scaled.verdict or scalers.verdict(owner, asked.spec, snapshot.defaults, seen, blocked)
    situation = _situation(
        asked, target, decision, by_name.get(decision.serve), found,
        paused=paused, scaling=verdict or FIXED, **_sleep(asked, signals, gateway),
    )  # fmt: skip
    report = _report(agent, asked, seen, situation, **_measured(agent, signals, scaled, now))
    plan = _plan(agent, status.build(agent, owner, situation, report, now), writes, found, decision.why)
    return replace(plan, requeue_after=_earliest(plan.requeue_after, scaled.requeue_after, later))


def _owner(agent: Mapping[str, Any]) -> Owner:
    name, namespace, uid = (text(agent, "metadata", field) for field in ("name", "namespace", "uid"))
    return Owner(name, namespace, uid, text(agent, "metadata", "labels", LABEL_SHARD))


def _refused(agent: Mapping[str, Any], owner: Owner, seen: Observed, refusal: Refusal, now: datetime) -> Plan:
    """Nothing that runs is touched; the status says what is wrong and what keeps running."""
    live = seen.deployments.get(seen.active or "")
    replicas = count(live, "spec", "replicas")
    situation = Situation(
        serve=seen.active if live is not None else None,
        target=None,
        wanted=replicas,
        ready=count(live, "status", "readyReplicas"),
        settled=False,
        refusal=refusal,
    )
    before = mapping(agent, "status")
    report = status.Report(
        replicas=replicas,
        ready_replicas=situation.ready,
        model=text(before, "model") or None,
        gpu=text(before, "gpu") or None,
        current_revision=_served_last(agent),
        update_revision=text(before, "updateRevision") or None,
        scaling=mapping(before, "scaling") or None,
        load=mapping(before, "load") or None,
        last_start=mapping(before, "lastStart") or None,
    )
    return _plan(agent, status.build(agent, owner, situation, report, now), (), None, refusal.reason)


def _target(agent: Mapping[str, Any], asked: Request, seen: Observed, default_image: str) -> Revision:
    """The revision of the newest spec; what serves, then what was last asked for, may lend its image."""
    preferred = (seen.active, text(agent, "status", "updateRevision"))
    return revision.choose(asked.spec, default_image, observed.running(seen, preferred))


def _served_last(agent: Mapping[str, Any]) -> str | None:
    return text(agent, "status", "currentRevision") or None


def _ready_now(seen: Observed, lost: frozenset[str]) -> int:
    """Pods behind the Service that can answer now."""
    return len(observed.ready_pods(seen, seen.active or "") - lost)


def _ready(server: RevisionState | None) -> int:
    return server.ready if server else 0


def _farewells(asked: Request, seen: Observed, signals: Signals) -> list[Apply]:
    """Before fewer replicas are asked for: which of them are to go."""
    return [
        write
        for revision, live in sorted(seen.deployments.items())
        for write in deletion_costs(
            seen.pods.get(revision, ()), signals, count(live, "spec", "replicas"), asked.wanted
        )
    ]


def _sleep(asked: Request, signals: Signals, gateway: Gateway | None) -> dict[str, Any]:
    """What the conditions say of an agent that sleeps or wakes."""
    if asked.spec.autoscaling is None or not wants_gateway(asked.spec):
        return {}
    reachable = gateway is not None and bool(gateway.addresses)
    why = (
        "Nothing asks for it. The gateway holds the next request and wakes it."
        if reachable
        else "Nothing asks for it, and no gateway runs that could hold a request: raise spec.replicas, or "
        "install the chart with gateway.enabled=true."
    )
    return {"asleep": why, "waking": signals.held > 0}


def _measured(
    agent: Mapping[str, Any], signals: Signals, scaled: scaling.Scaling, now: datetime
) -> dict[str, Any]:
    before = mapping(agent, "status")
    start = signals.last_start
    return {
        "scaling": scaled.status,
        "load": load.load(signals, mapping(before, "load"), now),
        "last_start": ledger.to_status(start) if start else mapping(before, "lastStart") or None,
    }


def _earliest(*seconds: float | None) -> float | None:
    return min((s for s in seconds if s is not None), default=None)


def _still_blocked(
    blocked: tuple[ApplyFailure, ...], children: list[dict[str, Any]]
) -> tuple[ApplyFailure, ...]:
    """Refusals of what is still wanted; of what is not wanted any more they mean nothing."""
    names = {(child["kind"], child["metadata"]["name"]) for child in children}
    return tuple(failure for failure in blocked if (failure.kind, failure.name) in names)


def _situation(
    asked: Request,
    target: Revision,
    decision: Decision,
    server: RevisionState | None,
    found: Findings,
    **told: Any,
) -> Situation:
    """`server` is the revision that serves; `told` are fields of the situation that others found."""
    ready = _ready(server)
    arrived = server is not None and (server.complete if asked.wanted else ready == 0)
    return Situation(
        serve=decision.serve or None,
        target=target.name,
        wanted=asked.wanted,
        ready=ready,
        settled=arrived and decision.serve == target.name,
        suspended=asked.spec.suspend,
        stalled=found.stalled,
        faults=found.faults,
        restarted=found.restarted,
        advice=asked.advice,
        **told,
    )


def _report(
    agent: Mapping[str, Any], asked: Request, seen: Observed, situation: Situation, **measured: Any
) -> status.Report:
    live = seen.deployments.get(situation.serve or "")
    refused = condition(live, "ReplicaFailure").get("status") == "True"
    last = _served_last(agent)
    kept = last if last in seen.deployments else None
    return status.Report(
        replicas=count(live, "status", "replicas") if refused else asked.wanted,
        ready_replicas=situation.ready,
        model=asked.model_name,
        gpu=str(asked.gpus) if asked.gpus else "-",
        current_revision=situation.serve if situation.ready > 0 else kept,
        update_revision=situation.target,
        **measured,
    )


def _plan(
    agent: Mapping[str, Any], new: dict[str, Any], writes: Writes, found: Findings | None, why: str
) -> Plan:
    old = mapping(agent, "status")
    changed = not status.same_meaning(new, old)
    recheck = found.recheck_after if found else None
    return Plan(
        writes=writes,
        status=new if changed else None,
        urgent=changed and status.urgent(new, old),
        events=events(old, new) if changed else (),
        requeue_after=recheck.total_seconds() if recheck else None,
        why=why,
        inspect=found.inspect if found else (),
    )
