"""The peers of the operator benchmark: their templates, the comparison, the build's key. No cluster.

Layer: tests. The one idea: a comparison that cannot fail proves nothing, so every kind of difference is
made once and must be found.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent_operator.core.plan import Apply
from agent_operator.core.reconcile import reconcile
from agent_operator.core.snapshot import Defaults, Snapshot
from bench.peers import build, children, equality

UID = "6f1a51a6-3c88-4ff5-9c0b-0a7c5be5a3b1"
ROOT = Path(__file__).resolve().parents[3]


def ours(name: str, namespace: str, replicas: int) -> list[dict[str, Any]]:
    """What our operator applies for the benchmark's agent."""
    agent = children.ours_manifest(name, replicas)
    agent["metadata"] |= {"namespace": namespace, "uid": UID, "generation": 1}
    plan = reconcile(
        Snapshot(agent, (), (), Defaults(children.RUNTIME_IMAGE)), datetime(2026, 5, 1, tzinfo=UTC)
    )
    return [write.object for write in plan.writes if isinstance(write, Apply)]


def peers(name: str, namespace: str, replicas: int) -> list[dict[str, Any]]:
    return children.filled(children.load(), name, namespace, UID, replicas)


def by_name(objects: list[dict[str, Any]], namespace: str) -> equality.Children:
    return {f"{o['kind']} {o['metadata']['name']}": equality.normalised(o, namespace) for o in objects}


def test_the_stored_templates_are_what_our_renderer_makes_now() -> None:
    assert children.load() == children.generate(), "run python -m bench.peers.children"
    assert children.main(["--check"]) == 0


