"""The user's pod template wins, except where the operator could not keep its promises."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from agent_operator.api import AgentDeploymentSpec, parse_model_uri
from agent_operator.core.children.metadata import Owner
from agent_operator.core.children.pod import pod_template
from agent_operator.core.children.template import merge, with_overrides

SPEC = AgentDeploymentSpec.model_validate({"model": {"uri": "pvc://c/m"}, "resources": {"gpu": {"count": 2}}})
OURS = pod_template(Owner("a", "n", "u"), SPEC, parse_model_uri("pvc://c/m"), "bcdfghjk", "image:1")


def overridden(**pod: Any) -> dict[str, Any]:
    before = deepcopy(OURS)
    result = with_overrides(OURS, {"spec": pod})
    assert before == OURS
    return result


def runtime(template: dict[str, Any]) -> dict[str, Any]:
    return next(c for c in template["spec"]["containers"] if c["name"] == "runtime")


def test_no_override_changes_nothing() -> None:
    assert with_overrides(OURS, {}) == OURS


def test_mappings_merge_lists_of_objects_merge_by_key_and_other_lists_are_replaced() -> None:
    base = {"a": {"x": 1, "y": 2}, "env": [{"name": "A", "value": "1"}], "args": ["1"]}
    over = {"a": {"y": 3}, "env": [{"name": "B", "value": "2"}], "args": ["2", "3"]}
    expected = {"a": {"x": 1, "y": 3}, "env": [*base["env"], *over["env"]], "args": ["2", "3"]}
    assert merge(base, over) == expected


def test_null_removes_and_a_patch_directive_deletes_an_entry() -> None:
    base = {"a": 1, "volumes": [{"name": "x"}, {"name": "y"}]}
    assert merge(base, {"a": None, "volumes": [{"name": "x", "$patch": "delete"}]}) == {
        "volumes": [{"name": "y"}]
    }


def test_an_environment_variable_is_replaced_whole() -> None:
    secret = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    assert merge({"env": [secret]}, {"env": [{"name": "A", "value": "1"}]}) == {
        "env": [{"name": "A", "value": "1"}]
    }


def test_scheduling_security_and_further_containers_are_the_users() -> None:
    sidecar = {"name": "sidecar", "image": "s:1"}
    result = overridden(
        nodeSelector={"zone": "a"},
        securityContext={"runAsUser": 1000},
        containers=[sidecar, {"name": "runtime", "securityContext": {"readOnlyRootFilesystem": False}}],
    )["spec"]
    assert result["nodeSelector"] == {"zone": "a"}
    assert result["securityContext"]["runAsUser"] == 1000
    assert result["securityContext"]["runAsNonRoot"] is True
    assert sidecar in result["containers"]
    assert runtime({"spec": result})["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": False,
    }


def test_what_the_operator_relies_on_cannot_be_overridden() -> None:
    result = with_overrides(
        OURS,
        {
            "metadata": {"labels": {"agentoperator.dev/agent": "stolen", "mine": "1"}},
            "spec": {
                "restartPolicy": "Never",
                "volumes": [{"name": "model", "hostPath": {"path": "/"}}],
                "containers": [
                    {
                        "name": "runtime",
                        "image": "other",
                        "ports": [{"name": "http", "containerPort": 8000, "hostPort": 80}],
                        "livenessProbe": {"exec": {"command": ["true"]}},
                        "resources": {"limits": {"nvidia.com/gpu": "8", "cpu": "1"}},
                        "volumeMounts": [{"name": "tmp", "mountPath": "/models/model"}],
                    }
                ],
            },
        },
    )
    assert result["metadata"]["labels"] == {**OURS["metadata"]["labels"], "mine": "1"}
    for field in ("restartPolicy", "volumes"):
        assert result["spec"][field] == OURS["spec"][field]
    for field in ("image", "livenessProbe", "volumeMounts"):
        assert runtime(result)[field] == runtime(OURS)[field]
    assert runtime(result)["resources"]["limits"] == {"nvidia.com/gpu": "2", "cpu": "1"}


def test_tolerations_are_added_to_that_for_the_gpu_and_told_once() -> None:
    mine = {"key": "dedicated", "operator": "Exists"}
    gpu = {"key": "nvidia.com/gpu", "operator": "Exists"}
    assert overridden(tolerations=[mine, gpu])["spec"]["tolerations"] == [gpu, mine]


def test_a_grace_period_can_be_made_longer_but_not_shorter_than_the_drain() -> None:
    ours = OURS["spec"]["terminationGracePeriodSeconds"]
    assert overridden(terminationGracePeriodSeconds=1)["spec"]["terminationGracePeriodSeconds"] == ours
    longer = ours + 1
    assert overridden(terminationGracePeriodSeconds=longer)["spec"]["terminationGracePeriodSeconds"] == longer


def test_the_cache_may_lie_on_a_volume_of_the_user() -> None:
    mount = {"name": "big", "mountPath": "/var/cache/agent-runtime"}
    result = overridden(containers=[{"name": "runtime", "volumeMounts": [mount]}])
    assert mount in runtime(result)["volumeMounts"]


def test_nonsense_does_not_raise() -> None:
    for nonsense in ({"spec": []}, {"spec": {"containers": "x"}}, {"spec": {"containers": [{"name": 1}]}}):
        assert runtime(with_overrides(OURS, nonsense))["image"] == "image:1"
