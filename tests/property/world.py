"""A small pure model of what surrounds the decision core: API server, Deployment controller, kubelet.

It applies plans to a dict store with additions like those of the API server, makes pods for
Deployments and lets them become ready or fail when told to. It knows nothing of rollouts.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from agent_operator.core.naming import digest
from agent_operator.core.plan import Apply, Delete, Plan
from agent_operator.core.reconcile import reconcile
from agent_operator.core.signals import NOTHING
from agent_operator.core.snapshot import Defaults, Snapshot

START = datetime(2026, 1, 1, tzinfo=UTC)
UID = "5d0c3b7e-0000-4000-8000-000000000000"
REVISION = "agentoperator.dev/revision"


def agent(name: str = "geography", **spec: Any) -> dict[str, Any]:
    """An AgentDeployment as the API server stores it."""
    return {
        "apiVersion": "agentoperator.dev/v1alpha1",
        "kind": "AgentDeployment",
        "metadata": {"name": name, "namespace": "default", "uid": UID, "generation": 1},
        "spec": {"model": {"uri": "oci://registry.example.com/models/geography:v1"}, **spec},
    }


class World:
    """One agent and everything around it. Time stands still unless `now` is moved."""

    def __init__(self, manifest: dict[str, Any] | None = None, image: str = "registry.example.com/runtime:1"):
        self.agent = manifest if manifest is not None else agent()
        self.image = image
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.pods: list[dict[str, Any]] = []
        self.warnings: list[dict[str, Any]] = []
        self.signals = NOTHING
        self.now = START
        self.status_writes = 0
        self._uids = 0

    # What the operator sees and does.

    def snapshot(self) -> Snapshot:
        children = tuple(self.objects[key] for key in sorted(self.objects))
        defaults = Defaults(self.image)
        return Snapshot(self.agent, children, tuple(self.pods), defaults, signals=self.signals)

    def plan(self) -> Plan:
        plan = reconcile(self.snapshot(), self.now)
        asked = {pod.uid for pod in plan.inspect}
        told = tuple(event for event in self.warnings if event["regarding"]["uid"] in asked)
        return reconcile(replace(self.snapshot(), warnings=told), self.now) if told else plan

    def step(self) -> Plan:
        """One reconcile, carried out."""
        plan = self.plan()
        self.carry_out(plan)
        return plan

    def settle(self, limit: int = 6) -> list[Plan]:
        """Reconcile until there is nothing to do; fails when it does not end."""
        plans = []
        for _ in range(limit):
            plans.append(self.step())
            if not plans[-1].writes and plans[-1].status is None:
                return plans
        raise AssertionError(f"still busy: {[w.reason for w in plans[-1].writes]}, {plans[-1].status}")

    def carry_out(self, plan: Plan) -> None:
        for write in plan.writes:
            self._apply(write) if isinstance(write, Apply) else self._delete(write)
        if plan.status is not None:
            self.agent["status"] = deepcopy(plan.status)
            self.status_writes += 1

    def _annotate(self, write: Apply) -> None:
        """Of a pod the operator writes annotations only."""
        assert set(write.object) == {"apiVersion", "kind", "metadata"}, write.object
        pod = next(p for p in self.pods if p["metadata"]["uid"] == write.uid)
        pod["metadata"].setdefault("annotations", {}).update(write.object["metadata"]["annotations"])

    def _apply(self, write: Apply) -> None:
        if write.object["kind"] == "Pod":
            self._annotate(write)
            return
        key = (write.object["kind"], write.object["metadata"]["name"])
        live = self.objects.get(key)
        if live is None:
            assert write.uid is None, f"update of {key}, which is gone"
        else:
            assert write.uid == live["metadata"]["uid"], f"creation of {key}, which exists"
        if live is not None and live.get("immutable") and live["data"] != write.object["data"]:
            raise AssertionError("an immutable ConfigMap was changed")
        written = _defaulted(deepcopy(write.replacement or write.object))
        generation = 1
        if live is not None:
            assert _selector(live) == _selector(written) or live["kind"] == "Service", "immutable selector"
            written["metadata"]["uid"] = live["metadata"]["uid"]
            written["status"] = live.get("status", {})
            generation = live["metadata"]["generation"] + (live.get("spec") != written.get("spec"))
        else:
            written["metadata"]["uid"] = self.uid()
        written["metadata"]["generation"] = generation
        self.objects[key] = written

    def _delete(self, write: Delete) -> None:
        live = self.objects.get((write.kind, write.name))
        assert live is not None and live["metadata"]["uid"] == write.uid
        self.remove(write.kind, write.name)

    def uid(self) -> str:
        self._uids += 1
        return f"uid-{self._uids}"

    # What users and the cluster do.

    def remove(self, kind: str, name: str) -> None:
        """Delete a child; the pods of a Deployment go with it."""
        gone = self.objects.pop((kind, name))
        if kind == "Deployment":
            revision = gone["spec"]["selector"]["matchLabels"][REVISION]
            self.pods = [p for p in self.pods if p["metadata"]["labels"][REVISION] != revision]

    def change(self, **spec: Any) -> None:
        """Edit the spec; None removes a field."""
        before = deepcopy(self.agent["spec"])
        for field, value in spec.items():
            if value is None:
                self.agent["spec"].pop(field, None)
            else:
                self.agent["spec"][field] = value
        if before != self.agent["spec"]:
            self.agent["metadata"]["generation"] += 1

    def run_controllers(self) -> None:
        """What the Deployment controller and the scheduler do until they are idle."""
        for deployment in self.deployments():
            revision = deployment["spec"]["selector"]["matchLabels"][REVISION]
            pods = [p for p in self.pods if p["metadata"]["labels"][REVISION] == revision]
            hash_ = digest(repr(deployment["spec"]["template"]))
            stale = [p for p in pods if p["metadata"]["labels"]["pod-template-hash"] != hash_]
            for pod in [*stale, *pods[deployment["spec"]["replicas"] :]]:
                if pod in self.pods:
                    self.pods.remove(pod)
            count = sum(p["metadata"]["labels"][REVISION] == revision for p in self.pods)
            for _ in range(deployment["spec"]["replicas"] - count):
                self.pods.append(self._pod(deployment, revision, hash_))
        self.count()

    def count(self) -> None:
        """The Deployment controller's look at its pods."""
        for deployment in self.deployments():
            revision = deployment["spec"]["selector"]["matchLabels"][REVISION]
            pods = [p for p in self.pods if p["metadata"]["labels"][REVISION] == revision]
            ready = sum(is_ready(p) for p in pods)
            deployment["status"] = {
                "observedGeneration": deployment["metadata"]["generation"],
                "replicas": len(pods),
                "updatedReplicas": len(pods),
                "readyReplicas": ready,
                "availableReplicas": ready,
                "unavailableReplicas": len(pods) - ready,
            }

    def _pod(self, deployment: dict[str, Any], revision: str, hash_: str) -> dict[str, Any]:
        labels = {**deployment["spec"]["template"]["metadata"]["labels"], "pod-template-hash": hash_}
        containers = deepcopy(deployment["spec"]["template"]["spec"]["containers"])
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{deployment['metadata']['name']}-{self.uid()}",
                "namespace": "default",
                "uid": self.uid(),
                "labels": labels,
            },
            "spec": {"containers": containers},
            "status": {"phase": "Pending"},
        }

    def all_ready(self) -> None:
        """Every pod becomes ready."""
        for pod in self.pods:
            set_ready(pod)
        self.count()

    def deployments(self) -> list[dict[str, Any]]:
        return [obj for (kind, _), obj in sorted(self.objects.items()) if kind == "Deployment"]

    def healthy(self) -> set[str]:
        """Revisions with a ready pod."""
        return {p["metadata"]["labels"][REVISION] for p in self.pods if is_ready(p)}

    @property
    def selected(self) -> str | None:
        service = self.objects.get(("Service", self.agent["metadata"]["name"]))
        return service["spec"]["selector"].get(REVISION) if service else None

    def condition(self, kind: str) -> dict[str, Any]:
        return next(c for c in self.agent["status"]["conditions"] if c["type"] == kind)


