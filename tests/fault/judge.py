"""What must hold whatever happens. Layer: tests.

The one idea: an operator may be late but never wrong. Every decision is judged by what the process could know
(its snapshot), every write by what was true when it landed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from agent_operator.api.names import LABEL_AGENT
from agent_operator.core.plan import Apply, Delete, Plan
from agent_operator.core.snapshot import Snapshot
from agent_operator.shell.kinds import DEPLOYMENT, SERVICE
from agent_operator.shell.kube import Object
from tests.fault.cluster import NAMESPACE, REVISION

if TYPE_CHECKING:
    from tests.fault.wire import Request
    from tests.fault.world import World

RECENT_SECONDS = 2.0
"""Who became ready or stopped being it so shortly ago may not be known for it yet."""
_VOLATILE = frozenset({"resourceVersion", "generation", "managedFields", "uid", "creationTimestamp"})


class BrokenInvariantError(AssertionError):
    """Something happened that must never happen."""


class Judge:
    """Watches one world. What it finds is kept in `findings` as well as raised."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.findings: list[str] = []

    def decided(self, snapshot: Snapshot, plan: Plan) -> None:
        """A decision, judged by its own snapshot.

        - The replicas of a Deployment come from the spec and from nowhere else.
        - The Service is pointed at a revision without ready pods only while no revision has any, and away
          from one that has ready pods only to one that is complete.
        - A Deployment with ready pods is deleted only when the Service is seen to select another one that has
          ready pods too.
        - A status says Ready only of a revision that has a ready pod, and of no newer generation than seen.
        """
        view = _View(snapshot)
        for write in plan.writes:
            if isinstance(write, Delete):
                self._judge_delete(view, write)
            elif write.object["kind"] == "Deployment":
                asked = write.object["spec"]["replicas"]
                self._expect(asked == view.wanted, f"{asked} replicas written, {view.wanted} in the spec")
            elif write.object["kind"] == "Service" and view.wanted:
                self._judge_move(view, write)
        if plan.status is not None:
            self._judge_status(view, plan.status)

    def landed(self, request: Request, event: str, old: Object | None, new: Object) -> None:
        """A change that an operator made, judged by the truth.

        - Only the leader writes: while a write lands, nobody else holds the lease.
        - Objects of others are never touched, and of an AgentDeployment nothing but its status.
        - In an object of ours only fields that the operator applies change.
        - Nothing is written to the children of a paused agent, and no replicas but those that the spec asks
          for or asked for until a moment ago.
        - A status never claims to have seen a generation that does not exist yet.
        - What serves goes on serving: while the Service selects a revision with ready pods, no write of ours
          takes the last of them away, unless pods changed in this very moment.
        """
        name = f"{new['kind']} {new['metadata']['name']}"
        holder = self._world.leader_name()
        self._expect(holder in (None, request.wire.owner), f"{request.wire.owner} writes, {holder} leads")
        if new["kind"] == "AgentDeployment":
            self._judge_agent(old, new)
            return
        if old is not None:
            known = old["metadata"]["uid"] in self._world.child_uids
            self._expect(known, f"{name} of somebody else was touched ({request.verb})")
            if event != "DELETED":
                self._judge_fields(request, old, new)
        self._judge_request(name, event, new)
        if new["kind"] in ("Service", "Deployment"):
            self._judge_service(name, event, old, new)

    def _judge_delete(self, view: _View, write: Delete) -> None:
        if write.kind != "Deployment" or not view.ready.get(write.name[-8:]):
            return
        others = view.ready.get(view.active or "", 0) if view.active != write.name[-8:] else 0
        self._expect(others > 0, f"{write.name} has ready pods, is deleted, and {view.active} serves nothing")

    def _judge_move(self, view: _View, write: Apply) -> None:
        aimed = write.object["spec"]["selector"][REVISION]
        healthy = {name for name, ready in view.ready.items() if ready}
        self._expect(not healthy or aimed in healthy, f"the Service goes to {aimed}, ready are {healthy}")
        if aimed != view.active and view.active in healthy:
            self._expect(aimed in view.complete, f"the Service leaves {view.active} for {aimed}, incomplete")

    def _judge_status(self, view: _View, status: Mapping[str, Any]) -> None:
        ready = next(c for c in status["conditions"] if c["type"] == "Ready")
        if ready["status"] == "True":
            serving = status.get("currentRevision")
            known = view.ready.get(serving or "", 0)
            self._expect(known > 0, f"Ready is claimed of {serving}, which has no ready pod")
            self._expect(status["readyReplicas"] == known, f"{status['readyReplicas']} ready, seen {known}")
        seen = status["observedGeneration"]
        self._expect(seen == view.generation, f"generation {seen} is claimed, {view.generation} was seen")

    def _judge_agent(self, old: Object | None, new: Object) -> None:
        self._expect(old is not None, "an AgentDeployment was created")
        assert old is not None
        for part in ("spec", "metadata"):
            changed = [path for path, _ in _changes(old.get(part), new.get(part))]
            changed = [path for path in changed if path[0] not in _VOLATILE]
            self._expect(not changed, f"{part} of the AgentDeployment was changed: {changed}")
        seen, exists = new["status"]["observedGeneration"], new["metadata"]["generation"]
        self._expect(seen <= exists, f"generation {seen} observed, {exists} exists")

    def _judge_fields(self, request: Request, old: Object, new: Object) -> None:
        position = (new["kind"], new["metadata"]["name"])
        applied = self._world.applied_before(new)
        ours = [*_leaves(applied), *_leaves(request.body or {})]
        for path, _ in _changes(old, new):
            if path[0] == "metadata" and path[1] in _VOLATILE:
                continue
            own = any(path[: len(o)] == o or o[: len(path)] == path for o in ours)
            self._expect(own, f"{position}: {'.'.join(path)} is not ours and was changed ({request.verb})")

    def _judge_request(self, name: str, event: str, new: Object) -> None:
        asked = self._world.recently_asked()
        self._expect(asked != {None}, f"{name} was written while the agent is paused")
        if new["kind"] == "Deployment" and event != "DELETED":
            replicas = new["spec"]["replicas"]
            self._expect(replicas in asked, f"{name} has {replicas} replicas, {asked} were asked for")

    def _judge_service(self, name: str, event: str, old: Object | None, new: Object) -> None:
        world = self._world
        if old is None or not world.wants_pods():
            return
        if new["kind"] == "Deployment" and event == "DELETED":
            gone, selected = new["spec"]["selector"]["matchLabels"][REVISION], world.selected()
            if world.serves_reliably(gone, new) and not (selected != gone and world.was_ready(selected)):
                self._expect(False, f"{name} had ready pods, was deleted, and {selected} serves nothing")
        elif new["kind"] == "Service":
            before, after = (o["spec"]["selector"].get(REVISION) for o in (old, new))
            if before != after and world.serves_reliably(before, None):
                self._expect(world.was_ready(after), f"the Service went from {before}, ready, to {after}")

    def _expect(self, holds: bool, finding: str) -> None:
        if not holds:
            self.findings.append(finding)
            raise BrokenInvariantError(finding)


