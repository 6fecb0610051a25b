"""One agent, its cluster, its users and its operator processes. Layer: tests.

The one idea: everything that can happen is a method here, so a history is a list of names and arguments.
Must be made and used within a running (virtual) event loop.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from agent_operator.core.plan import Plan
from agent_operator.core.snapshot import Snapshot
from agent_operator.shell.kinds import AGENT, CHILDREN, DEPLOYMENT, LEASE, SERVICE, Kind, kind_of
from agent_operator.shell.kube import KubeError, Object
from tests.fakes.kube import WRITES, FakeApiServer
from tests.fault.cluster import NAMESPACE, REVISION, Cluster
from tests.fault.journal import Journal
from tests.fault.judge import RECENT_SECONDS, BrokenInvariantError, Judge, is_labelled
from tests.fault.process import RESYNC_SECONDS, Process
from tests.fault.wire import Request, Wire
from tests.property.world import is_ready

NAME = "geo"
REST_SECONDS = 2.5 * RESYNC_SECONDS
"""Long enough that every key is worked on: a resync comes at most 1.1 periods later and spreads over one."""


def model(number: int) -> Object:
    return {"uri": f"oci://registry.example.com/models/geography:v{number}"}


class World:
    """See the module. `elects`: processes compete for a Lease; otherwise each acts as soon as it starts."""

    def __init__(self, seed: int = 0, *, elects: bool = True) -> None:
        self.rng = random.Random(seed)
        self.elects = elects
        self.server = FakeApiServer()
        self.server.cascade = False
        self.latest: dict[tuple[Kind, str], Object] = {}
        self.agent_uids: set[str] = set()
        self.child_uids: set[str] = set()
        """Objects that were controlled by an AgentDeployment at some time."""
        self.ready_since: dict[str, float] = {}
        """Since when the Deployment of a revision has been telling that pods are ready."""
        self.asked: list[tuple[float, int | None]] = []
        """Since when how many replicas are asked for; None while the agent is paused."""
        self.unready_since: dict[str, float] = {}
        """When a revision lost its last ready pod."""
        self.server.watch(self._changed)
        self.journal = Journal(self.server)
        self.cluster = Cluster(self.server)
        self.judge = Judge(self)
        self.processes: list[Process] = []
        self.wires: list[Wire] = []
        self.sent: list[Request] = []
        self.written: list[Request] = []
        """Writes that were accepted, whether they changed anything or not."""
        self.on_sent: Callable[[Request], None] = lambda request: None
        self.on_written: Callable[[Request], None] = lambda request: None
        self.latency = 0.02
        self.lag = 0.02
        self.failure: BrokenInvariantError | None = None
        self.background: list[asyncio.Task[None]] = []
        self._started = 0

    # What the operator's processes go through.

    def start_process(self, *, stale: int = 0) -> Process:
        """A new process; `stale`: how many versions its first lists are behind."""
        self._started += 1
        name = f"operator-{self._started}"
        wire = Wire(
            self.server,
            owner=name,
            seconds=lambda: self.rng.uniform(0.2, 1.0) * self.latency,
            sent=self._sent,
            landed=self._landed,
        )
        self.wires.append(wire)
        past = self.journal.past(max(0, self.server.version - stale)) if stale else None
        process = Process(
            name,
            self.journal,
            wire,
            self.rng,
            lag=lambda: self.rng.uniform(0.0, 1.0) * self.lag,
            decided=self._decided,
            past=past,
            elects=self.elects,
        )
        self.processes.append(process)
        return process

    def kill(self, process: Process) -> None:
        """A process dies at once; what it had sent goes on."""
        process.kill()
        self.processes.remove(process)

    def leader(self) -> Process | None:
        """The process that holds the lease, or the only one."""
        holder = self.leader_name()
        return next((p for p in self.processes if holder in (None, p.name)), None)

    def leader_name(self) -> str | None:
        lease = self.server.objects.get((LEASE, "ops", "lease"))
        return (lease["spec"]["holderIdentity"] or None) if lease else None

    async def free_lease(self) -> None:
        """Nobody holds the lease of a dead process any more, as if its time were over: that is later than
        anything it had sent."""
        while under_way := [task for wire in self.wires if wire.dead for task in wire.in_flight]:
            await asyncio.wait(under_way)
        if self.leader() is None and (LEASE, "ops", "lease") in self.server.objects:
            self.server.edit(LEASE, "ops", "lease", lambda lease: lease["spec"].update(holderIdentity=""))

    async def at_rest(self) -> None:
        """Wait until nothing changes and nothing is written any more.

        Raises:
            AssertionError: it does not come to rest, or something happened that must never happen.
        """
        for _ in range(12):
            before = (self._version(), len(self.written))
            await asyncio.sleep(REST_SECONDS)
            self.check()
            if before == (self._version(), len(self.written)):
                return
        last = [(r.verb, r.kind.kind, r.name) for r in self.written[-6:]]
        raise AssertionError(f"it does not come to rest; the last writes: {last}")

    def check(self) -> None:
        """Raise what the judge found first, if anything."""
        if self.failure is not None:
            raise self.failure

    def _version(self) -> int:
        return sum(map(len, self.journal.entries.values()))

    def _sent(self, request: Request) -> None:
        self.sent.append(request)
        self.on_sent(request)

    def _landed(self, request: Request, error: KubeError | None) -> None:
        if request.writes and error is None:
            self.written.append(request)
            self.on_written(request)

    def _decided(self, process: Process, snapshot: Snapshot, plan: Plan) -> None:
        self._note(lambda: self.judge.decided(snapshot, plan))

    def _note(self, verdict: Callable[[], None]) -> None:
        """Judge; the first finding is kept for whoever plays the history."""
        try:
            verdict()
        except BrokenInvariantError as error:
            self.failure = self.failure or error

    # What is true.

    def agent(self) -> Object | None:
        return self.server.objects.get((AGENT, NAMESPACE, NAME))

    def paused(self) -> bool:
        agent = self.agent() or {"metadata": {}}
        return (agent["metadata"].get("annotations") or {}).get("agentoperator.dev/paused") == "true"

    def spec_is_refused(self) -> bool:
        return "tuning" in (self.agent() or {"spec": {}})["spec"]

    def wants_pods(self) -> bool:
        spec = (self.agent() or {"spec": {"suspend": True}})["spec"]
        return not spec.get("suspend") and spec.get("replicas", 1) > 0

    def selected(self) -> str | None:
        """Revision that the Service selects, whoever owns it."""
        service = self.server.objects.get((SERVICE, NAMESPACE, NAME)) or {"spec": {}}
        return (service["spec"].get("selector") or {}).get(REVISION)

    def ready_pods(self, revision: str | None) -> list[Object]:
        labels = (p["metadata"]["labels"] for p in self.cluster.pods() if is_ready(p))
        return [each for each in labels if each.get(REVISION) == revision]

    def recently_asked(self) -> set[int | None]:
        """The replicas that were asked for at any time of the last moments; None in it: it was paused."""
        horizon = self._horizon()
        over = [until for until, _ in self.asked[1:]]
        return {
            asked
            for (_, asked), until in zip(self.asked, [*over, horizon + 1], strict=True)
            if until > horizon
        }

    def serves_reliably(self, revision: str | None, gone: Object | None = None) -> bool:
        """Whether a revision of ours has ready pods, and not only since a moment ago.

        A Deployment that somebody took from us, or made invisible by removing its labels, does not count.
        `gone`: its Deployment, if that is not there any more.
        """
        deployment = gone or self.server.objects.get((DEPLOYMENT, NAMESPACE, f"{NAME}-{revision}"))
        if deployment is None or not self.is_ours(deployment) or not is_labelled(deployment):
            return False
        since = self.ready_since.get(deployment["metadata"]["uid"])
        if since is None or not self.ready_pods(revision):
            return False
        return since < self._horizon()

    def was_ready(self, revision: str | None) -> bool:
        """Whether a revision has a ready pod or had one a moment ago."""
        if self.ready_pods(revision):
            return True
        since = self.unready_since.get(revision or "")
        return since is not None and since > self._horizon()

    def _horizon(self) -> float:
        """What is true since before then can have been known when the write that lands now was decided on."""
        request = self.server.acting
        now = asyncio.get_running_loop().time()
        return (request.decided_at if isinstance(request, Request) else now) - RECENT_SECONDS

    def is_ours(self, obj: Object) -> bool:
        """Whether an object is a child of an AgentDeployment that exists or existed."""
        owners = obj["metadata"].get("ownerReferences") or ()
        return any(o.get("controller") and o["uid"] in self.agent_uids for o in owners)

    def is_obstructed(self) -> bool:
        """Whether what has the name of a child is not ours, or is unseen because its labels were removed."""
        mine = (NAME, f"{NAME}-")
        objects = [o for (kind, _, _), o in self.server.objects.items() if kind in CHILDREN]
        named = [o for o in objects if o["metadata"]["name"].startswith(mine)]
        return any(not self.is_ours(o) or not is_labelled(o) for o in named)

    def applied_before(self, obj: Object) -> Object:
        """What the operator had applied of an object before the current request."""
        position = (kind_of(obj), obj["metadata"]["namespace"], obj["metadata"]["name"])
        return self.server.applied(position)

    def _changed(self, event: str, obj: Object) -> None:
        key = (kind_of(obj), obj["metadata"]["name"])
        old = self.latest.pop(key, None)
        if event != "DELETED":
            self.latest[key] = obj
        if obj["kind"] == "AgentDeployment":
            self.agent_uids.add(obj["metadata"]["uid"])
            replicas = obj["spec"].get("replicas", 1) if self.wants_pods() else 0
            asked = (asyncio.get_running_loop().time(), None if self.paused() else replicas)
            if not self.asked or self.asked[-1][1] != asked[1]:
                self.asked.append(asked)
        elif obj["kind"] == "Pod" and old is not None and is_ready(old):
            revision = obj["metadata"]["labels"].get(REVISION, "")
            if not self.ready_pods(revision):
                self.unready_since[revision] = asyncio.get_running_loop().time()
        elif obj["kind"] == "Deployment":
            uid = obj["metadata"]["uid"]
            if (obj.get("status") or {}).get("readyReplicas", 0) > 0:
                self.ready_since.setdefault(uid, asyncio.get_running_loop().time())
            else:
                self.ready_since.pop(uid, None)
        request = self.server.acting
        if isinstance(request, Request) and request.writes and obj["kind"] != "Event":
            self._note(lambda: self.judge.landed(request, event, old, obj))
        if self.is_ours(obj):
            self.child_uids.add(obj["metadata"]["uid"])

    # What users do.

    def create_agent(self, **spec: Any) -> None:
        if self.agent() is None:
            body = {"model": model(1), "replicas": 1, **spec}
            meta = {"name": NAME, "namespace": NAMESPACE}
            agent = {"apiVersion": AGENT.api_version, "kind": AGENT.kind, "metadata": meta, "spec": body}
            self.server.add(agent)

    def delete_agent(self) -> None:
        if self.agent() is not None:
            self.server.drop(AGENT, NAMESPACE, NAME)

    def change_spec(self, **fields: Any) -> None:
        """Set fields of the spec; None removes one."""

        def change(agent: Object) -> None:
            for field, value in fields.items():
                agent["spec"].pop(field, None)
                if value is not None:
                    agent["spec"][field] = value

        if self.agent() is not None:
            self.server.edit(AGENT, NAMESPACE, NAME, change)

    def annotate_agent(self, key: str, value: str | None) -> None:
        def change(agent: Object) -> None:
            annotations = agent["metadata"].setdefault("annotations", {})
            annotations.pop(key, None)
            if value is not None:
                annotations[key] = value

        if self.agent() is not None:
            self.server.edit(AGENT, NAMESPACE, NAME, change)

    def children(self) -> list[Object]:
        """Our children, in a stable order."""
        found = [o for (k, _, _), o in self.server.objects.items() if k in CHILDREN and self.is_ours(o)]
        return sorted(found, key=lambda o: (o["kind"], o["metadata"]["name"]))

    def delete_object(self, obj: Object) -> None:
        self.server.drop(kind_of(obj), NAMESPACE, obj["metadata"]["name"])

    def edit_object(self, obj: Object, change: Callable[[Object], Any]) -> None:
        self.server.edit(kind_of(obj), NAMESPACE, obj["metadata"]["name"], change)

    def writes_since(self, count: int) -> list[tuple[str, str, str]]:
        """Writes that were sent after the first `count` requests, events included."""
        return [(r.verb, r.kind.kind, r.name) for r in self.sent[count:] if r.verb in WRITES and r.writes]
