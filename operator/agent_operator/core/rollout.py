"""Blue-green between revisions. Layer: core, pure; imports the standard library only.

The one idea: the Service points at one revision; it moves to the wanted one only when that one is
Ready, and what is healthy is removed only after another healthy one has taken its place. Everything
is decided anew from what is seen, so a spec changed back and forth, a crash or a missed event in
the middle cannot leave it in a wrong state.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RevisionState:
    """One revision's Deployment, as far as a rollout cares. Counts are of pods."""

    revision: str
    ready: int
    """Pods that are ready."""
    complete: bool
    """Every wanted pod is ready and the Deployment controller has seen the newest template."""
    proven: bool
    """It has served with all its pods ready at some time, whatever it does now."""
    terminating: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """Which revision the Service selects, which Deployments go, and why."""

    serve: str
    """Revision that the Service is to select."""
    remove: tuple[str, ...]
    why: str


def decide(
    *, target: str, active: str | None, revisions: tuple[RevisionState, ...], wanted_replicas: int
) -> Decision:
    """Where the Service points and what is removed.

    `target` is the revision of the newest spec (it may not exist yet), `active` the one that the
    Service selects now (None: there is no Service).
    """
    states = {state.revision: state for state in revisions if not state.terminating}
    serve, why = _serve(target, active, states, wanted_replicas)
    remove = _removable(target, serve, states, settled=serve == active)
    return Decision(serve=serve, remove=remove, why=why)


def _serve(
    target: str, active: str | None, states: dict[str, RevisionState], wanted_replicas: int
) -> tuple[str, str]:
    if wanted_replicas == 0:
        return target, "no replicas are wanted"
    wanted = states.get(target)
    if wanted is not None and wanted.complete:
        return target, f"revision {target} is ready"
    current = states.get(active) if active is not None else None
    if current is not None and current.ready > 0:
        return current.revision, f"revision {current.revision} serves until {target} is ready"
    healthiest = max(states.values(), key=lambda s: (s.ready, s.revision == target, s.revision), default=None)
    if healthiest is not None and healthiest.ready > 0:
        return healthiest.revision, f"revision {healthiest.revision} is the one with ready pods"
    if current is not None and current.proven:
        return current.revision, f"revision {current.revision} served last; nothing is ready"
    return target, f"revision {target} is the first to serve"


def _removable(
    target: str, serve: str, states: dict[str, RevisionState], *, settled: bool
) -> tuple[str, ...]:
    """The Deployments to delete now: never the target, nor the one that serves.

    Of the others, those without a ready pod go at once: a new spec makes a failed attempt pointless,
    and it may hold the GPU that the next one needs. Those with ready pods go when the serving one is
    healthy itself, and complete if it is the target, and the Service has been seen to select it: what
    was decided only now may still be refused.
    """
    others = [state for name, state in sorted(states.items()) if name not in (target, serve)]
    server = states.get(serve)
    safe = settled and server is not None and (server.complete or (serve != target and server.ready > 0))
    return tuple(state.revision for state in others if safe or state.ready == 0)