class _View:
    """What a process could know when it decided."""

    def __init__(self, snapshot: Snapshot) -> None:
        agent = snapshot.agent
        spec = agent["spec"]
        uid = agent["metadata"]["uid"]
        self.generation = agent["metadata"]["generation"]
        self.wanted = 0 if spec.get("suspend") else spec.get("replicas", 1)
        self.ready: dict[str, int] = {}
        self.complete: set[str] = set()
        self.active: str | None = None
        for child in snapshot.children:
            owners = child["metadata"].get("ownerReferences") or ()
            if not any(o["uid"] == uid and o.get("controller") for o in owners):
                continue
            if child["kind"] == "Deployment":
                self._add(child)
            elif child["kind"] == "Service":
                self.active = (child["spec"].get("selector") or {}).get(REVISION)

    def _add(self, deployment: Mapping[str, Any]) -> None:
        name, status = deployment["metadata"]["name"][-8:], deployment.get("status") or {}
        ready = status.get("readyReplicas", 0)
        self.ready[name] = ready
        seen = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        enough = ready >= self.wanted == deployment["spec"].get("replicas")
        if seen and enough and status.get("updatedReplicas", 0) >= self.wanted:
            self.complete.add(name)


def check_rest(world: World) -> None:
    """At rest the status is the truth: generation, conditions, counts, revisions are those of the cluster."""
    agent = world.agent()
    children = [o for o in world.server.objects.values() if o["kind"] != "Event" and world.is_ours(o)]
    if agent is None:
        assert not children, f"left behind: {[(o['kind'], o['metadata']['name']) for o in children]}"
        return
    status, generation = agent.get("status") or {}, agent["metadata"]["generation"]
    assert status.get("observedGeneration") == generation, (status, generation)
    conditions = {c["type"]: c for c in status["conditions"]}
    assert all(c["observedGeneration"] == generation for c in conditions.values()), conditions
    selected = world.selected()
    ready = len(world.ready_pods(selected))
    if world.is_obstructed():
        # An object of somebody else has the name of a child: that is told, not mended.
        claimed = conditions["Ready"]["status"] == "True"
        assert ready or not claimed, f"Ready, but no Service leads to a ready pod: {conditions['Ready']}"
        return
    refused = conditions["Ready"]["reason"] in ("InvalidSpec", "FeatureNotSupported")
    assert refused == world.spec_is_refused(), conditions["Ready"]
    assert (conditions["Ready"]["status"] == "True") == (ready > 0 and not refused), (
        conditions["Ready"],
        ready,
    )
    if world.wants_pods() and not world.paused():
        assert status["readyReplicas"] == ready, (status, ready)
    if ready and not refused:
        assert status["currentRevision"] == selected, (status, selected)


