"""What the tests of the embedded cluster share: running its command, and pods that check from inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from local_cluster.paths import CHECKOUT, Paths

PATHS = Paths.from_environment()
PROBE = "localhost/probe:1"
Answer = TypeVar("Answer")


def local_cluster(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does, from the checkout."""
    return subprocess.run(
        [sys.executable, "-m", "local_cluster", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )


def up() -> str:
    """Bring the cluster up and return what was printed."""
    done = local_cluster("up")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def down() -> str:
    """Take the cluster down and return what was printed."""
    done = local_cluster("down")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _kubectl(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(PATHS.bin / "kubectl"), "--kubeconfig", str(PATHS.kubeconfig), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=180)


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    """Run kubectl as the administrator and return its output."""
    done = _kubectl(*arguments, stdin=stdin)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def attempt(*arguments: str) -> str:
    """What kubectl prints, or "" if it fails: for `wait_for`."""
    done = _kubectl(*arguments)
    return done.stdout if done.returncode == 0 else ""


def apply(*objects: dict[str, Any]) -> None:
    """Create or change objects."""
    kubectl(
        "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    )


def wait_for(question: Callable[[], Answer], what: str, seconds: float = 60.0) -> Answer:
    """Ask until the answer is truthy, and return it."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.3)
    return answer


def namespace(name: str) -> dict[str, Any]:
    """A namespace that admits only restricted pods."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod_spec(*args: str, gpus: int = 0, **more: Any) -> dict[str, Any]:
    """A restricted pod that runs the probe with these arguments."""
    container = {
        "name": "probe",
        "image": PROBE,
        "args": list(args),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"limits": {"nvidia.com/gpu": str(gpus)}} if gpus else {},
        **more.pop("container", {}),
    }
    return {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        **more,
    }


def pod(name: str, *args: str, namespace: str, gpus: int = 0, **more: Any) -> dict[str, Any]:
    """A pod around `pod_spec`, labelled with its name."""
    metadata = {"name": name, "namespace": namespace, "labels": {"app": name}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": pod_spec(*args, gpus=gpus, **more),
    }


def deployment(pod: dict[str, Any]) -> dict[str, Any]:
    """A Deployment of one such pod."""
    metadata = pod["metadata"]
    template = {"metadata": {"labels": metadata["labels"]}, "spec": pod["spec"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
        "spec": {"replicas": 1, "selector": {"matchLabels": metadata["labels"]}, "template": template},
    }


def service(name: str, *, namespace: str) -> dict[str, Any]:
    """A Service in front of the pods labelled with its name."""
    spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
