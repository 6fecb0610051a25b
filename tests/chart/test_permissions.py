"""What the operator may do: as a reviewed snapshot, and as rules that no snapshot may break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart.rendering import Object, Rendered, component

Render = Callable[..., Rendered]
GOLDEN = Path(__file__).parent / "golden"
KEDA = ("keda.sh", "scaledobjects")
ROLES = ("ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding")


def permissions(rendered: Rendered) -> dict[str, Object]:
    """Rules and bindings by kind, namespace and name: all that decides who may do what."""
    return {
        "/".join((kind, item["metadata"].get("namespace", ""), item["metadata"]["name"])): {
            key: item[key] for key in ("rules", "roleRef", "subjects") if key in item
        }
        for kind in ROLES
        for item in rendered.all(kind)
    }


def granted(rendered: Rendered) -> Iterator[tuple[str, str, str, str]]:
    """(role, group, resource, verb) of everything granted to the operator itself."""
    for name, role in permissions(rendered).items():
        others = "-agentdeployments-" in name or name.endswith("-gateway")
        for rule in role.get("rules", []) if not others else []:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    yield from ((name, group, resource, verb) for verb in rule["verbs"])


@pytest.mark.parametrize(
    ("golden", "values"),
    [
        ("cluster.yaml", {}),
        ("namespaced.yaml", {"watchNamespaces": ["team-b", "team-a"], "rbac": {"aggregateUserRoles": False}}),
    ],
)
def test_permissions_are_exactly_the_reviewed_ones(golden: str, values: Object, render: Render) -> None:
    expected = yaml.safe_load((GOLDEN / golden).read_text())

    assert permissions(render(values)) == expected


@pytest.mark.parametrize("values", [{}, {"watchNamespaces": ["team-a"]}])
def test_secrets_wildcards_and_escalation_are_never_granted(values: Object, render: Render) -> None:
    grants = list(granted(render(values)))

    assert grants
    assert not [g for g in grants if "*" in g]
    assert not [g for g in grants if g[2].split("/")[0] == "secrets"]
    assert not [g for g in grants if g[3] in ("escalate", "bind", "impersonate", "deletecollection")]
    assert not [g for g in grants if g[1] == "rbac.authorization.k8s.io"]
    assert not [g for g in grants if g[2] in ("pods/exec", "pods/attach", "serviceaccounts/token")]
    assert {g[3] for g in grants if g[2] == "nodes"} <= {"list"}


def test_pods_are_only_read_and_annotated_and_of_an_agent_only_the_status_is_written(
    defaults: Rendered,
) -> None:
    verbs: dict[str, set[str]] = {}
    for _, _, resource, verb in granted(defaults):
        verbs.setdefault(resource, set()).add(verb)

    assert verbs["pods"] == {"get", "list", "watch", "patch"}
    assert verbs["agentdeployments"] == {"get", "list", "watch"}
    assert verbs["agentdeployments/status"] == {"patch"}
    assert verbs["agentdeployments/finalizers"] == {"update"}


def test_scaled_objects_are_granted_only_where_keda_is_used(defaults: Rendered, everything: Rendered) -> None:
    def verbs(rendered: Rendered) -> list[str]:
        return [verb for _, group, resource, verb in granted(rendered) if (group, resource) == KEDA]

    assert verbs(defaults) == []
    assert verbs(everything) == ["get", "list", "watch", "create", "update", "patch", "delete"]


def test_named_namespaces_get_a_role_each_and_the_cluster_none(render: Render) -> None:
    rendered = render({"watchNamespaces": ["team-a", "team-b"], "rbac": {"aggregateUserRoles": False}})

    assert rendered.all("ClusterRole") + rendered.all("ClusterRoleBinding") == []
    places = {(r["metadata"]["namespace"], r["metadata"]["name"]) for r in rendered.all("Role")}
    assert places == {
        ("team-a", "agent-operator"),
        ("team-b", "agent-operator"),
        ("team-a", "agent-operator-gateway"),
        ("team-b", "agent-operator-gateway"),
        ("agent-operator-system", "agent-operator-gateway-endpoints"),
        ("agent-operator-system", "agent-operator-leader-election"),
    }
    assert rendered.environment()["AGENT_OPERATOR_WATCH_NAMESPACES"] == "team-a,team-b"


def test_the_same_rules_hold_per_namespace_as_for_the_cluster_nodes_aside(
    defaults: Rendered, render: Render
) -> None:
    namespaced = render({"watchNamespaces": ["team-a"]})

    for name in ("agent-operator", "agent-operator-gateway"):
        in_cluster = defaults.one("ClusterRole", name)["rules"]
        in_namespace = namespaced.one("Role", name)
        assert in_namespace["metadata"]["namespace"] == "team-a"
        assert in_namespace["rules"] == [rule for rule in in_cluster if rule["resources"] != ["nodes"]]


def test_the_gateway_reads_endpoints_and_only_the_secrets_it_is_given(render: Render) -> None:
    def rules(names: list[str]) -> list[Object]:
        rendered = render({"gateway": {"apiKeySecretNames": names}})
        found: list[Object] = rendered.one("ClusterRole", "agent-operator-gateway")["rules"]
        return found

    (endpoints,) = rules([])
    assert (endpoints["resources"], endpoints["verbs"]) == (["endpointslices"], ["get", "list", "watch"])
    secret = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    assert rules(["keys", "keys"])[1:] == [secret | {"resourceNames": ["keys"]}]
    assert rules(["*"])[1:] == [secret]


def test_every_binding_names_the_account_the_operator_runs_as(render: Render) -> None:
    rendered = render({"serviceAccount": {"create": False, "name": "given"}, "watchNamespaces": ["team-a"]})

    bindings = rendered.all("RoleBinding") + rendered.all("ClusterRoleBinding")

    subject = {"kind": "ServiceAccount", "name": "given", "namespace": "agent-operator-system"}
    gateways = subject | {"name": "agent-operator-gateway"}
    assert bindings
    for binding in bindings:
        assert binding["subjects"] == [gateways if component(binding) == "gateway" else subject]
    assert rendered.one("Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "given"


def test_the_lease_is_granted_by_the_name_the_operator_is_told(everything: Rendered) -> None:
    role = everything.one("Role", "agents-leader-election")

    named = [rule["resourceNames"] for rule in role["rules"] if "resourceNames" in rule]

    assert named == [[everything.environment()["AGENT_OPERATOR_LEASE_NAME"]]]
    assert role["metadata"]["namespace"] == everything.environment()["AGENT_OPERATOR_LEASE_NAMESPACE"]


def test_no_lease_is_granted_where_none_is_used(render: Render) -> None:
    rendered = render({"replicaCount": 1, "leaderElection": {"enabled": False}})

    assert [role["metadata"]["name"] for role in rendered.all("Role")] == ["agent-operator-gateway-endpoints"]


def test_roles_can_be_left_to_somebody_else(render: Render) -> None:
    assert permissions(render({"rbac": {"create": False, "aggregateUserRoles": False}})) == {}


def test_users_may_edit_and_scale_agents_but_never_write_their_status(defaults: Rendered) -> None:
    view = defaults.one("ClusterRole", "agent-operator-agentdeployments-view")
    edit = defaults.one("ClusterRole", "agent-operator-agentdeployments-edit")

    written = {resource for rule in edit["rules"] for resource in rule["resources"]}

    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in edit["metadata"]["labels"]
    assert {verb for rule in view["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert written == {"agentdeployments", "agentdeployments/scale"}


def test_the_install_check_runs_as_an_account_that_is_bound_to_nothing(everything: Rendered) -> None:
    account = everything.one("Pod")["spec"]["serviceAccountName"]

    subjects = {s["name"] for kind in ROLES for b in everything.all(kind) for s in b.get("subjects", [])}

    assert everything.one("ServiceAccount", account)
    assert account not in subjects
