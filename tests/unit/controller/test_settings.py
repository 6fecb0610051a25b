"""Settings: every problem in one message that says where, what and what is allowed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agent_operator.program_settings import SettingsError, flag_of
from agent_operator.settings import PREFIX, Settings, load_settings

IMAGE = {"AGENT_OPERATOR_RUNTIME_IMAGE": "registry/runtime:1"}


def test_only_the_runtime_image_must_be_given() -> None:
    settings = load_settings([], IMAGE)
    assert settings.runtime_image == "registry/runtime:1"
    assert settings.watch_namespaces == ()
    assert settings.leader_elect is True
    assert (settings.lease_seconds, settings.renew_seconds, settings.retry_seconds) == (15, 10, 2)
    assert (settings.http_port, settings.workers) == (8080, 16)


def test_flags_win_over_variables() -> None:
    environment = IMAGE | {"AGENT_OPERATOR_WORKERS": "3", "AGENT_OPERATOR_LOG_LEVEL": "debug"}
    settings = load_settings(["--workers", "5"], environment)
    assert (settings.workers, settings.log_level) == (5, "debug")


@pytest.mark.parametrize(("text", "names"), [("", ()), ("a", ("a",)), (" a, b-c ,", ("a", "b-c"))])
def test_namespaces_are_separated_by_commas(text: str, names: tuple[str, ...]) -> None:
    assert load_settings([], IMAGE | {"AGENT_OPERATOR_WATCH_NAMESPACES": text}).watch_namespaces == names


@pytest.mark.parametrize(
    ("arguments", "elects"),
    [
        ([], True),
        (["--leader-elect"], True),
        (["--leader-elect=false"], False),
        (["--leader-elect=true"], True),
    ],
)
def test_a_switch_may_stand_alone_or_have_a_value(arguments: list[str], elects: bool) -> None:
    assert load_settings(arguments, IMAGE).leader_elect is elects


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("WORKERS", "0", "greater than or equal to 1"),
        ("WORKERS", "many", "valid integer"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("HTTP_PORT", "70000", "less than or equal to 65535"),
        ("WATCH_NAMESPACES", "Not_A_Name", "pattern"),
        ("LEASE_NAME", "no spaces", "pattern"),
        ("LEADER_ELECT", "perhaps", "valid boolean"),
        ("RESYNC_SECONDS", "1", "greater than or equal to 10"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(variable: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings([], IMAGE | {PREFIX + variable: value})
    message = str(caught.value)
    assert PREFIX + variable in message
    assert value in message
    assert says in message


def test_a_wrong_flag_is_named_as_flag() -> None:
    with pytest.raises(SettingsError, match="--workers="):
        load_settings(["--workers=0"], IMAGE)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings([], {"AGENT_OPERATOR_WORKERS": "0", "AGENT_OPERATOR_HTTP_PORT": "x"})
    for name in ("RUNTIME_IMAGE", "WORKERS", "HTTP_PORT"):
        assert PREFIX + name in str(caught.value)


def test_timing_that_could_make_two_leaders_is_refused_before_the_start() -> None:
    with pytest.raises(SettingsError, match="lease_seconds"):
        load_settings(["--renew-seconds=20"], IMAGE)


def test_variables_kubernetes_sets_for_a_service_of_our_name_are_ignored() -> None:
    injected = {"AGENT_OPERATOR_SERVICE_HOST": "10.96.0.9", "AGENT_OPERATOR_PORT": "tcp://10.96.0.9:80"}
    assert load_settings([], IMAGE | injected) == load_settings([], IMAGE)


def test_every_setting_is_described_and_has_a_flag_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        load_settings(["--help"], {})
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for name, info in Settings.model_fields.items():
        assert info.description
        assert flag_of(name) in text


def test_the_process_ends_with_two_and_only_the_message() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "agent_operator", "--workers=0"],
        capture_output=True, text=True, check=False, env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("invalid settings:\n")
    assert "Traceback" not in ended.stderr


def test_keda_is_off_until_asked_for_and_then_needs_a_prometheus() -> None:
    assert load_settings([], IMAGE).keda_enabled is False
    with pytest.raises(SettingsError, match="AGENT_OPERATOR_KEDA_PROMETHEUS_ADDRESS is not set"):
        load_settings(["--keda-enabled"], IMAGE)
    with pytest.raises(SettingsError, match="KEDA_PROMETHEUS_ADDRESS"):
        load_settings([], IMAGE | {"AGENT_OPERATOR_KEDA_PROMETHEUS_ADDRESS": "prometheus:9090"})

    settings = load_settings(["--keda-enabled", "--keda-prometheus-address=http://p:9090/prefix"], IMAGE)

    assert settings.keda_prometheus_address == "http://p:9090/prefix"
