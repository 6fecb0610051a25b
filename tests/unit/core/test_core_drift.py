"""A child is rewritten exactly when a field of ours differs."""

from __future__ import annotations

from copy import deepcopy
from decimal import Decimal
from typing import Any

import pytest

from agent_operator.core.drift import drifted, fields_hash, parse_quantity, replacement, stamped

SERVICE = {
    "kind": "Service",
    "metadata": {"name": "a", "labels": {"x": "1"}, "ownerReferences": [{"uid": "u", "controller": True}]},
    "spec": {"selector": {"r": "one"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
}
POD = {
    "containers": [
        {
            "name": "runtime",
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1"}},
            "args": ["serve", "--quick"],
            "volumeMounts": [{"name": "m", "mountPath": "/m", "readOnly": False}],
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}],
    "tolerations": [],
}


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("500m", "0.5"),
        ("0.5", "0.5"),
        (1, "1"),
        ("1k", "1000"),
        ("1Ki", "1024"),
        ("1.5Gi", "1610612736"),
        ("2e3", "2000"),
        ("100n", "1E-7"),
        (".5", "0.5"),
    ],
)
def test_a_quantity_is_read_by_value(value: Any, number: str) -> None:
    assert parse_quantity(value) == Decimal(number)


@pytest.mark.parametrize("value", [None, "", "x", "1 Gi", "Gi", True, "1KiB", [], "١"])
def test_what_is_no_quantity_is_none(value: Any) -> None:
    assert parse_quantity(value) is None


def test_what_the_api_server_and_others_add_is_no_drift() -> None:
    live = deepcopy(stamped(SERVICE))
    live["metadata"] |= {"uid": "1", "resourceVersion": "7"}
    live["metadata"]["labels"]["theirs"] = "2"
    live["metadata"]["ownerReferences"].insert(0, {"uid": "other"})
    live["spec"]["clusterIP"] = "10.0.0.1"
    live["spec"]["ports"][0]["protocol"] = "TCP"
    live["spec"]["ports"].insert(0, {"name": "more", "port": 9090})
    assert drifted(stamped(SERVICE), live) is None


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        (lambda s: s["spec"]["selector"].update(r="two"), "spec.selector"),
        (lambda s: s["spec"].pop("selector"), "spec.selector"),
        (lambda s: s["spec"]["ports"][0].update(port=81), "spec.ports[80]"),
        (lambda s: s["spec"]["ports"][0].update(targetPort=8000), "spec.ports[80].targetPort"),
        (lambda s: s["metadata"]["labels"].clear(), "metadata.labels.x"),
        (lambda s: s["metadata"].pop("ownerReferences"), "metadata.ownerReferences"),
        (
            lambda s: s["metadata"]["annotations"].clear(),
            "metadata.annotations.agentoperator.dev/applied-hash",
        ),
        (lambda s: s.update(spec=None), "spec"),
        (lambda s: s.update(spec=[]), "spec"),
    ],
)
def test_an_edited_field_of_ours_is_drift_and_named(edit: Any, path: str) -> None:
    live = deepcopy(stamped(SERVICE))
    edit(live)
    assert drifted(stamped(SERVICE), live) == path


def test_an_entry_added_to_a_selector_is_drift_because_it_selects_other_pods() -> None:
    live = deepcopy(stamped(SERVICE))
    live["spec"]["selector"]["hijacked"] = "yes"

    assert drifted(stamped(SERVICE), live) == "spec.selector"


def test_a_field_no_longer_wanted_is_noticed_by_the_hash() -> None:
    live = stamped({**SERVICE, "spec": {**SERVICE["spec"], "type": "LoadBalancer"}})
    assert drifted(stamped(SERVICE), live) == "metadata.annotations.agentoperator.dev/applied-hash"


@pytest.mark.parametrize(
    "edit",
    [
        lambda p: p["containers"][0]["resources"]["limits"].update({"cpu": "1000m", "memory": "1024Mi"}),
        lambda p: p["containers"][0]["env"].reverse(),
        lambda p: p["containers"].insert(0, {"name": "sidecar"}),
        lambda p: p["containers"][0]["volumeMounts"][0].pop("readOnly"),
        lambda p: p.pop("tolerations"),
    ],
)
def test_another_spelling_of_the_same_pod_is_no_drift(edit: Any) -> None:
    live = deepcopy(POD)
    edit(live)
    assert drifted(POD, live) is None


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        (
            lambda p: p["containers"][0]["resources"]["limits"].update({"cpu": "1001m"}),
            "containers[runtime].resources.limits.cpu",
        ),
        (lambda p: p["containers"][0]["env"].pop(), "containers[runtime].env[B]"),
        (lambda p: p["containers"][0]["args"].reverse(), "containers[runtime].args[0]"),
        (lambda p: p["containers"][0]["args"].append("x"), "containers[runtime].args"),
        (lambda p: p["containers"].clear(), "containers[runtime]"),
        (
            lambda p: p["containers"][0]["volumeMounts"][0].update(readOnly=True),
            "containers[runtime].volumeMounts[/m].readOnly",
        ),
        (
            lambda p: p["volumes"].__setitem__(0, {"name": "tmp", "hostPath": {"path": "/"}}),
            "volumes[tmp].emptyDir",
        ),
    ],
)
def test_another_pod_is_drift(edit: Any, path: str) -> None:
    live = deepcopy(POD)
    edit(live)
    assert drifted(POD, live) == path


def test_the_hash_depends_on_every_field_but_itself() -> None:
    assert fields_hash(stamped(SERVICE)) == fields_hash(SERVICE)
    assert fields_hash({**SERVICE, "spec": {}}) != fields_hash(SERVICE)


def test_a_port_edited_by_hand_is_replaced_because_its_name_collides_with_ours() -> None:
    live = deepcopy(stamped(SERVICE))
    live["metadata"]["resourceVersion"] = "7"
    live["spec"]["ports"] = [{"name": "http", "port": 81}, {"name": "other", "port": 9}]
    live["spec"]["clusterIP"] = "10.0.0.1"
    whole = replacement(stamped(SERVICE), live)
    assert whole is not None
    assert whole["spec"]["ports"] == SERVICE["spec"]["ports"]
    assert whole["spec"]["clusterIP"] == "10.0.0.1"
    assert whole["metadata"]["resourceVersion"] == "7"


def test_a_container_port_edited_by_hand_is_replaced_and_other_containers_stay() -> None:
    ours = {"spec": {"containers": [{"name": "runtime", "ports": [{"name": "http", "containerPort": 8000}]}]}}
    edited = {"name": "runtime", "ports": [{"name": "http", "containerPort": 1}], "stdin": True}
    whole = replacement(ours, {"spec": {"containers": [{"name": "sidecar"}, edited]}})
    assert whole is not None
    kept = {c["name"]: c for c in whole["spec"]["containers"]}
    assert kept["sidecar"] == {"name": "sidecar"}
    assert kept["runtime"] == {**edited, "ports": [{"name": "http", "containerPort": 8000}]}


def test_without_a_collision_nothing_is_replaced() -> None:
    live = deepcopy(stamped(SERVICE))
    live["spec"]["ports"][0]["targetPort"] = 1
    live["spec"]["ports"].append({"name": "other", "port": 9})
    assert replacement(stamped(SERVICE), live) is None
