"""The embedded cluster's node from inside its pods. Needs root and the cluster with both GPUs free."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_cluster import images
from local_cluster.paths import REGISTRY
from tests.cluster.support import PATHS, apply, attempt, kubectl, namespace, pod, service, up, wait_for

pytestmark = pytest.mark.cluster

SPACE = "node-proof"


@pytest.fixture(autouse=True)
def space() -> Iterator[None]:
    """A namespace of its own for each test, restricted, and empty again afterwards."""
    up()
    apply(namespace(SPACE))
    yield
    kubectl("delete", "namespace", SPACE, "--wait=true", "--timeout=90s")


def ready(name: str) -> None:
    kubectl("-n", SPACE, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=90s")


def inside(name: str, *arguments: str) -> str:
    return kubectl("-n", SPACE, "exec", name, "--", "/probe", *arguments).strip()


def allocatable() -> str:
    return kubectl("get", "nodes", "-o", r"jsonpath={.items[0].status.allocatable.nvidia\.com/gpu}")


def test_gpus_are_counted_and_handed_out_one_by_one() -> None:
    apply(*(pod(name, "wait", namespace=SPACE, gpus=1) for name in ("first", "second")))
    ready("first")
    ready("second")
    apply(pod("third", "wait", namespace=SPACE, gpus=1))

    def refusal() -> str:
        conditions = json.loads(kubectl("-n", SPACE, "get", "pod", "third", "-o", "json"))["status"].get(
            "conditions", []
        )
        return next((c.get("message", "") for c in conditions if c["type"] == "PodScheduled"), "")

    assert "Insufficient nvidia.com/gpu" in wait_for(refusal, "the scheduler's answer")
    assert {inside(name, "env", "NVIDIA_VISIBLE_DEVICES") for name in ("first", "second")} == {
        "GPU-0",
        "GPU-1",
    }
    kubectl("-n", SPACE, "delete", "pod", "first")
    ready("third")


def test_a_gpu_can_be_broken_and_mended() -> None:
    assert allocatable() == "2"
    PATHS.unhealthy_gpus.write_text("GPU-1\n")
    try:
        wait_for(lambda: allocatable() == "1", "the broken GPU to be taken out")
    finally:
        PATHS.unhealthy_gpus.unlink()
    wait_for(lambda: allocatable() == "2", "the mended GPU to come back")


def test_pods_reach_each_other_and_themselves_by_service_name() -> None:
    apply(
        pod("server", "serve", ":8080", namespace=SPACE),
        pod("client", "wait", namespace=SPACE),
        service("server", namespace=SPACE),
    )
    ready("server")
    ready("client")

    for caller in ("client", "server"):
        ask = ("-n", SPACE, "exec", caller, "--", "/probe", "get", f"http://server.{SPACE}")
        wait_for(lambda ask=ask: "server gpus" in attempt(*ask), "an answer")
    assert "10.96.0.1" in inside("client", "lookup", "kubernetes.default.svc.cluster.local")


def test_a_changed_config_map_arrives_in_the_running_pod() -> None:
    note = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "note", "namespace": SPACE}}
    reader = pod("reader", "wait", namespace=SPACE)
    reader["spec"]["volumes"] = [{"name": "note", "configMap": {"name": "note"}}]
    reader["spec"]["containers"][0]["volumeMounts"] = [{"name": "note", "mountPath": "/note"}]
    apply({**note, "data": {"text": "first"}}, reader)
    ready("reader")
    assert inside("reader", "cat", "/note/text") == "first"

    apply({**note, "data": {"text": "second"}})

    wait_for(lambda: inside("reader", "cat", "/note/text") == "second", "the change to arrive", seconds=90)


def test_images_come_from_the_local_registry_and_mount_as_volumes(tmp_path: Path) -> None:
    name = f"{REGISTRY}/local-cluster/tool:1"
    tool = tmp_path / "tool"  # another name makes another image: the kubelet remembers where each came from
    shutil.copy(PATHS.bin / "probe", tool)
    archive = tmp_path / "tool.tar"
    archive.write_bytes(images.archive(tool, name))
    images.ctr(PATHS, "images", "import", str(archive))
    images.ctr(PATHS, "images", "push", "--plain-http", name)
    images.ctr(PATHS, "images", "rm", "--sync", name)
    puller = pod("puller", "wait", namespace=SPACE, container={"image": name})
    puller["spec"]["volumes"] = [{"name": "model", "image": {"reference": name}}]
    puller["spec"]["containers"][0]["volumeMounts"] = [{"name": "model", "mountPath": "/model"}]

    apply(puller)
    ready("puller")

    assert kubectl("-n", SPACE, "exec", "puller", "--", "/model/tool", "env", "HOME").strip() == "/"
    pulled = kubectl("-n", SPACE, "get", "events", "-o", "jsonpath={.items[*].message}")
    assert f'Successfully pulled image "{name}"' in pulled


def test_the_audit_log_tells_who_wrote_what() -> None:
    apply(pod("audited", "wait", namespace=SPACE))

    def creation() -> dict[str, object] | None:
        for line in PATHS.audit_log.read_text().splitlines():
            event = json.loads(line)
            target = event.get("objectRef", {})
            if (event["verb"], target.get("namespace"), target.get("name")) == ("create", SPACE, "audited"):
                return dict(event)
        return None

    event = wait_for(creation, "the audit log's entry")
    assert event["user"]["username"] == "local-cluster-admin"  # type: ignore[index]
    assert event["objectRef"]["resource"] == "pods"  # type: ignore[index]
