"""Builds the controller-runtime peer, once per content of its sources.

Layer: tooling. The one idea: the folder in the user's cache is named by a hash of everything that goes
into the binary, so a binary that exists is right. The Go toolchain is the one the local cluster is built
with; the templates of the children are read at run time and are no part of the hash.

`python -m bench.peers.build` prints the path of the binary.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from local_cluster.components import find_go
from local_cluster.console import Progress, say
from local_cluster.errors import ClusterError
from local_cluster.paths import Paths

MODULE = Path(__file__).with_name("controller_runtime")
FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", "-s -w")


def binary() -> Path:
    """Path of the built peer; the first call builds it (about 90 s on 2 cores from nothing)."""
    toolchain = Paths.from_environment().cache
    toolchain.mkdir(parents=True, exist_ok=True)
    go, version = find_go(toolchain)
    target = toolchain.parent / "peers" / content_hash(version) / "peer"
    if not target.exists():
        _build(go, version, target)
    return target


def content_hash(go_version: str) -> str:
    """A name for what the binary is made from: sources, pinned modules, flags and compiler."""
    digest = hashlib.sha256(f"{go_version} {FLAGS}".encode())
    for file in sorted([*MODULE.glob("go.*"), *MODULE.glob("*.go")]):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _build(go: Path, version: str, target: Path) -> None:
    say(f"building the controller-runtime peer with {version} (about 90 s on 2 cores from nothing)")
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}")  # two builds at once do not meet
    progress, built, lines = Progress(), 0, list[str]()
    process = subprocess.Popen(
        ["nice", go, "build", "-v", *FLAGS, "-o", partial, "."],
        cwd=MODULE, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        for line in process.stdout:
            lines.append(line.rstrip())
            built += " " not in line  # a package's name; anything else is a download or a complaint
            progress.show(f"{lines[-1][:100]} ({built} packages, {progress.elapsed})")
    except BaseException:
        process.kill()
        raise
    if process.wait():
        partial.unlink(missing_ok=True)
        raise ClusterError("go build failed:\n  " + "\n  ".join(lines[-15:]))
    partial.rename(target)
    progress.done(f"built {target} in {progress.elapsed}")


if __name__ == "__main__":
    print(binary())
