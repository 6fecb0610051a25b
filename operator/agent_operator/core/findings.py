"""What is wrong with the revisions that matter. Layer: core, pure; imports core.*.

The one idea: the target is looked at while it is not complete, the serving revision while it is short
of replicas, and nothing else; pods of superseded revisions explain nothing any more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from agent_operator.api import Reason
from agent_operator.api.names import RUNTIME_CONTAINER, VOLUME_MODEL
from agent_operator.core import observed
from agent_operator.core.children.deployment import runtime_image
from agent_operator.core.children.secrets import uses
from agent_operator.core.diagnosis import (
    Diagnosis,
    Subject,
    diagnose,
    each_once,
    mounts,
    recent_restart,
    refused_children,
    refused_pods,
)
from agent_operator.core.diagnosis.text import clean
from agent_operator.core.observed import Object, Observed
from agent_operator.core.reading import condition, mapping, mappings, text
from agent_operator.core.rollout import RevisionState
from agent_operator.core.signals import Signals
from agent_operator.core.snapshot import ApplyFailure, PodReference


@dataclass(frozen=True, slots=True)
class Findings:
    """Faults, the most important first; a restart that was survived; when to look again; and the pods whose
    events would tell more."""

    faults: tuple[Diagnosis, ...]
    stalled: bool
    restarted: Diagnosis | None
    recheck_after: timedelta | None
    inspect: tuple[PodReference, ...] = ()


def investigate(
    seen: Observed,
    states: tuple[RevisionState, ...],
    *,
    target: str,
    serve: str,
    wanted: int,
    blocked: tuple[ApplyFailure, ...],
    warnings: tuple[Object, ...],
    now: datetime,
) -> Findings:
    """Look at what matters of a snapshot."""
    by_name = {state.revision: state for state in states}
    server, aim = by_name.get(serve), by_name.get(target)
    other = serve if serve != target and server is not None and server.ready > 0 else None
    short: list[tuple[str, str | None]] = []
    if wanted > 0 and aim is not None and not aim.complete:
        short.append((target, other))
    if wanted > 0 and serve != target and server is not None and server.ready < wanted:
        short.append((serve, None))
    pods = [pod for name, _ in short for pod in seen.pods.get(name, ())]
    mount_errors = mounts.errors(pods, warnings, now)
    faults = refused_children(blocked)
    for name, served_by in short:
        live = seen.deployments[name]
        subject = _subject(live, served_by)
        faults += [*refused_pods(live), *diagnose(subject, seen.pods.get(name, ()), mount_errors)]
    late = (target, other) in short and observed.deadline_exceeded(seen.deployments[target])
    if late and not faults:
        faults.append(_too_slow(seen.deployments[target]))
    restart, look = recent_restart(seen.pods.get(serve, ()), now), mounts.look(pods, now)
    pauses = [pause for pause in (restart[1] if restart else None, look.again_after) if pause is not None]
    return Findings(
        faults=each_once(faults),
        stalled=bool(faults) and (late or faults[0].needs_user),
        restarted=restart[0] if restart else None,
        recheck_after=min(pauses, default=None),
        inspect=look.pods,
    )


def with_lost(found: Findings, pods: tuple[Object, ...], lost: frozenset[str], signals: Signals) -> Findings:
    """The findings with the replicas of the serving revision that count as ready and cannot answer."""
    names = sorted(name for pod in pods if (name := text(pod, "metadata", "name")) in lost)
    stalled = [n for n in names if (s := signals.samples.get(n)) is not None and s.stalled]
    silent = [n for n in names if n not in stalled]
    faults = [
        build(which[0], len(which)) for build, which in ((_stalled, stalled), (_silent, silent)) if which
    ]
    return replace(found, faults=each_once([*faults, *found.faults])) if faults else found


def _stalled(name: str, number: int) -> Diagnosis:
    return Diagnosis(
        reason=Reason.REPLICA_STALLED,
        evidence=f"{_counted(name, number)} has work and makes no progress",
        remedy="nothing: the kubelet restarts it; if it comes back, look at its last words with "
        f"`kubectl logs {name} --previous`",
    )


def _silent(name: str, number: int) -> Diagnosis:
    return Diagnosis(
        reason=Reason.REPLICA_SILENT,
        evidence=f"{_counted(name, number)} counts as ready and does not answer",
        remedy="look at its node, and at the network between it and the operator: "
        f"`kubectl describe pod {name}`",
    )


def _counted(name: str, number: int) -> str:
    return f"pod {name}" if number == 1 else f"pod {name}, with {number - 1} more,"


def _subject(live: Object, served_by: str | None) -> Subject:
    template = mapping(live, "spec", "template")
    runtime: Object = next(
        (c for c in mappings(template, "spec", "containers") if c.get("name") == RUNTIME_CONTAINER), {}
    )
    volume: Object = next(
        (v for v in mappings(template, "spec", "volumes") if v.get("name") == VOLUME_MODEL), {}
    )
    devices = [(k, v) for k, v in mapping(runtime, "resources", "limits").items() if "/" in k]
    resource, amount = devices[0] if devices else (None, "0")
    return Subject(
        model_image=text(volume, "image", "reference") or None,
        runtime_image=runtime_image(template),
        gpu_resource=resource,
        gpu_count=clean(str(amount), 20),
        secrets=uses(template),
        served_by=served_by,
    )


def _too_slow(live: Object) -> Diagnosis:
    message = clean(text(condition(live, "Progressing"), "message"))
    return Diagnosis(
        reason=Reason.PROGRESS_DEADLINE_EXCEEDED,
        evidence=f"no progress within spec.strategy.progressDeadlineSeconds: {message}",
        remedy="look at the pods' events and logs; a large model may need a longer "
        "spec.strategy.progressDeadlineSeconds and spec.health.startupDeadlineSeconds",
    )
