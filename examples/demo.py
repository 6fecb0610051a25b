"""The demo: one manifest applied, a real agent answers. Each step is a subcommand that tests use too.

Layer: tooling; standard library only (it runs before any virtual environment exists). It does nothing
a user could not type: helm, kubectl, and one pod that sends a request through the Service.

    python3 examples/demo.py run        install, apply, wait, show, ask
    python3 examples/demo.py install    helm upgrade --install of the chart with the images just built
    python3 examples/demo.py ask "..."  one question through the Service, from a pod in the cluster
    python3 examples/demo.py down       delete the agent and the operator
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SYSTEM = "agent-operator-system"
RELEASE = "agent-operator"
CRD = "agentdeployments.agentoperator.dev"
MANIFEST = ROOT / "examples" / "geography.yaml"
AGENT = "geography"
QUESTION = "What is the capital of France?"
EXAMPLE_REGISTRY = "127.0.0.1:5000"

CLIENT = """
import json, sys, time, urllib.request
body = json.dumps({"model": sys.argv[2], "messages": [{"role": "user", "content": sys.argv[3]}]}).encode()
url, headers = sys.argv[1] + "/v1/chat/completions", {"Content-Type": "application/json"}
request = urllib.request.Request(url, body, headers)
begin = time.monotonic()
with urllib.request.urlopen(request, timeout=60) as response:
    answer = json.load(response)
milliseconds = (time.monotonic() - begin) * 1000
print(json.dumps({"content": answer["choices"][0]["message"]["content"], "usage": answer["usage"],
                  "milliseconds": round(milliseconds, 1)}))
"""


class DemoError(Exception):
    """A step failed; the message tells which command and what it printed."""


def environment() -> dict[str, str]:
    """The caller's environment with the cluster's kubeconfig, unless KUBECONFIG names another."""
    return {"KUBECONFIG": str(ROOT / ".local" / "kubeconfig"), **os.environ}


def call(*command: str, stdin: str | None = None) -> str:
    """Standard output of the command; DemoError with its stderr when it fails."""
    done = subprocess.run(
        command, input=stdin, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DemoError(f"{' '.join(command[:6])} failed:\n{done.stderr or done.stdout}")
    return done.stdout


@contextmanager
def step(what: str) -> Iterator[None]:
    """Prints what is being done and how long it took."""
    print(f"==> {what}", flush=True)
    begin = time.monotonic()
    yield
    print(f"    done in {time.monotonic() - begin:.1f}s", flush=True)


def images() -> dict[str, str]:
    """Image references by name, as images/build.py wrote them."""
    path = ROOT / ".local" / "images.json"
    if not path.exists():
        raise DemoError("no images built yet: run `make images model` first")
    return dict(json.loads(path.read_text()))


def split(reference: str) -> tuple[str, str, str]:
    """Registry, repository and tag of `registry/repository:tag`."""
    registry, rest = reference.split("/", 1)
    repository, tag = rest.rsplit(":", 1)
    return registry, repository, tag


def install() -> None:
    """Installs or upgrades the chart with the images just built, and waits for the operator."""
    values: list[str] = []
    for prefix, name in (("image", "operator"), ("runtimeImage", "runtime")):
        registry, repository, tag = split(images()[name])
        for key, value in (("registry", registry), ("repository", repository), ("tag", tag)):
            values += ["--set-string", f"{prefix}.{key}={value}"]
    call(
        "helm", "upgrade", "--install", RELEASE, "charts/agent-operator", "--namespace", SYSTEM,
        "--create-namespace", "--wait", "--timeout", "3m", "--force-conflicts", *adoption(), *values,
    )  # fmt: skip


def adoption() -> list[str]:
    """What lets Helm take over a CRD that was applied by hand: without it the installation is refused.

    A CRD of another release is left to that release, whose name Helm's refusal says. Conflicts are forced at
    every installation: fields that kubectl applied once stay kubectl's, and an upgrade would stop at them.
    """
    listed = call("kubectl", "get", "crd", CRD, "--ignore-not-found", "-o", "json")
    if not listed.strip():
        return []
    if "meta.helm.sh/release-name" in json.loads(listed)["metadata"].get("annotations", {}):
        return []
    print(f"    {CRD} was applied by hand: this release takes it over", flush=True)
    return ["--take-ownership"]


def apply() -> None:
    """Applies the example; only the model's registry is rewritten, and only if it is not the default."""
    text = MANIFEST.read_text()
    registry, repository, _ = split(images()["geography"])
    if registry == EXAMPLE_REGISTRY:
        call("kubectl", "apply", "-f", str(MANIFEST))
        return
    example = f"oci://{EXAMPLE_REGISTRY}/{repository}:v1"
    call("kubectl", "apply", "-f", "-", stdin=text.replace(example, f"oci://{registry}/{repository}:v1"))


