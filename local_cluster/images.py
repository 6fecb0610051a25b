"""Packs one static binary as an image and gives it to containerd.

Layer: above network. The one idea: an OCI image of one file is three small JSON documents and a tar, so no
image builder is needed before the cluster can start.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import time
from pathlib import Path
from typing import Any

from local_cluster.network import command
from local_cluster.node import PAUSE_IMAGE
from local_cluster.paths import Paths
from local_cluster.preflight import architecture

PROBE_IMAGE = "localhost/probe:1"
NOBODY = "65532:65532"


def archive(binary: Path, image: str) -> bytes:
    """An OCI archive of an image that holds one binary and runs it; the same input gives the same bytes."""
    layer = _tar({binary.name: binary.read_bytes()}, mode=0o755)
    config = _json({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": [f"/{binary.name}"], "User": NOBODY},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    })  # fmt: skip
    manifest = _json({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    })  # fmt: skip
    entry = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    entry["annotations"] = {"io.containerd.image.name": image}
    files = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "manifests": [entry]}),
    }
    blobs = {f"blobs/sha256/{_digest(blob)[7:]}": blob for blob in (layer, config, manifest)}
    return _tar(files | blobs, mode=0o644)


def _tar(files: dict[str, bytes], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _json(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def import_all(paths: Paths) -> None:
    """Give containerd the image every pod starts with, and the one the cluster is checked with."""
    present = ctr(paths, "images", "ls", "-q").split()
    for binary, image in (("pause", PAUSE_IMAGE), ("probe", PROBE_IMAGE)):
        content = archive(paths.bin / binary, image)
        marker = f"{image.rsplit(':', 1)[0]}:{hashlib.sha256(content).hexdigest()[:12]}"
        if marker in present and image in present:
            continue
        file = paths.run / f"{binary}.tar"
        file.write_bytes(content)
        ctr(paths, "images", "import", str(file))
        ctr(paths, "images", "tag", "--force", image, marker)
        file.unlink()


def ctr(paths: Paths, *arguments: str) -> str:
    """Run containerd's own command in the namespace of Kubernetes."""
    return command(
        str(paths.bin / "ctr"), "--address", str(paths.containerd_socket), "-n", "k8s.io", *arguments
    )


def remove_containers(paths: Paths, patience: float = 20.0) -> None:
    """Kill and forget every container; their images stay."""
    deadline = time.monotonic() + patience
    tasks = ctr(paths, "tasks", "ls", "-q").split()
    if tasks:
        ctr(paths, "tasks", "delete", "--force", *tasks)
    while containers := ctr(paths, "containers", "ls", "-q").split():
        ctr(paths, "containers", "delete", *containers)
        if time.monotonic() > deadline:
            break