def ready_world(manifest: dict[str, Any] | None = None) -> World:
    """A world in which the agent serves."""
    world = World(manifest)
    world.settle()
    world.run_controllers()
    world.all_ready()
    world.settle()
    return world


def is_ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def set_ready(pod: dict[str, Any]) -> None:
    last = [s.get("lastState", {}) for s in pod["status"].get("containerStatuses", ())]
    restarts = [s.get("restartCount", 0) for s in pod["status"].get("containerStatuses", ())]
    pod["status"] = {
        "phase": "Running",
        "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
        "containerStatuses": [
            {
                "name": "runtime",
                "ready": True,
                "restartCount": restarts[0] if restarts else 0,
                "state": {"running": {}},
                "lastState": last[0] if last else {},
            }
        ],
    }


def set_container(pod: dict[str, Any], **status: Any) -> None:
    """The pod is scheduled and its runtime container is in this state, not ready."""
    pod["status"] = {
        "phase": "Running",
        "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}],
        "containerStatuses": [{"name": "runtime", "ready": False, "restartCount": 0, **status}],
    }


def set_unschedulable(pod: dict[str, Any], message: str) -> None:
    refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    pod["status"] = {"phase": "Pending", "conditions": [refused]}


def set_creating(pod: dict[str, Any], since: datetime) -> None:
    """The pod has a node since then, and the kubelet works on its volumes."""
    moment = since.strftime("%Y-%m-%dT%H:%M:%SZ")
    waiting = {"reason": "ContainerCreating"}
    pod["status"] = {
        "phase": "Pending",
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": moment},
            {"type": "PodReadyToStartContainers", "status": "False", "lastTransitionTime": moment},
            {"type": "Ready", "status": "False", "lastTransitionTime": moment},
        ],
        "containerStatuses": [
            {"name": "runtime", "ready": False, "restartCount": 0, "state": {"waiting": waiting}}
        ],
    }


