"""Kubernetes' own controllers, as far as they matter here. Layer: tests.

The one idea: everything happens by itself and with a lag. Deployments get pods, pods become ready or crash,
what a deleted object controlled is collected, and the Deployment tells about it, each a moment later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from agent_operator.core.naming import digest
from agent_operator.shell.kinds import AGENT, DEPLOYMENT, POD, Kind
from agent_operator.shell.kube import Object
from tests.fakes.kube import FakeApiServer
from tests.property.world import is_ready, set_container, set_ready

NAMESPACE = "ns"
REVISION = "agentoperator.dev/revision"
CRASHED = {"terminated": {"exitCode": 1, "reason": "Error", "message": "boom", "finishedAt": ""}}


class Cluster:
    """The Deployment controller, the kubelet and the garbage collector over one API server.

    Pods of revisions in `broken` crash instead of becoming ready. Lags are in seconds.
    """

    def __init__(self, server: FakeApiServer) -> None:
        self.server = server
        self.deployment_lag = 0.02
        self.collector_lag = 0.05
        self.start_seconds = 0.5
        self.broken: set[str] = set()
        self._due: set[str] = set()
        self._pods = 0
        server.watch(self._changed)

    def pods(self) -> list[Object]:
        return [obj for (kind, _, _), obj in self.server.objects.items() if kind == POD]

    def deployments(self) -> list[Object]:
        return [obj for (kind, _, _), obj in self.server.objects.items() if kind == DEPLOYMENT]

    def set_pod(self, pod: Object, state: str) -> None:
        """A pod becomes ready, not ready, or crashes."""
        self._edit(POD, pod["metadata"]["name"], lambda p: _set(p, state))

    def mend(self) -> None:
        """No revision is broken any more; every pod becomes ready in its time."""
        self.broken.clear()
        for pod in self.pods():
            self._start(pod)

    def _changed(self, event: str, obj: Object) -> None:
        if obj["kind"] in ("Deployment", "Pod"):
            self._soon("deployments", self.deployment_lag, self._run_deployments)
        if event in ("ADDED", "DELETED"):  # what is born without its owner is collected too
            self._soon("collector", self.collector_lag, self._collect)

    def _soon(self, what: str, seconds: float, run: Callable[[], None]) -> None:
        if what not in self._due:
            self._due.add(what)
            asyncio.get_running_loop().call_later(seconds, self._run, what, run)

    def _run(self, what: str, run: Callable[[], None]) -> None:
        self._due.discard(what)
        run()

    def _collect(self) -> None:
        uids = {obj["metadata"]["uid"] for obj in self.server.objects.values()}
        for kind, namespace, name in list(self.server.objects):
            obj = self.server.objects[kind, namespace, name]
            owners = obj["metadata"].get("ownerReferences") or ()
            if kind != AGENT and owners and not any(owner["uid"] in uids for owner in owners):
                self.server.drop(kind, namespace, name)

    def _run_deployments(self) -> None:
        for deployment in self.deployments():
            self._scale(deployment)
            self._report(deployment)

    def _scale(self, deployment: Object) -> None:
        template = digest(repr(deployment["spec"]["template"]))
        pods = self._pods_of(deployment)
        fresh = [p for p in pods if p["metadata"]["labels"]["pod-template-hash"] == template]
        wanted = deployment["spec"]["replicas"]
        for _ in range(wanted - len(fresh)):
            self._create_pod(deployment, template)
        surplus = sorted(fresh, key=is_ready)[: max(0, len(fresh) - wanted)]
        if sum(map(is_ready, fresh)) >= wanted:
            surplus += [p for p in pods if p not in fresh]
        for pod in surplus:
            self.server.drop(POD, NAMESPACE, pod["metadata"]["name"])

    def _report(self, deployment: Object) -> None:
        template = digest(repr(deployment["spec"]["template"]))
        pods = self._pods_of(deployment)
        ready = sum(map(is_ready, pods))
        fresh = sum(p["metadata"]["labels"]["pod-template-hash"] == template for p in pods)
        counts = {
            "replicas": len(pods),
            "updatedReplicas": fresh,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(len(pods), deployment["spec"]["replicas"]) - ready,
        }
        status = {"observedGeneration": deployment["metadata"]["generation"]}
        status |= {name: count for name, count in counts.items() if count}
        if deployment.get("status") != status:
            self._edit(DEPLOYMENT, deployment["metadata"]["name"], lambda d: d.update(status=status))

    def _pods_of(self, deployment: Object) -> list[Object]:
        uid = deployment["metadata"]["uid"]
        return [p for p in self.pods() if p["metadata"]["ownerReferences"][0]["uid"] == uid]

    def _create_pod(self, deployment: Object, template: str) -> None:
        self._pods += 1
        meta = deployment["metadata"]
        described = deployment["spec"]["template"]
        labels = {**described["metadata"]["labels"], "pod-template-hash": template}
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": meta["name"], "uid": meta["uid"]}
        pod = self.server.add(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"{meta['name']}-{self._pods}",
                    "namespace": NAMESPACE,
                    "labels": labels,
                    "ownerReferences": [{**owner, "controller": True}],
                },
                "spec": {"containers": [{"name": c["name"]} for c in described["spec"]["containers"]]},
                "status": {"phase": "Pending"},
            }
        )
        self._start(pod)

    def _start(self, pod: Object) -> None:
        asyncio.get_running_loop().call_later(self.start_seconds, self._started, pod["metadata"]["name"])

    def _started(self, name: str) -> None:
        pod = self.server.objects.get((POD, NAMESPACE, name))
        if pod is not None:
            broken = pod["metadata"]["labels"].get(REVISION) in self.broken
            self._edit(POD, name, lambda p: _set(p, "crash" if broken else "ready"))

    def _edit(self, kind: Kind, name: str, change: Callable[[Object], Any]) -> None:
        if (kind, NAMESPACE, name) in self.server.objects:
            self.server.edit(kind, NAMESPACE, name, change)


def _set(pod: Object, state: str) -> None:
    if state == "ready":
        set_ready(pod)
    elif state == "unready":
        set_container(pod, state={"running": {}})
    else:
        set_container(pod, state=CRASHED, restartCount=1)