def wait_ready(namespace: str, agent: str, timeout: float = 600) -> float:
    """Waits for Ready=True, printing the reason whenever it changes; returns seconds waited."""
    begin = time.monotonic()
    last = shown = ""
    while time.monotonic() - begin < timeout:
        text = call("kubectl", "-n", namespace, "get", "agentdeployment", agent, "-o", "json")
        status = json.loads(text).get("status", {})
        ready: dict[str, Any] = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
        last = f"{ready.get('reason', 'Pending')}: {ready.get('message', 'not seen by the operator yet')}"
        if last != shown:
            print(f"    {time.monotonic() - begin:5.1f}s  {last[:160]}", flush=True)
            shown = last
        if ready.get("status") == "True":
            return time.monotonic() - begin
        time.sleep(0.5)
    raise DemoError(
        f"{agent} was not Ready within {timeout:.0f}s; last: {last}\nSee: kubectl describe agd {agent}"
    )


def client_pod(name: str, arguments: list[str]) -> dict[str, Any]:
    """A pod that meets the restricted Pod Security Standard and runs CLIENT once."""
    container = {
        "name": "client",
        "image": images()["operator"],
        "command": ["python", "-c", CLIENT, *arguments],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        },
    }


def ask(namespace: str, agent: str, question: str) -> dict[str, Any]:
    """The agent's answer, token usage and latency in milliseconds, asked from a pod through the Service."""
    status = json.loads(call("kubectl", "-n", namespace, "get", "agentdeployment", agent, "-o", "json"))[
        "status"
    ]
    pod = f"ask-{agent}-{uuid.uuid4().hex[:5]}"[-63:]
    kubectl = ("kubectl", "-n", namespace)
    manifest = json.dumps(client_pod(pod, [status["url"], agent, question]))
    call(*kubectl, "apply", "-f", "-", stdin=manifest)
    try:
        call(
            *kubectl, "wait", f"pod/{pod}", "--timeout=90s",
            "--for=jsonpath={.status.containerStatuses[0].state.terminated.reason}",
        )  # fmt: skip
        printed = call(*kubectl, "logs", pod).strip()
    finally:
        call(*kubectl, "delete", "pod", pod, "--wait=false")
    try:
        return dict(json.loads(printed.splitlines()[-1]))
    except (ValueError, IndexError) as error:
        raise DemoError(f"the question got no answer; the client printed:\n{printed}") from error


def run(namespace: str) -> None:
    """The whole demo on a cluster that is up and whose registry holds the images and the model."""
    with step("helm install: the operator"):
        install()
    with step(f"kubectl apply -f {MANIFEST.relative_to(ROOT)}"):
        apply()
    print("==> waiting for the agent", flush=True)
    waited = wait_ready(namespace, AGENT)
    print(f"    Ready after {waited:.1f}s", flush=True)
    print("\n$ kubectl get agents\n" + call("kubectl", "-n", namespace, "get", "agents"))
    answer = ask(namespace, AGENT, QUESTION)
    print(f"Q: {QUESTION}\nA: {answer['content']}")
    print(
        f"   {answer['milliseconds']} ms through the Service, {answer['usage']['completion_tokens']} tokens"
    )
    print(f"""
Where to look next
  export KUBECONFIG={environment()["KUBECONFIG"]}
  export PATH="{ROOT}/.local/bin:$PATH"                 # kubectl and helm of this cluster
  kubectl describe agd {AGENT}                          # conditions, events
  kubectl logs -l agentoperator.dev/agent={AGENT}       # the runtime's JSON log
  kubectl -n {SYSTEM} logs deploy/{RELEASE}             # the operator's
  python3 examples/demo.py ask "What is the capital of Japan?"
  make demo-down                                        # remove everything""")


def down(namespace: str) -> None:
    """Deletes the demo's agent, then the operator. The CRD stays, as Helm's keep policy says."""
    call("kubectl", "-n", namespace, "delete", "-f", str(MANIFEST), "--ignore-not-found", "--wait=true")
    call("helm", "uninstall", RELEASE, "--namespace", SYSTEM, "--ignore-not-found", "--wait")


def main() -> int:
    parser = argparse.ArgumentParser(prog="examples/demo.py", description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("run", "install", "ask", "down"))
    parser.add_argument("question", nargs="?", default=QUESTION)
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--agent", default=AGENT)
    options = parser.parse_intermixed_args()
    try:
        if options.step == "install":
            install()
        elif options.step == "ask":
            answer = ask(options.namespace, options.agent, options.question)
            print(answer["content"])
            print(f"{answer['milliseconds']} ms", file=sys.stderr)
        elif options.step == "down":
            down(options.namespace)
        else:
            run(options.namespace)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
