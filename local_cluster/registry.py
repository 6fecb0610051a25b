"""The image registry on loopback: Debian's docker-registry.

Layer: above processes. The one idea: pushing to a registry moves only the layers that changed, and images
have the same names here as in a kind cluster.
"""

from __future__ import annotations

import json
from pathlib import Path

from local_cluster import files
from local_cluster.api import answers
from local_cluster.paths import REGISTRY, Paths
from local_cluster.processes import Component


def write_configuration(paths: Paths) -> None:
    """The registry's configuration; its images survive `down`."""
    configuration = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(paths.registry)}, "delete": {"enabled": True}},
        "http": {"addr": REGISTRY},
    }
    files.write(paths.run / "registry.json", json.dumps(configuration, indent=1))


def registry(paths: Paths) -> Component:
    """The registry. It would otherwise try to report traces to a collector that is not there."""
    argv: list[str | Path] = ["docker-registry", "serve", paths.run / "registry.json"]
    return Component("registry", argv, lambda: answers(f"http://{REGISTRY}/v2/"),
                     environment={"OTEL_TRACES_EXPORTER": "none"})  # fmt: skip
