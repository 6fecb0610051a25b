"""A cluster of the user's own: it is asked whether it answers, and never changed.

Layer: above paths. The one idea: the provider that does nothing says clearly what it will not do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from local_cluster.console import say
from local_cluster.errors import UnsuitableMachineError
from local_cluster.paths import Paths


def up(paths: Paths) -> None:
    """Check that the cluster of $KUBECONFIG answers."""
    file = _file()
    kubectl = _kubectl(paths)
    done = subprocess.run(
        [kubectl, "--kubeconfig", file, "--request-timeout=10s", "get", "--raw", "/version"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise UnsuitableMachineError(
            f"the cluster of {file} does not answer: {done.stderr.strip()[-400:]}\n"
            "Mend $KUBECONFIG, or leave CLUSTER unset to get a cluster on this machine."
        )
    say(f"the cluster of {file} answers")


def down(paths: Paths) -> None:
    """Leave the cluster alone."""
    say("CLUSTER=existing: the cluster is yours and stays as it is")


def kubeconfig(paths: Paths) -> None:
    """Print the path of the kubeconfig."""
    say(_file())


def _file() -> str:
    file = os.environ.get("KUBECONFIG", "")
    if not file:
        raise UnsuitableMachineError(
            "CLUSTER=existing needs KUBECONFIG: set it to the kubeconfig of the cluster to use"
        )
    missing = [part for part in file.split(":") if part and not Path(part).exists()]
    if missing:
        raise UnsuitableMachineError(f"KUBECONFIG names {missing[0]}, which does not exist")
    return file


def _kubectl(paths: Paths) -> str:
    own = paths.checkout_bin / "kubectl"
    found = str(own) if own.exists() else shutil.which("kubectl")
    if not found:
        raise UnsuitableMachineError(
            "CLUSTER=existing needs kubectl on PATH (or once: python3 -m local_cluster build)"
        )
    return found
