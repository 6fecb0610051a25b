"""Newest wins, whatever order news arrives in."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent_operator.controller.cache import Cache
from agent_operator.shell.kinds import CONFIG_MAP, POD, SERVICE
from agent_operator.shell.snapshots import index_values, trim


def service(version: int, *, uid: str = "u1", name: str = "web", owner: str = "") -> dict[str, Any]:
    reference = {"apiVersion": "agentoperator.dev/v1alpha1", "kind": "AgentDeployment", "controller": True}
    owners = [{**reference, "name": "geo", "uid": owner}] if owner else []
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(version),
            "ownerReferences": owners,
        },
    }  # fmt: skip


def version_in(cache: Cache, name: str = "web") -> str | None:
    known = cache.get(SERVICE, "ns", name)
    return known["metadata"]["resourceVersion"] if known else None


@given(st.permutations([11, 12, 13, 14]))
def test_whatever_the_order_of_arrival_the_newest_state_stays(order: list[int]) -> None:
    cache = Cache()
    for version in order:
        cache.put(service(version))
    assert version_in(cache) == "14"


def test_resource_versions_are_compared_as_numbers_not_as_text() -> None:
    cache = Cache()
    cache.put(service(10))
    cache.put(service(9))
    assert version_in(cache) == "10"
    cache.put(service(100))
    assert version_in(cache) == "100"


def test_a_newer_version_is_news_only_with_another_content() -> None:
    cache = Cache()
    assert cache.put(service(10))
    assert not cache.put(service(11))
    assert version_in(cache) == "11"
    assert cache.put(service(12, owner="u9"))


def test_what_an_autoscaler_or_a_deployment_tells_for_others_is_no_news() -> None:
    cache = Cache(trim=trim)
    able = {"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale", "message": "ok"}
    meta = {"name": "geo", "namespace": "ns", "uid": "u"}

    def hpa(version: int, load: int, **changed: str) -> dict[str, Any]:
        status = {"currentMetrics": [{"load": load}], "conditions": [{**able, **changed}]}
        versioned = {**meta, "resourceVersion": str(version)}
        return {
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": versioned, "status": status,
        }  # fmt: skip

    assert cache.put(hpa(1, 10))
    assert not cache.put(hpa(2, 90))
    assert cache.put(hpa(3, 90, status="False"))

    def deployment(version: int, ready: int, time: str) -> dict[str, Any]:
        condition = {"type": "Progressing", "status": "True", "lastUpdateTime": time}
        versioned = {**meta, "resourceVersion": str(version)}
        return {
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": versioned, "status": {"readyReplicas": ready, "conditions": [condition]},
        }  # fmt: skip

    assert cache.put(deployment(4, 0, "10:00"))
    assert not cache.put(deployment(5, 0, "10:01"))
    assert cache.put(deployment(6, 1, "10:01"))


def test_the_echo_of_our_own_write_is_not_news() -> None:
    cache = Cache()
    assert cache.put(service(20), live=True)
    assert not cache.put(service(20))


def test_an_old_event_does_not_resurrect_what_was_seen_deleted() -> None:
    cache = Cache()
    cache.put(service(10))
    assert cache.observe_deleted(service(12))
    assert not cache.put(service(11))
    assert version_in(cache) is None


def test_what_we_deleted_stays_gone_although_its_last_events_still_arrive() -> None:
    cache = Cache()
    cache.put(service(10))
    assert cache.remove(SERVICE, "ns", "web", uid="u1")
    assert not cache.put(service(11))
    assert not cache.observe_deleted(service(12))
    assert version_in(cache) is None


def test_the_deletion_of_an_earlier_incarnation_does_not_remove_the_present_one() -> None:
    cache = Cache()
    cache.put(service(10, uid="old"))
    cache.put(service(20, uid="new"), live=True)
    assert not cache.observe_deleted(service(15, uid="old"))
    assert not cache.put(service(14, uid="old"))
    assert version_in(cache) == "20"


def test_an_object_that_left_the_selector_and_was_labelled_again_comes_back() -> None:
    cache = Cache()
    cache.put(service(10))
    cache.observe_deleted(service(11))  # its label was removed: the watch says DELETED
    assert cache.put(service(11), live=True)  # but it exists, we just read it
    cache.put(service(12))
    assert version_in(cache) == "12"


def test_a_late_deletion_event_does_not_remove_a_newer_state_that_is_known_to_exist() -> None:
    cache = Cache()
    cache.put(service(15), live=True)
    assert not cache.observe_deleted(service(11))
    assert version_in(cache) == "15"


def test_the_index_follows_the_owner() -> None:
    cache = Cache(index_values=index_values)
    cache.put(service(10, owner="agent-1"))
    assert [o["metadata"]["name"] for o in cache.indexed(("owner", "agent-1"))] == ["web"]
    cache.put(service(11, owner="agent-2"))
    assert cache.indexed(("owner", "agent-1")) == []
    assert len(cache.indexed(("owner", "agent-2"))) == 1
    cache.observe_deleted(service(12, owner="agent-2"))
    assert cache.indexed(("owner", "agent-2")) == []


def test_a_list_drops_ghosts_but_not_what_is_younger_than_itself() -> None:
    cache = Cache()
    cache.put(service(10, uid="kept", name="kept"))
    cache.put(service(11, uid="ghost", name="ghost"))
    cache.put(service(31, uid="young", name="young"))
    other = service(5, uid="other-kind")
    cache.put({**other, "kind": "ConfigMap"})
    dropped = cache.drop_unlisted(SERVICE, {"kept"}, "30")
    assert [obj["metadata"]["name"] for obj in dropped] == ["ghost"]
    assert version_in(cache, "kept") == "10"
    assert version_in(cache, "ghost") is None
    assert version_in(cache, "young") == "31"
    assert cache.count(CONFIG_MAP) == 1


def test_a_list_of_one_namespace_leaves_the_others_alone() -> None:
    cache = Cache()
    cache.put(service(10))
    assert cache.drop_unlisted(SERVICE, set(), "30", "another") == []
    assert version_in(cache) == "10"


def test_bulk_nobody_reads_is_not_kept() -> None:
    pod = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "1", "managedFields": [{"x": 1}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "keep": "me"},
        },
        "spec": {
            "nodeName": "n1", "volumes": [{"name": "big"}],
            "containers": [{"name": "runtime", "image": "i", "env": [{"name": "A"}]}],
        },
        "status": {"phase": "Running"},
    }  # fmt: skip
    cache = Cache(trim=trim)
    cache.put(pod)
    kept = cache.get(POD, "ns", "p")
    assert kept is not None
    assert kept["metadata"] == {
        "name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "1", "annotations": {"keep": "me"},
    }  # fmt: skip
    assert kept["spec"] == {"nodeName": "n1", "containers": [{"name": "runtime", "image": "i"}]}
    assert kept["status"] == {"phase": "Running"}
    assert "managedFields" in pod["metadata"], "the caller's object is left as it was"
