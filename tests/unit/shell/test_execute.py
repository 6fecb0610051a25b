"""What the executor may touch, in which order, and what it does when the cluster disagrees."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_operator.api.names import LABEL_AGENT
from agent_operator.controller.cache import Cache
from agent_operator.core.plan import Apply, Delete
from agent_operator.observability.metrics import Metrics
from agent_operator.shell.execute import Executor, Written
from agent_operator.shell.kinds import AGENT, CONFIG_MAP, DEPLOYMENT, SERVICE
from agent_operator.shell.kube import (
    ForbiddenError,
    InternalError,
    InvalidError,
    KubeError,
    UnavailableError,
)
from agent_operator.shell.snapshots import index_values, trim
from tests.fakes.kube import FakeApiServer


def agent_object(name: str = "geo") -> dict[str, Any]:
    return {
        "apiVersion": AGENT.api_version,
        "kind": AGENT.kind,
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"replicas": 1},
    }


class Bench:
    """A server with one agent, cached, and an executor."""

    def __init__(self) -> None:
        self.server = FakeApiServer()
        self.cache = Cache(trim=trim, index_values=index_values)
        self.metrics = Metrics()
        self.executor = Executor(self.server.client(), self.cache, self.metrics)
        self.agent = self.server.add(agent_object())
        self.cache.put(self.agent)

    def child(self, name: str = "geo", *, kind: str = "Service", **fields: Any) -> dict[str, Any]:
        owner = {"apiVersion": AGENT.api_version, "kind": AGENT.kind, "controller": True}
        owner |= {"name": self.agent["metadata"]["name"], "uid": self.agent["metadata"]["uid"]}
        meta = {"name": name, "namespace": "ns", "ownerReferences": [owner]}
        return {"apiVersion": "v1", "kind": kind, "metadata": meta, **fields}

    def existing(self, name: str = "geo", **fields: Any) -> dict[str, Any]:
        stored = self.server.add(self.child(name, **fields))
        self.cache.put(stored)
        return stored

    def write(self, *writes: Apply | Delete) -> Written:
        self.server.log.clear()
        return asyncio.run(self.executor.write(self.agent, writes))

    @property
    def children(self) -> list[str]:
        owned = self.cache.indexed(("owner", self.agent["metadata"]["uid"]))
        return sorted(obj["metadata"]["name"] for obj in owned)


def create(obj: dict[str, Any]) -> Apply:
    return Apply(obj, None, "it is missing")


def update(obj: dict[str, Any], uid: str) -> Apply:
    return Apply(obj, uid, "it differs")


def delete(obj: dict[str, Any], uid: str | None = None) -> Delete:
    meta = obj["metadata"]
    return Delete(
        obj["apiVersion"], obj["kind"], meta["namespace"], meta["name"], uid or meta["uid"], "it is old"
    )


def test_a_missing_child_is_created_and_the_cache_knows_it_at_once() -> None:
    bench = Bench()
    result = bench.write(create(bench.child(spec={"ports": []})))
    assert (result.writes, result.failures, result.stale) == (1, [], "")
    assert bench.server.writes() == [("apply", "Service", "geo")]
    assert bench.children == ["geo"]


def test_a_stranger_with_the_childs_name_is_reported_and_left_alone() -> None:
    bench = Bench()
    stranger = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "geo", "namespace": "ns"}}
    before = bench.server.add(stranger)
    result = bench.write(create(bench.child()))
    assert [(f.kind, f.name, f.code) for f in result.failures] == [("Service", "geo", "NameTaken")]
    assert "namespace 'ns'" in result.failures[0].message
    assert "rename" in result.failures[0].message
    assert bench.server.writes() == []
    assert bench.server.objects[SERVICE, "ns", "geo"] == before


def test_a_child_of_another_controller_is_named_with_its_owner() -> None:
    bench = Bench()
    owned = bench.child()
    owned["metadata"]["ownerReferences"][0] |= {"kind": "Gateway", "name": "edge", "uid": "else"}
    bench.server.add(owned)
    result = bench.write(create(bench.child()))
    assert "controlled by Gateway 'edge'" in result.failures[0].message


def test_a_child_of_a_deleted_agent_of_the_same_name_is_waited_for() -> None:
    bench = Bench()
    leftover = bench.child()
    leftover["metadata"]["ownerReferences"][0]["uid"] = "the-agent-before"
    bench.server.add(leftover)
    result = bench.write(create(bench.child()))
    assert [f.code for f in result.failures] == ["Conflict"]
    assert bench.server.writes() == []


def test_a_child_the_cache_had_missed_is_adopted_without_a_write() -> None:
    bench = Bench()
    bench.server.add(bench.child())
    result = bench.write(create(bench.child()))
    assert "exists already" in result.stale
    assert bench.server.writes() == []
    assert bench.children == ["geo"]


def test_what_was_left_behind_on_purpose_is_taken_up_again() -> None:
    bench = Bench()
    labels = {LABEL_AGENT: "geo", "app.kubernetes.io/managed-by": "agent-operator"}
    wanted = bench.child(spec={"ports": []})
    wanted["metadata"]["labels"] = labels
    bench.write(create(wanted))
    orphan = bench.server.edit(SERVICE, "ns", "geo", lambda o: o["metadata"].update(ownerReferences=[]))
    bench.cache.put(orphan)
    assert bench.children == []
    result = bench.write(create(wanted))
    assert (result.writes, result.failures, result.stale) == (1, [], "")
    assert bench.children == ["geo"]


def test_the_agent_and_whoever_has_a_childs_name_are_read_before_anything_is_made() -> None:
    bench = Bench()
    bench.write(create(bench.child("geo-cfg", kind="ConfigMap")), create(bench.child()))
    asked = [(verb, kind) for verb, kind, _ in bench.server.log]
    assert asked == [
        ("get", "AgentDeployment"),
        ("get", "ConfigMap"),
        ("get", "Service"),
        ("apply", "ConfigMap"),
        ("apply", "Service"),
    ]


def test_a_deleted_agent_the_cache_still_has_gets_no_children_back() -> None:
    bench = Bench()
    bench.server.drop(AGENT, "ns", "geo")
    result = bench.write(create(bench.child()))
    assert "gone" in result.stale
    assert bench.server.writes() == []
    assert bench.cache.get(AGENT, "ns", "geo") is None


def test_a_changed_agent_is_decided_on_anew_before_anything_is_written() -> None:
    bench = Bench()
    bench.server.edit(AGENT, "ns", "geo", lambda o: o["spec"].update(replicas=2))
    result = bench.write(create(bench.child()))
    assert "has changed" in result.stale
    assert bench.server.writes() == []
    cached = bench.cache.get(AGENT, "ns", "geo")
    assert cached is not None
    assert cached["spec"] == {"replicas": 2}


def test_a_deployment_that_is_not_as_it_was_when_its_end_was_decided_stays() -> None:
    bench = Bench()
    bench.existing()  # the Service
    doomed = bench.existing("geo-b7bbbbbb", kind="Deployment", apiVersion="apps/v1")
    bench.server.edit(DEPLOYMENT, "ns", "geo-b7bbbbbb", lambda o: o.update(status={"readyReplicas": 1}))
    result = bench.write(delete(doomed))
    assert "geo-b7bbbbbb has changed" in result.stale
    assert (DEPLOYMENT, "ns", "geo-b7bbbbbb") in bench.server.objects
    seen = bench.cache.get(DEPLOYMENT, "ns", "geo-b7bbbbbb")
    assert seen is not None
    assert seen["status"] == {"readyReplicas": 1}


def test_the_status_of_a_deleted_agent_is_not_written_and_the_cache_forgets_it() -> None:
    bench = Bench()
    bench.server.drop(AGENT, "ns", "geo")
    assert not asyncio.run(bench.executor.write_status(bench.agent, {"replicas": 1}))
    assert bench.cache.get(AGENT, "ns", "geo") is None


def test_an_update_carries_the_uid_so_a_recreated_stranger_is_a_conflict() -> None:
    bench = Bench()
    old = bench.existing()
    bench.server.drop(SERVICE, "ns", "geo")
    stranger = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "geo", "namespace": "ns"}}
    bench.server.add({**stranger, "spec": {"mine": True}})
    result = bench.write(update(bench.child(spec={"mine": False}), old["metadata"]["uid"]))
    assert result.stale
    assert bench.server.objects[SERVICE, "ns", "geo"]["spec"] == {"mine": True}
    assert bench.children == []


def test_an_update_of_a_child_that_vanished_evicts_it_from_the_cache() -> None:
    bench = Bench()
    old = bench.existing()
    bench.server.drop(SERVICE, "ns", "geo")
    assert bench.write(update(bench.child(), old["metadata"]["uid"])).stale
    assert bench.children == []


def test_a_delete_names_the_uid_and_empties_the_cache() -> None:
    bench = Bench()
    old = bench.existing()
    result = bench.write(delete(old))
    assert result.writes == 1
    assert (SERVICE, "ns", "geo") not in bench.server.objects
    assert bench.children == []


def test_a_delete_never_hits_a_recreated_object() -> None:
    bench = Bench()
    old = bench.existing()
    assert bench.write(delete(old, uid="an-earlier-uid")).stale
    assert (SERVICE, "ns", "geo") in bench.server.objects


def test_an_object_held_by_a_finalizer_stays_in_the_cache_as_terminating() -> None:
    bench = Bench()
    stored = bench.existing()
    bench.server.edit(SERVICE, "ns", "geo", lambda o: o["metadata"].update(finalizers=["x/y"]))
    bench.write(delete(stored))
    cached = bench.cache.get(SERVICE, "ns", "geo")
    assert cached is not None
    assert cached["metadata"]["deletionTimestamp"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ForbiddenError("exceeded quota: compute"), "Forbidden"),
        (InvalidError("spec.ports[0].port: Invalid value: 0"), "Invalid"),
        (InternalError("failed calling webhook"), "Other"),
    ],
)
def test_a_refusal_becomes_data_and_does_not_stop_its_siblings(error: KubeError, code: str) -> None:
    bench = Bench()
    bench.server.fail("apply", "Service", error)
    result = bench.write(create(bench.child()), create(bench.child("geo-cfg", kind="ConfigMap")))
    assert [(f.kind, f.code, f.message) for f in result.failures] == [("Service", code, error.message)]
    assert (CONFIG_MAP, "ns", "geo-cfg") in bench.server.objects


def test_after_a_refusal_nothing_is_deleted() -> None:
    bench = Bench()
    old = bench.existing("old")
    bench.server.fail("apply", "Service", ForbiddenError("exceeded quota"))
    result = bench.write(create(bench.child("new")), delete(old))
    assert result.writes == 0
    assert (SERVICE, "ns", "old") in bench.server.objects


def test_an_unavailable_server_is_an_error_to_retry_not_a_refusal() -> None:
    bench = Bench()
    bench.server.fail("apply", "Service", UnavailableError("503"))
    with pytest.raises(UnavailableError):
        bench.write(create(bench.child()))


def test_a_status_replaces_what_we_said_before_and_leaves_the_spec_alone() -> None:
    bench = Bench()
    asyncio.run(bench.executor.write_status(bench.agent, {"replicas": 1, "url": "http://x"}))
    asyncio.run(bench.executor.write_status(bench.agent, {"replicas": 2}))
    live = bench.server.objects[AGENT, "ns", "geo"]
    assert live["status"] == {"replicas": 2}
    assert live["spec"] == {"replicas": 1}
    assert live["metadata"]["generation"] == 1
    cached = bench.cache.get(AGENT, "ns", "geo")
    assert cached is not None
    assert cached["status"] == {"replicas": 2}


def test_the_status_of_a_recreated_agent_is_not_overwritten() -> None:
    bench = Bench()
    bench.server.drop(AGENT, "ns", "geo")
    bench.server.add(agent_object())
    assert not asyncio.run(bench.executor.write_status(bench.agent, {"replicas": 1}))
    assert "status" not in bench.server.objects[AGENT, "ns", "geo"]


def test_writes_are_counted_by_verb_and_kind() -> None:
    bench = Bench()
    bench.write(create(bench.child()))
    sample = {"verb": "apply", "kind": "Service"}
    assert bench.metrics.registry.get_sample_value("agentoperator_writes_total", sample) == 1