def mount_failure(
    pod: dict[str, Any], note: str, at: datetime, reason: str = "FailedMount"
) -> dict[str, Any]:
    """What the kubelet tells about a volume, as events.k8s.io returns it."""
    moment = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{pod['metadata']['name']}.1", "namespace": "default"},
        "type": "Warning",
        "reason": reason,
        "note": note,
        "regarding": {"kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]},
        "deprecatedFirstTimestamp": moment,
        "deprecatedLastTimestamp": moment,
        "deprecatedCount": 3,
        "eventTime": None,
    }


def terminated(
    world_time: datetime, code: int = 1, message: str = "", reason: str = "Error", ago: float = 1.0
) -> dict[str, Any]:
    """A terminated state of a container."""
    finished = (world_time - timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": finished}}


def kinds(writes: Iterable[Apply | Delete]) -> list[str]:
    return [w.object["kind"] if isinstance(w, Apply) else f"-{w.kind}" for w in writes]


def _selector(obj: dict[str, Any]) -> Any:
    return obj.get("spec", {}).get("selector")


def _defaulted(obj: dict[str, Any]) -> dict[str, Any]:
    """A few of the API server's own additions, in every place where lists and maps may grow."""
    obj["metadata"]["resourceVersion"] = "1"
    spec = obj.get("spec", {})
    if obj["kind"] == "Service":
        spec.setdefault("clusterIP", "10.96.1.1")
        spec["sessionAffinity"] = "None"
        spec["ports"] = [{**port, "nodePort": 0} for port in spec["ports"]]
    if obj["kind"] == "Deployment":
        pod = spec["template"]["spec"]
        pod.setdefault("dnsPolicy", "ClusterFirst")
        pod.setdefault("schedulerName", "default-scheduler")
        spec["template"]["metadata"].setdefault("creationTimestamp", None)
        for container in pod["containers"]:
            container.setdefault("terminationMessagePath", "/dev/termination-log")
            container.setdefault("imagePullPolicy", "IfNotPresent")
            for mount in container.get("volumeMounts", ()):
                if mount.get("readOnly") is False:
                    del mount["readOnly"]
            limits = container.get("resources", {}).get("limits", {})
            container.setdefault("resources", {})["requests"] = {
                **{k: v for k, v in limits.items() if "/" in k},
                **container.get("resources", {}).get("requests", {}),
            }
        for volume in pod["volumes"]:
            if "configMap" in volume:
                volume["configMap"]["defaultMode"] = 420
    return obj
