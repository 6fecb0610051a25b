"""The embedded cluster's pure parts: no root, no cluster."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from local_cluster import (
    certs,
    components,
    dns,
    images,
    lifecycle,
    metrics_server,
    network,
    preflight,
    processes,
    providers,
)
from local_cluster.errors import ClusterError, UnsuitableMachineError
from local_cluster.paths import CHECKOUT, Paths

SAVED = """*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:DOCKER - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A PREROUTING -j DOCKER
-A POSTROUTING -s 10.244.0.0/24 -m comment --comment agent-operator-cluster -j MASQUERADE
-A KUBE-SERVICES -j RETURN
COMMIT
*filter
:FORWARD ACCEPT [0:0]
:KUBE-OF-A-STRANGER - [0:0]
-A FORWARD -j KUBE-OF-A-STRANGER
COMMIT
"""


def paths_in(folder: Path) -> Paths:
    return Paths(folder / "state", folder / "cache", folder / "kubeconfig")


def test_only_rules_and_chains_of_the_cluster_are_removed() -> None:
    script = network.removal_script(network.parse_rules(SAVED), ["filter/KUBE-OF-A-STRANGER"])

    assert script.splitlines() == [
        "*nat",
        "-D PREROUTING -j KUBE-SERVICES",
        "-D POSTROUTING -s 10.244.0.0/24 -m comment --comment agent-operator-cluster -j MASQUERADE",
        "-F KUBE-SERVICES",
        "-X KUBE-SERVICES",
        "COMMIT",
    ]


def test_a_packet_filter_without_our_rules_needs_no_change() -> None:
    strangers = SAVED.replace("KUBE-SERVICES", "OTHER").replace("agent-operator-cluster", "other")

    assert network.removal_script(network.parse_rules(strangers), ["filter/KUBE-OF-A-STRANGER"]) == ""


def test_a_listening_socket_is_read_from_the_kernels_table() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n"
        "   1: 00000000:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1\n"
        "   2: 0100007F:1389 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 4713 1\n"
    )

    assert preflight.parse_listeners(table) == [
        preflight.Listener("127.0.0.1", 5000, 4711),
        preflight.Listener("*", 53, 4712),
    ]


def test_a_recycled_pid_is_not_taken_for_ours(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    paths.run.mkdir(parents=True)
    record = {"pid": os.getpid(), "started": processes.start_time(os.getpid())}
    (paths.run / "etcd.pid").write_text(json.dumps(record))
    (paths.run / "kubelet.pid").write_text(json.dumps({**record, "started": "1"}))
    (paths.run / "kube-proxy.pid").write_text("{torn")

    assert processes.running_pid(paths, "etcd") == os.getpid()
    assert processes.running_pid(paths, "kubelet") is None
    assert processes.running_pid(paths, "kube-proxy") is None


def test_a_component_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    paths.run.mkdir(parents=True)
    part = processes.Component("etcd", ["sh", "-c", "echo no space left; exit 1"], lambda: False)

    processes.start(paths, part)

    with pytest.raises(ClusterError, match=r"etcd ended(.|\n)*no space left"):
        processes.wait_ready(paths, part)


def test_a_process_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    paths.run.mkdir(parents=True)
    part = processes.Component(
        "stubborn", ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], lambda: True
    )
    processes.start(paths, part)
    pid = processes.running_pid(paths, "stubborn")
    assert pid in processes.marked(paths)

    processes.stop(paths, "stubborn", patience=0.3)

    processes.end(processes.marked(paths), patience=0.0)
    assert processes.start_time(pid) is None if pid else False
    assert not processes.marked(paths)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.6 linux/amd64", (1, 26, 6)),
        ("go 1.26.6", (1, 26, 6)),
        ("go version go1.27 linux/arm64", (1, 27, 0)),
        ("command not found", (0,)),
    ],
)
def test_go_versions_are_read_from_the_compiler_and_from_go_mod(text: str, version: tuple[int, ...]) -> None:
    assert components.parse_go_version(text) == version


def test_binaries_are_rebuilt_when_a_source_changes_and_not_when_a_test_does(tmp_path: Path) -> None:
    (tmp_path / "cmd" / "x").mkdir(parents=True)
    (tmp_path / "go.mod").write_text("module x\n")
    source, test = tmp_path / "cmd" / "x" / "main.go", tmp_path / "cmd" / "x" / "main_test.go"
    source.write_text("package main\n")
    first = components.content_hash(tmp_path, "go1.26.6")

    test.write_text("package main\n")
    assert components.content_hash(tmp_path, "go1.26.6") == first
    source.write_text("package main // changed\n")
    assert components.content_hash(tmp_path, "go1.26.6") != first


def test_the_binaries_say_the_versions_that_go_mod_pins() -> None:
    gomod = (components.MODULE / "go.mod").read_text()
    kubernetes = components.required_version("k8s.io/kubernetes", gomod)

    flags = components.linker_flags(gomod)

    assert f"k8s.io/component-base/version.gitVersion={kubernetes}" in flags
    assert f"version={components.required_version('helm.sh/helm/v4', gomod)}" in flags


def test_a_module_that_go_mod_lacks_is_named() -> None:
    with pytest.raises(ClusterError, match=r"example\.org/missing"):
        components.required_version("example.org/missing", "module x\n")


def test_an_addon_is_pinned_in_a_module_of_its_own_and_changes_no_other_binary() -> None:
    module = components.ADDONS / metrics_server.NAME

    version = components.required_version(metrics_server.PACKAGE, (module / "go.mod").read_text())

    assert version.startswith("v")
    assert f"{metrics_server.PACKAGE} {version} h1:" in (module / "go.sum").read_text()
    assert not module.is_relative_to(components.MODULE)
    assert f'"{metrics_server.PACKAGE}/cmd/{metrics_server.NAME}"' in (module / "tools.go").read_text()


def test_metrics_server_is_a_part_of_the_cluster_from_when_it_is_added(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    paths.state.mkdir()
    assert metrics_server.NAME not in [part.name for part in lifecycle.table(paths)]

    paths.metrics_server.symlink_to(tmp_path / "binary")

    assert lifecycle.table(paths)[-1].name == metrics_server.NAME
    bare = replace(paths, with_node=False)
    assert metrics_server.NAME not in [part.name for part in lifecycle.table(bare)]


def test_the_api_server_and_metrics_server_trust_each_other_by_certificates(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    certs.create(paths.pki)
    (paths.run).mkdir()

    metrics_server.write_configuration(paths)

    own, ca = paths.pki / "metrics-server.crt", paths.pki / "ca.crt"
    registered = metrics_server.api_service(paths.pki)["spec"]
    name = f"{registered['service']['name']}.{registered['service']['namespace']}.svc"
    verify = ["openssl", "verify", "-CAfile", str(ca), "-purpose", "sslserver", "-verify_hostname", name]
    done = subprocess.run([*verify, str(own)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert base64.b64decode(registered["caBundle"]) == ca.read_bytes()
    before = own.read_bytes()
    metrics_server.write_configuration(paths)
    assert own.read_bytes() == before
    arguments = [str(argument) for argument in metrics_server.component(paths).argv]
    assert f"--secure-port={registered['service']['port']}" in arguments
    assert f"--bind-address={metrics_server.service()['spec']['externalName']}" in arguments
    assert f"--kubelet-certificate-authority={ca}" in arguments


def test_an_image_archive_holds_the_binary_under_its_digest(tmp_path: Path) -> None:
    binary = tmp_path / "pause"
    binary.write_bytes(b"\x7fELF")

    archive = images.archive(binary, "localhost/pause:1")

    with tarfile.open(fileobj=io.BytesIO(archive)) as outer:
        files = {name: outer.extractfile(name).read() for name in outer.getnames()}  # type: ignore[union-attr]
    entry = json.loads(files["index.json"])["manifests"][0]
    manifest = json.loads(files[f"blobs/sha256/{entry['digest'][7:]}"])
    layer = files[f"blobs/sha256/{manifest['layers'][0]['digest'][7:]}"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as inner:
        assert inner.extractfile("pause").read() == b"\x7fELF"  # type: ignore[union-attr]
        assert inner.getmember("pause").mode == 0o755
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/pause:1"
    assert images.archive(binary, "localhost/pause:1") == archive


def test_names_outside_the_cluster_are_forwarded_only_where_the_host_can_resolve(tmp_path: Path) -> None:
    resolver = tmp_path / "resolv.conf"

    assert "forward" not in dns.corefile(paths_in(tmp_path), resolver)
    resolver.write_text("nameserver 192.0.2.53\n")
    assert f"forward . {resolver}" in dns.corefile(paths_in(tmp_path), resolver)


@pytest.mark.parametrize(
    ("files", "usable"),
    [
        ({"cgroup.controllers": "cpuset cpu io memory pids"}, True),
        ({"cgroup.controllers": "cpuset io"}, False),
        ({"cpu/cgroup.procs": "", "memory/cgroup.procs": "", "pids/cgroup.procs": ""}, True),
        ({"cpu/cgroup.procs": "", "memory/cgroup.procs": ""}, False),
        ({}, False),
    ],
)
def test_both_kinds_of_cgroups_are_recognised(tmp_path: Path, files: dict[str, str], usable: bool) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)

    assert preflight.cgroups_usable(tmp_path) is usable


def test_another_operating_system_is_refused_with_the_alternatives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")

    with pytest.raises(UnsuitableMachineError, match="CLUSTER=kind"):
        preflight.check_machine(paths_in(tmp_path))


def command(provider: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "local_cluster", "up"],
        cwd=CHECKOUT,
        env={"PATH": str(tmp_path), "HOME": str(tmp_path), "CLUSTER": provider, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_kind_without_docker_is_refused_with_what_to_install(tmp_path: Path) -> None:
    done = command("kind", tmp_path)

    assert done.returncode == 2
    assert "docker, kind, kubectl" in done.stderr


def test_an_existing_cluster_needs_a_kubeconfig_that_exists(tmp_path: Path) -> None:
    unset = command("existing", tmp_path)
    absent = command("existing", tmp_path, KUBECONFIG=str(tmp_path / "absent"))

    assert (unset.returncode, absent.returncode) == (2, 2)
    assert "set it to the kubeconfig" in unset.stderr
    assert str(tmp_path / "absent") in absent.stderr


def test_a_kind_of_cluster_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    done = command("minikube", tmp_path)

    assert done.returncode == 2
    assert all(name in done.stderr for name in providers.PROVIDERS)