def check_arrived(world: World) -> None:
    """With nothing in its way the newest spec is what runs, alone, complete and selected by the Service."""
    check_rest(world)
    agent = world.agent()
    if agent is None:
        return
    name, spec, status = agent["metadata"]["name"], agent["spec"], agent["status"]
    wanted = 0 if spec.get("suspend") else spec.get("replicas", 1)
    # Without its label a child is not watched: superseded then, it stays until the agent is deleted.
    ours = [(o["kind"], o["metadata"]["name"]) for o in world.children() if is_labelled(o)]
    target = f"{name}-{status['updateRevision']}"
    expected = [("ConfigMap", target), ("Deployment", target), ("Service", name)]
    scaling = spec.get("autoscaling") or {}
    if scaling.get("maxReplicas", spec.get("replicas", 1)) > 1:
        expected.append(("PodDisruptionBudget", name))
    if scaling.get("minReplicas") == 0:
        expected.append(("EndpointSlice", f"{name}-gateway"))
    if scaling.get("provider") == "HPA":
        expected.append(("HorizontalPodAutoscaler", name))
    assert ours == sorted(expected), (ours, expected)
    deployment = world.server.objects[DEPLOYMENT, NAMESPACE, target]
    pod = deployment["spec"]["template"]["spec"]
    image = next(v for v in pod["volumes"] if v["name"] == "model")["image"]["reference"]
    assert image == spec["model"]["uri"].removeprefix("oci://"), (image, spec["model"])
    assert deployment["spec"]["replicas"] == wanted
    assert world.selected() == status["updateRevision"]
    assert world.server.objects[SERVICE, NAMESPACE, name]["spec"]["ports"][0]["port"] == 80
    assert len(world.ready_pods(world.selected())) == wanted
    conditions = {c["type"]: c["status"] for c in status["conditions"]}
    assert conditions["Reconciling"] == conditions["Stalled"] == "False", status["conditions"]


def is_labelled(obj: Object) -> bool:
    """Whether our watches see an object."""
    return LABEL_AGENT in (obj["metadata"].get("labels") or {})


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    else:
        yield path


def _changes(old: Any, new: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {*old, *new}:
            yield from _changes(old.get(key), new.get(key), (*path, key))
    elif old != new:
        yield path, new
