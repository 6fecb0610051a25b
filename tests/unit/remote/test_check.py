"""The check before serving: a wrong address, key or model name is found at the start, with its remedy."""

from __future__ import annotations

import logging

import pytest

from agent_runtime.contract import FailureCode, TerminationReport
from agent_runtime.llm.failures import LoadError
from tests.unit.remote.conftest import KEY, Connect
from tests.unit.remote.standin import Handler, Script, StandIn, refusal, silence, status


def models(*names: str) -> Handler:
    """The list of models as OpenAI's API gives it."""
    return status(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


async def report(connect: Connect, **settings: object) -> TerminationReport:
    """Why the check failed."""
    with pytest.raises(LoadError) as caught:
        await connect(**settings).check()
    assert caught.value.report.remedy
    assert KEY not in str(caught.value)
    return caught.value.report


async def test_a_remote_with_the_model_passes_and_was_asked_with_the_key(
    connect: Connect, remote: Script
) -> None:
    remote.on("/v1/models", models("small", "big"))

    await connect().check()

    assert (remote.seen[0].method, remote.seen[0].headers["authorization"]) == ("GET", f"Bearer {KEY}")


async def test_a_model_the_remote_does_not_have_is_named_with_those_it_has(
    connect: Connect, remote: Script
) -> None:
    remote.on("/v1/models", models(*(f"m{number}" for number in range(12))))

    found = await report(connect)

    assert found.code is FailureCode.MODEL_NOT_FOUND
    assert "no model 'big'; it has 'm0', 'm1'" in found.message
    assert "'m9' and 2 more" in found.message


async def test_a_name_the_remote_answers_for_without_listing_it_passes(
    connect: Connect, remote: Script
) -> None:
    remote.on("/v1/models", models("org/big:latest"))
    remote.on("/v1/models/org/big", status(200, {"id": "org/big:latest"}))

    await connect(model="org/big").check()


@pytest.mark.parametrize("code", [404, 405, 501])
async def test_a_server_that_lists_no_models_passes(connect: Connect, remote: Script, code: int) -> None:
    remote.on("/v1/models", status(code, b""))

    await connect().check()


async def test_a_busy_remote_is_there(connect: Connect, remote: Script) -> None:
    remote.on("/v1/models", status(429, b"", Retry_After="60"))

    await connect().check()


async def test_a_list_of_another_shape_says_nothing(connect: Connect, remote: Script) -> None:
    for body in ({"models": ["x"]}, ["big"], {"data": None}):
        remote.on("/v1/models", status(200, body))

        await connect().check()


@pytest.mark.parametrize("code", [401, 403])
async def test_a_denied_key_is_access_denied(connect: Connect, remote: Script, code: int) -> None:
    remote.on("/v1/models", refusal(f"Incorrect API key provided: {KEY}", code))

    found = await report(connect)

    assert found.code is FailureCode.MODEL_ACCESS_DENIED
    assert "spec.model.remote.apiKeySecretRef" in found.remedy


@pytest.mark.parametrize(
    "answer",
    [status(500, b"down"), status(200, b"<html>Sign in</html>"), status(302, b"", Location="/login")],
)
async def test_a_remote_that_is_no_api_is_unreachable(
    connect: Connect, remote: Script, server: StandIn, answer: Handler
) -> None:
    remote.on("/v1/models", answer)

    found = await report(connect)

    assert found.code is FailureCode.REMOTE_UNREACHABLE
    assert f"{server.base_url}/models" in found.message


async def test_a_silent_remote_is_unreachable(connect: Connect, remote: Script) -> None:
    remote.on("/v1/models", silence)

    assert (await report(connect, timeout_seconds=0.2)).code is FailureCode.REMOTE_UNREACHABLE


async def test_a_remote_that_is_not_there_is_unreachable(connect: Connect) -> None:
    found = await report(connect, base_url="http://no-such-host.invalid/v1")

    assert found.code is FailureCode.REMOTE_UNREACHABLE
    assert "host name cannot be resolved" in found.message


async def test_a_key_over_plain_http_is_warned_of(
    connect: Connect, remote: Script, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    remote.on("/v1/models", models("big"))

    await connect().check()

    assert "the API key is sent unencrypted" in caplog.messages