@pytest.mark.parametrize("replicas", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("name", ["a", "a000", "name", "a" * 50])
def test_a_filled_template_is_what_our_operator_applies(name: str, replicas: int) -> None:
    expected = by_name(ours(name, "bench-ours", replicas), "bench-ours")
    found = by_name(peers(name, "bench-go", replicas), "bench-go")
    assert equality.differences(expected, found) == []
    assert list(expected) == list(found)  # applied in the same order


def test_the_owner_is_the_peer_agent_and_its_controller() -> None:
    for child in peers("a", "n", 3):
        (owner,) = child["metadata"]["ownerReferences"]
        assert owner == {
            "apiVersion": "bench.agentoperator.dev/v1",
            "kind": "PeerAgent",
            "name": "a",
            "uid": UID,
            "controller": True,
            "blockOwnerDeletion": True,
        }


def test_only_more_than_one_replica_brings_a_disruption_budget() -> None:
    assert [c["kind"] for c in peers("a", "n", 1)] == ["ConfigMap", "Deployment", "Service"]
    assert [c["kind"] for c in peers("a", "n", 2)][3:] == ["PodDisruptionBudget"]


def test_no_placeholder_and_no_stand_in_survives_filling() -> None:
    written = json.dumps(peers("a", "n", 2))
    assert "${" not in written
    assert "zz-" not in json.dumps(children.load())


def test_the_replicas_become_a_number_and_the_hash_follows_them() -> None:
    one, seven = (peers("a", "n", replicas)[1] for replicas in (1, 7))
    assert (one["spec"]["replicas"], seven["spec"]["replicas"]) == (1, 7)
    hashes = [d["metadata"]["annotations"][children.HASH_ANNOTATION] for d in (one, seven)]
    assert all(re.fullmatch("[0-9a-f]{16}", value) for value in hashes)
    assert hashes[0] != hashes[1]


def test_a_rendering_that_depends_on_the_replicas_in_another_way_is_refused() -> None:
    with pytest.raises(ValueError, match="no template covers both"):
        children._merged({"spec": {"minReadySeconds": 5}}, {"spec": {"minReadySeconds": 9}}, 1, 3)


def test_a_peer_that_loads_the_templates_does_not_load_our_operator() -> None:
    code = "import sys, bench.peers.children as c; c.load(); print('agent_operator' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": f"{ROOT}/operator:{ROOT}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False"


def test_the_crd_has_a_status_of_its_own_and_fits_the_manifest() -> None:
    crd = children.peer_crd()
    (version,) = crd["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    assert crd["metadata"]["name"] == f"{crd['spec']['names']['plural']}.{crd['spec']['group']}"
    manifest = children.peer_manifest("a", 2)
    assert manifest["apiVersion"] == f"{crd['spec']['group']}/{version['name']}"
    assert manifest["kind"] == crd["spec"]["names"]["kind"]
    assert manifest["spec"] == {"replicas": 2}


def live(side: str) -> list[dict[str, Any]]:
    """The children as an API server returns them: with all that it and the controllers add."""
    stored = []
    for number, child in enumerate(peers("same", f"bench-{side}", 2)):
        child["metadata"] |= {
            "uid": f"{side}-{number}",
            "resourceVersion": f"{number}{len(side)}",
            "creationTimestamp": "2026-05-01T00:00:00Z",
            "managedFields": [{"manager": side}],
        }
        child["metadata"]["ownerReferences"][0]["uid"] = side
        if child["kind"] == "Deployment":
            child["metadata"]["generation"] = len(side)
            child["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = str(len(side))
            child["status"] = {"readyReplicas": len(side)}
        if child["kind"] == "Service":
            child["spec"] |= {"clusterIP": f"10.96.0.{len(side)}", "clusterIPs": [f"10.96.0.{len(side)}"]}
        stored.append(child)
    return stored


class Stored:
    """Answers `kubectl get` of one namespace."""

    def __init__(self, side: str, objects: list[dict[str, Any]]) -> None:
        self.namespace, self.objects = f"bench-{side}", objects

    def run(self, *arguments: str) -> str:
        assert arguments == (
            "get",
            ",".join(equality.KINDS),
            "-l",
            "agentoperator.dev/agent=same",
            "-o",
            "json",
        )
        return json.dumps({"items": self.objects})


def test_what_the_api_server_gives_out_is_no_difference() -> None:
    sides = {side: Stored(side, live(side)) for side in ("ours", "naive", "go")}
    equality.assert_equal_output(sides, "same")


def _of(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(o for o in objects if o["kind"] == kind)


Damage = Callable[[list[dict[str, Any]]], object]
DAMAGES: dict[str, Damage] = {
    "ConfigMap .* is missing": lambda o: o.remove(_of(o, "ConfigMap")),
    "Service other should not be there": lambda o: o.append(
        copy.deepcopy(_of(o, "Service")) | {"metadata": {"name": "other"}}
    ),
    r"spec.template.spec.containers\[0\].image is 'another'": lambda o: _of(o, "Deployment")["spec"][
        "template"
    ]["spec"]["containers"][0].update(image="another"),
    "spec.replicas is 5, not 2": lambda o: _of(o, "Deployment")["spec"].update(replicas=5),
    "spec.replicas is '2', not 2": lambda o: _of(o, "Deployment")["spec"].update(replicas="2"),
    "spec.ports is ": lambda o: _of(o, "Service")["spec"]["ports"].append({"port": 81}),
    "spec.sessionAffinity is too much": lambda o: _of(o, "Service")["spec"].update(
        sessionAffinity="ClientIP"
    ),
    "labels.app.kubernetes.io/name is missing": lambda o: _of(o, "Service")["metadata"]["labels"].pop(
        "app.kubernetes.io/name"
    ),
    "applied-hash is missing": lambda o: _of(o, "Service")["metadata"]["annotations"].clear(),
    "pod-template is": lambda o: _of(o, "Deployment")["metadata"]["annotations"].update(
        {children.POD_TEMPLATE_ANNOTATION: "checksum {}"}
    ),
    "data.config.json is": lambda o: _of(o, "ConfigMap")["data"].update({"config.json": "{}"}),
    "ownerReferences is": lambda o: _of(o, "ConfigMap")["metadata"].pop("ownerReferences"),
    r"ownerReferences\[0\].controller is None": lambda o: _of(o, "ConfigMap")["metadata"]["ownerReferences"][
        0
    ].pop("controller"),
}


@pytest.mark.parametrize("complaint", DAMAGES)
def test_every_other_difference_is_found_and_told(complaint: str) -> None:
    damaged = live("go")
    DAMAGES[complaint](damaged)
    sides = {"ours": Stored("ours", live("ours")), "go": Stored("go", damaged)}
    with pytest.raises(AssertionError, match=complaint):
        equality.assert_equal_output(sides, "same")


def test_a_side_that_made_nothing_at_all_is_no_reference() -> None:
    with pytest.raises(AssertionError, match="ours has made no children of same"):
        equality.assert_equal_output({"ours": Stored("ours", []), "go": Stored("go", [])}, "same")


def test_a_changed_source_or_compiler_gives_another_binary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in [*build.MODULE.glob("go.*"), *build.MODULE.glob("*.go")]:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    original = build.content_hash("go1.26.8")
    monkeypatch.setattr(build, "MODULE", tmp_path)
    assert build.content_hash("go1.26.8") == original
    assert build.content_hash("go1.26.9") != original
    with (tmp_path / "reconcile.go").open("a") as source:
        source.write("// changed\n")
    assert build.content_hash("go1.26.8") != original


def test_a_built_peer_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "find_go", lambda cache: (Path("/no/such/go"), "go1.26.8"))
    target = tmp_path / "agent-operator" / "peers" / build.content_hash("go1.26.8") / "peer"
    target.parent.mkdir(parents=True)
    target.touch()
    assert build.binary() == target


def test_the_go_module_pins_what_the_local_cluster_runs() -> None:
    """The peer's client libraries are of the Kubernetes version that it is measured on."""
    peer = (build.MODULE / "go.mod").read_text()
    cluster = (ROOT / "local_cluster" / "components" / "go.mod").read_text()
    (kubelet,) = re.findall(r"^\tk8s.io/kubelet (v\S+)$", cluster, re.MULTILINE)
    for module in ("api", "apimachinery", "client-go"):
        assert re.search(rf"^\tk8s.io/{module} {re.escape(kubelet)}$", peer, re.MULTILINE)
    needed = [re.search(r"^go (\S+)$", text, re.MULTILINE) for text in (peer, cluster)]
    assert needed[0] and needed[1] and needed[0][1] == needed[1][1]
