"""The rendered chart before a real API server: accepted as it is, and its permissions as they work there.

Nothing is installed: objects are sent with --dry-run=server, and the operator's roles are granted to its
account in a namespace of the test's own only.
"""

from __future__ import annotations

import copy
import json
import subprocess
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.chart.rendering import Object, Rendered
from tests.support.kubectl import Kubectl, KubectlError, kubeconfig

Render = Callable[..., Rendered]
AGENT = {
    "apiVersion": "agentoperator.dev/v1alpha1",
    "kind": "AgentDeployment",
    "metadata": {"name": "sample", "annotations": {"agentoperator.dev/paused": "true"}},
    "spec": {"model": {"uri": "hf://example/sample"}},
}
CRD_NAME = "agentdeployments.agentoperator.dev"


def stream(objects: list[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


@pytest.fixture(scope="module")
def namespace() -> Iterator[Kubectl]:
    """A namespace that enforces the restricted Pod Security Standard and warns about it."""
    kubectl = Kubectl(f"chart-{uuid.uuid4().hex[:6]}")
    modes = ("enforce", "warn")
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in modes}
    meta = {"name": kubectl.namespace, "labels": labels}
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    yield kubectl
    kubectl.run("delete", "namespace", kubectl.namespace, "--wait=false")


@pytest.fixture(scope="module")
def agent(namespace: Kubectl, render: Render) -> Iterator[Object]:
    """A paused AgentDeployment; the chart's own CRD serves it where none is installed."""
    crd = None
    if namespace.get("crd", CRD_NAME) is None:
        crd = render().one("CustomResourceDefinition")
        namespace.run("apply", "--server-side", "-f", "-", stdin=json.dumps(crd))
        namespace.run("wait", "--for=condition=Established", f"crd/{CRD_NAME}", "--timeout=60s")
    try:
        namespace.apply(AGENT)
        found = namespace.get("agentdeployment", "sample")
        assert found is not None
        yield found
        namespace.run("delete", "agentdeployment", "sample")
    finally:
        if crd is not None:
            namespace.run("delete", "crd", CRD_NAME, timeout=130)


@pytest.fixture(scope="module")
def as_operator(namespace: Kubectl, agent: Object, render: Render) -> Callable[..., str]:
    """kubectl with exactly the operator's permissions in the namespace."""
    rendered = render({"watchNamespaces": [namespace.namespace], "rbac": {"aggregateUserRoles": False}})
    roles = copy.deepcopy(rendered.all("Role") + rendered.all("RoleBinding"))
    for role in roles:
        for subject in role.get("subjects", []):
            subject["namespace"] = namespace.namespace  # an installed release must not lend its permissions
    namespace.run(
        "apply",
        "-f",
        "-",
        stdin=stream([r for r in roles if r["metadata"]["namespace"] == namespace.namespace]),
    )
    identity = f"system:serviceaccount:{namespace.namespace}:agent-operator"

    def run(*arguments: str, stdin: Object | None = None) -> str:
        text = json.dumps(stdin) if stdin is not None else None
        return namespace.run(*arguments, f"--as={identity}", stdin=text)

    return run


@pytest.mark.parametrize("rendering", ["defaults", "everything"])
def test_the_api_server_accepts_every_object_without_a_warning(
    rendering: str, namespace: Kubectl, request: pytest.FixtureRequest
) -> None:
    rendered: Rendered = request.getfixturevalue(rendering)
    # Here, not where the chart would put them; the monitors are kinds of the Prometheus operator.
    monitors = ("ServiceMonitor", "PodMonitor")
    objects = [copy.deepcopy(item) for item in rendered.objects if item["kind"] not in monitors]
    for item in objects:
        item["metadata"].pop("namespace", None)
    # A pod is refused, even in a dry run, while its account does not exist.
    accounts = stream([item for item in objects if item["kind"] == "ServiceAccount"])
    namespace.run("apply", "--server-side", "-f", "-", stdin=accounts)
    command = ["kubectl", "--kubeconfig", kubeconfig(), "-n", namespace.namespace, "apply", "-f", "-"]
    options = ["--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-o", "name"]

    done = subprocess.run(
        [*command, *options], input=stream(objects), capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(objects)


@pytest.mark.parametrize(
    "child",
    [
        {"apiVersion": "v1", "kind": "ConfigMap", "data": {"config.json": "{}"}},
        {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"name": "http", "port": 80}]}},
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": {"maxUnavailable": 1}},
    ],
    ids=lambda child: str(child["kind"]),
)
def test_the_operator_may_create_own_and_delete_a_child(
    child: Object, agent: Object, as_operator: Callable[..., str]
) -> None:
    owner = {
        "apiVersion": agent["apiVersion"],
        "kind": agent["kind"],
        "name": agent["metadata"]["name"],
        "uid": agent["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    body = {**child, "metadata": {"name": "sample", "ownerReferences": [owner]}}

    as_operator("apply", "--server-side", "--field-manager=agent-operator", "-f", "-", stdin=body)

    assert as_operator("get", child["kind"], "sample", "-o", "name")
    assert as_operator("delete", child["kind"], "sample")


def test_the_operator_may_write_the_status_of_an_agent_and_nothing_else_of_it(
    agent: Object, as_operator: Callable[..., str]
) -> None:
    body = {key: AGENT[key] for key in ("apiVersion", "kind")} | {"metadata": {"name": "sample"}}
    apply = ("apply", "--server-side", "--field-manager=agent-operator", "-f", "-")

    as_operator(*apply, "--subresource=status", stdin={**body, "status": {"observedGeneration": 1}})

    with pytest.raises(KubectlError, match="cannot patch resource"):
        as_operator(*apply, stdin={**body, "spec": {"replicas": 3}})
    with pytest.raises(KubectlError, match="cannot delete resource"):
        as_operator("delete", "agentdeployment", "sample")


def test_the_operator_may_ask_what_the_cluster_said_about_a_pod(as_operator: Callable[..., str]) -> None:
    chosen = "--field-selector=regarding.uid=no-such-pod,type=Warning"

    assert as_operator("get", "events.v1.events.k8s.io", chosen, "-o", "name") == ""


@pytest.mark.parametrize("resource", ["secrets", "roles.rbac.authorization.k8s.io", "nodes", "namespaces"])
def test_the_operator_may_not_even_read(resource: str, as_operator: Callable[..., str]) -> None:
    with pytest.raises(KubectlError, match="cannot list resource"):
        as_operator("get", resource)


def test_the_operator_may_not_look_beyond_its_namespaces(as_operator: Callable[..., str]) -> None:
    with pytest.raises(KubectlError, match="at the cluster scope"):
        as_operator("get", "pods", "--all-namespaces")
