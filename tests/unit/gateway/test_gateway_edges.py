"""Settings and keys."""

from __future__ import annotations

import base64

import pytest

from agent_operator.gateway.keys import FRESH_SECONDS, GRACE_SECONDS, SecretKeys, ring_of
from agent_operator.gateway.settings import load_settings
from agent_operator.program_settings import SettingsError
from agent_operator.shell.kinds import Kind
from agent_operator.shell.kube import Object, UnavailableError
from agent_runtime.api_keys import new_key


def test_flags_win_over_variables_and_an_empty_variable_is_none() -> None:
    settings = load_settings(
        ["--control-port=1234"],
        {
            "AGENT_GATEWAY_CONTROL_PORT": "1",
            "AGENT_GATEWAY_WATCH_NAMESPACES": "a, b",
            "AGENT_GATEWAY_SHARD": "",
        },
    )
    assert settings.control_port == 1234
    assert settings.watch_namespaces == ("a", "b")
    assert settings.shard == ""


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(["--drain-seconds=-1"], {"AGENT_GATEWAY_LOG_LEVEL": "loud"})
    assert "--drain-seconds" in str(error.value)
    assert "AGENT_GATEWAY_LOG_LEVEL" in str(error.value)


async def test_a_secret_is_read_again_after_a_while_and_outlives_an_api_server_that_is_silent() -> None:
    now = 0.0
    reads = 0
    down = False
    entry = base64.b64encode(new_key().entry.encode()).decode()

    async def read(kind: Kind, namespace: str, name: str) -> Object:
        nonlocal reads
        reads += 1
        if down:
            raise UnavailableError("no answer")
        return {"data": {"ann": entry}}

    keys = SecretKeys(read, clock=lambda: now)
    assert keys.cached("team", "keys") is None
    ring = await keys.ring("team", "keys")
    assert ring is not None
    assert keys.cached("team", "keys") is ring
    now = FRESH_SECONDS
    assert keys.cached("team", "keys") is None
    down = True
    assert await keys.ring("team", "keys") is ring
    now = GRACE_SECONDS
    assert await keys.ring("team", "keys") is None
    assert reads == 3


def test_an_entry_that_is_no_text_disturbs_no_other() -> None:
    good = base64.b64encode(new_key().entry.encode()).decode()
    ring = ring_of({"data": {"bad": base64.b64encode(b"\xff\xfe").decode(), "good": good}})
    assert [entry.principal.name for entry in ring.entries] == ["good"]
    assert len(ring.problems) == 1
