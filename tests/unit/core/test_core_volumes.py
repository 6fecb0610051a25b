"""What a runtime sees of disks: secrets as files, and a place for its log."""

from __future__ import annotations

from typing import Any

import pytest

from agent_operator.core import request
from agent_operator.core.children.metadata import Owner
from agent_operator.core.children.pod import pod_template
from agent_operator.core.children.secrets import SecretUse, uses
from agent_operator.core.request import Request

OWNER = Owner("geography", "default", "u")
MODEL = {"uri": "hf://organisation/model"}


def pod(**spec: Any) -> dict[str, Any]:
    """The pod template of a specification that is accepted."""
    asked = request.read({"spec": {"model": MODEL, **spec}})
    assert isinstance(asked, Request), asked
    return pod_template(OWNER, asked.spec, asked.model, "bcdfghjk", "image:1")


def refused(**spec: Any) -> str:
    asked = request.read({"spec": {"model": MODEL, **spec}})
    assert isinstance(asked, request.Refusal), asked
    return asked.message


def volume(template: dict[str, Any], name: str) -> Any:
    return next((v for v in template["spec"]["volumes"] if v["name"] == name), None)


def mounts(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    container = next(c for c in template["spec"]["containers"] if c["name"] == "runtime")
    return {mount["mountPath"]: mount for mount in container["volumeMounts"]}


# Secrets.

EVERY_SECRET: dict[str, Any] = {
    "model": {**MODEL, "tokenSecretRef": {"name": "hub"}},
    "agent": {
        "tools": [
            {"name": "search", "mcpServer": {"url": "http://s"}, "tokenSecretRef": {"name": "search"}},
            {"name": "open", "mcpServer": {"url": "http://o"}},
        ],
        "sessions": {"store": "Redis", "redisUrlSecretRef": {"name": "redis", "key": "url"}},
    },
    "access": {"apiKeysSecretRef": {"name": "keys"}},
}


def test_each_secret_is_a_file_that_the_pods_group_may_read() -> None:
    template = pod(**EVERY_SECRET)
    projected = volume(template, "runtime-secrets")["projected"]
    assert projected["defaultMode"] == 0o440
    assert template["spec"]["securityContext"]["fsGroup"] == 65532
    files = {
        item["path"]: (source["secret"]["name"], item["key"])
        for source in projected["sources"]
        for item in source["secret"]["items"]
    }
    assert files == {
        "model-token": ("hub", "token"),
        "redis-url": ("redis", "url"),
        "tool-search-token": ("search", "token"),
    }
    assert mounts(template)["/var/run/agent-runtime/secrets"]["readOnly"] is True


def test_a_missing_secret_holds_the_pod_back() -> None:
    projected = volume(pod(**EVERY_SECRET), "runtime-secrets")["projected"]
    assert not any(source["secret"].get("optional") for source in projected["sources"])
    assert not volume(pod(**EVERY_SECRET), "runtime-api-keys")["secret"].get("optional")


def test_no_secret_is_an_environment_variable() -> None:
    for container in pod(**EVERY_SECRET)["spec"]["containers"]:
        assert all("valueFrom" not in variable for variable in container["env"])


def test_api_keys_are_mounted_whole_so_that_the_kubelet_keeps_them_up_to_date() -> None:
    template = pod(**EVERY_SECRET)
    assert volume(template, "runtime-api-keys")["secret"] == {"secretName": "keys", "defaultMode": 0o440}
    mount = mounts(template)["/var/run/agent-runtime/api-keys"]
    assert (mount["readOnly"], mount.get("subPath")) == (True, None)


def test_without_secrets_nothing_is_mounted_for_them() -> None:
    assert [v["name"] for v in pod()["spec"]["volumes"]] == ["config", "cache", "tmp"]


def test_a_template_cannot_put_other_files_in_the_place_of_the_secrets() -> None:
    stolen = [
        {"name": "mine", "mountPath": "/var/run/agent-runtime/secrets"},
        {"name": "mine", "mountPath": "/var/run/agent-runtime/api-keys"},
    ]
    template = pod(
        **EVERY_SECRET,
        template={
            "spec": {
                "containers": [{"name": "runtime", "volumeMounts": stolen}],
                "volumes": [{"name": "mine", "emptyDir": {}}],
            }
        },
    )
    assert mounts(template)["/var/run/agent-runtime/secrets"]["name"] == "runtime-secrets"
    assert mounts(template)["/var/run/agent-runtime/api-keys"]["name"] == "runtime-api-keys"


def test_from_a_template_one_can_tell_which_field_asks_for_which_secret() -> None:
    remote = {"baseUrl": "https://x/v1", "model": "y", "apiKeySecretRef": {"name": "llm", "key": "k"}}
    found = uses(pod(**EVERY_SECRET)) + uses(pod(model={"remote": remote}))
    assert set(found) == {
        SecretUse("hub", "token", "spec.model.tokenSecretRef"),
        SecretUse("redis", "url", "spec.agent.sessions.redisUrlSecretRef"),
        SecretUse("search", "token", "tokenSecretRef of tool search in spec.agent.tools"),
        SecretUse("keys", None, "spec.access.apiKeysSecretRef"),
        SecretUse("llm", "k", "spec.model.remote.apiKeySecretRef"),
    }


# The log file.


def logging_to(path: str, *own: dict[str, Any]) -> dict[str, Any]:
    """A specification with a log file and volumes of the user's own, mounted in the runtime."""
    spec: dict[str, Any] = {"runtime": {"logging": {"path": path}}}
    if own:
        container = {"name": "runtime", "volumeMounts": list(own)}
        volumes = [{"name": "mine", "emptyDir": {}}]
        spec["template"] = {"spec": {"containers": [container], "volumes": volumes}}
    return spec


@pytest.mark.parametrize(
    "path", ["/var/log/agent.log", "/var/log/agent/agent.log", "/logs/a.log", "/data/logs/a/b.log"]
)
def test_the_folder_of_a_log_file_becomes_a_volume(path: str) -> None:
    template = pod(**logging_to(path))
    assert volume(template, "runtime-logs") == {"name": "runtime-logs", "emptyDir": {}}
    assert mounts(template)[path.rpartition("/")[0]] == {
        "name": "runtime-logs",
        "mountPath": path.rpartition("/")[0],
    }
    assert template["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("path", ["/tmp/agent.log", "/tmp/logs/a.log", "/var/cache/agent-runtime/a.log"])
def test_a_log_file_on_a_volume_that_is_there_anyway_needs_no_other(path: str) -> None:
    assert volume(pod(**logging_to(path)), "runtime-logs") is None


@pytest.mark.parametrize("place", ["/data", "/data/", "/data/logs"])
def test_a_log_file_may_lie_on_a_volume_of_the_users_own(place: str) -> None:
    template = pod(**logging_to("/data/logs/agent.log", {"name": "mine", "mountPath": place}))
    assert volume(template, "runtime-logs") is None
    assert volume(template, "mine") == {"name": "mine", "emptyDir": {}}


def test_the_innermost_volume_decides_whether_a_log_file_can_be_written() -> None:
    outer = {"name": "mine", "mountPath": "/data", "readOnly": True}
    inner = {"name": "mine", "mountPath": "/data/logs"}
    assert volume(pod(**logging_to("/data/logs/a.log", outer, inner)), "runtime-logs") is None
    assert "/data, which is mounted read-only" in refused(**logging_to("/data/other/a.log", outer, inner))


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/etc/agent/agent.log", "would hide files of the image"),
        ("/app/agent.log", "would hide files of the image"),
        ("/usr/lib/agent.log", "would hide files of the image"),
        ("/var/lib/agent.log", "would hide files of the image"),
        ("/lib64/agent.log", "would hide files of the image"),
        ("/etc/agent-runtime/agent.log", "/etc/agent-runtime, which is mounted read-only"),
    ],
)
def test_a_log_file_where_none_can_be_is_refused_with_a_place_where_one_can(path: str, why: str) -> None:
    message = refused(**logging_to(path))
    assert message.startswith("spec.runtime.logging.path: ")
    assert why in message
    assert "/var/log/agent" in message


def test_a_log_file_beside_the_model_is_refused() -> None:
    oci = {"uri": "oci://registry.example.com/models/geography:v1"}
    assert "read-only" in refused(model=oci, **logging_to("/models/model/a.log"))
    assert "would hide /models/model" in refused(model=oci, **logging_to("/models/a.log"))


def test_a_log_file_beside_the_secrets_is_refused() -> None:
    path = "/var/run/agent-runtime/secrets/a.log"
    assert "read-only" in refused(**{**EVERY_SECRET, **logging_to(path)})
