"""The HTTP adapter against a scripted server on loopback: what is sent, what is retried, what is raised."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client.configuration import Configuration

from agent_operator.observability.metrics import Metrics
from agent_operator.shell.connection import Connection, NoClusterError, load_configuration
from agent_operator.shell.http_kube import HttpKube
from agent_operator.shell.kinds import AGENT, EVENT, SERVICE
from agent_operator.shell.kube import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InternalError,
    InvalidError,
    KubeError,
    NotFoundError,
    UnavailableError,
)

OBJECT = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "ns"}}


class Script:
    """Answers requests from a list, the last one for ever, and remembers what it got."""

    def __init__(self, *answers: tuple[int, Any] | tuple[int, Any, dict[str, str]]) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.headers: list[dict[str, str]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text else None
        self.requests.append((request.method, request.path, dict(request.query), body))
        self.headers.append(dict(request.headers))
        status, answer, *headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if status == 0:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.json_response(answer, status=status, headers=headers[0] if headers else None)


Start = Callable[[Script], Awaitable[HttpKube]]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def start(metrics: Metrics) -> AsyncIterator[Start]:
    opened: list[Any] = []

    async def serve(script: Script) -> HttpKube:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", script.handle)
        server = TestServer(app)
        await server.start_server()
        configuration: Any = Configuration(host=str(server.make_url("/")))
        configuration.api_key["BearerToken"] = "bearer s3cret"
        connection = Connection(configuration, metrics)
        opened.extend((connection, server))
        return HttpKube(connection, jitter=lambda: 0.0)

    yield serve
    for closable in opened:
        await closable.close()


def status(code: int, reason: str, message: str) -> tuple[int, Any]:
    return code, {"kind": "Status", "code": code, "reason": reason, "message": message}


async def test_apply_is_a_forced_patch_with_our_field_manager(start: Start) -> None:
    script = Script((200, OBJECT))
    kube = await start(script)
    assert await kube.apply(OBJECT) == OBJECT
    query = {"fieldManager": "agent-operator", "force": "true"}
    assert script.requests == [("PATCH", "/api/v1/namespaces/ns/services/web", query, OBJECT)]
    assert script.headers[0]["Content-Type"] == "application/apply-patch+yaml"
    assert script.headers[0]["Authorization"] == "bearer s3cret"


async def test_a_status_goes_to_the_status_subresource_of_the_group(start: Start) -> None:
    script = Script((200, {}))
    kube = await start(script)
    meta = {"name": "geo", "namespace": "ns"}
    await kube.apply(
        {"apiVersion": AGENT.api_version, "kind": AGENT.kind, "metadata": meta}, subresource="status"
    )
    path = "/apis/agentoperator.dev/v1alpha1/namespaces/ns/agentdeployments/geo/status"
    assert script.requests[0][1] == path


async def test_delete_sends_the_uid_as_precondition_and_tells_gone_from_going(start: Start) -> None:
    script = Script((200, {"kind": "Status", "status": "Success"}), (200, OBJECT))
    kube = await start(script)
    assert await kube.delete(SERVICE, "ns", "web", uid="u1") is None
    assert await kube.delete(SERVICE, "ns", "web", uid="u1") == OBJECT
    body = script.requests[0][3]
    assert body["preconditions"] == {"uid": "u1"}
    assert body["propagationPolicy"] == "Background"


async def test_a_list_follows_its_pages_and_completes_the_type_of_items(start: Start) -> None:
    script = Script(
        (
            200,
            {
                "metadata": {"resourceVersion": "7", "continue": "more"},
                "items": [{"metadata": {"name": "a"}}],
            },
        ),
        (200, {"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "b"}}]}),
    )
    kube = await start(script)
    listing = await kube.list(SERVICE, selector="agentoperator.dev/agent")
    assert listing.resource_version == "7"
    assert [(o["kind"], o["metadata"]["name"]) for o in listing.objects] == [
        ("Service", "a"),
        ("Service", "b"),
    ]
    assert script.requests[0][1] == "/api/v1/services"
    assert script.requests[0][2]["labelSelector"] == "agentoperator.dev/agent"
    assert script.requests[1][2]["continue"] == "more"


async def test_a_list_is_chosen_by_fields(start: Start) -> None:
    script = Script((200, {"metadata": {"resourceVersion": "7"}, "items": []}))
    kube = await start(script)
    await kube.list(EVENT, "ns", fields="regarding.uid=u1,type=Warning")
    assert script.requests[0][1] == "/apis/events.k8s.io/v1/namespaces/ns/events"
    assert script.requests[0][2] == {"limit": "500", "fieldSelector": "regarding.uid=u1,type=Warning"}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (status(404, "NotFound", "services 'web' not found"), NotFoundError),
        (status(409, "Conflict", "uid mismatch"), ConflictError),
        (status(409, "AlreadyExists", "exists"), AlreadyExistsError),
        (status(422, "Invalid", "spec.ports: Required"), InvalidError),
        (status(403, "Forbidden", "exceeded quota"), ForbiddenError),
        (status(401, "Unauthorized", "Unauthorized"), ForbiddenError),
        (status(500, "InternalError", "failed calling webhook"), InternalError),
    ],
)
async def test_a_refusal_is_one_typed_error_with_the_servers_message(
    start: Start, answer: tuple[int, Any], error: type[KubeError]
) -> None:
    script = Script(answer)
    kube = await start(script)
    with pytest.raises(error) as caught:
        await kube.apply(OBJECT)
    assert caught.value.message == answer[1]["message"]
    assert caught.value.code == answer[0]
    assert len(script.requests) == 1


async def test_a_busy_server_is_asked_again_and_its_retry_after_is_respected(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def no_sleep(seconds: float) -> None:
        waits.append(seconds)

    # The name in that module, not asyncio's own: other loops of this process sleep too.
    patched = SimpleNamespace(**(vars(asyncio) | {"sleep": no_sleep}))
    monkeypatch.setattr("agent_operator.shell.http_kube.asyncio", patched)
    script = Script((429, {}, {"Retry-After": "3"}), (503, {}), (200, OBJECT))
    kube = await start(script)
    assert await kube.create(OBJECT) == OBJECT
    assert waits == [3.0, 0.2]


async def test_a_broken_connection_is_retried_when_repeating_is_safe(start: Start) -> None:
    script = Script((0, None), (200, OBJECT))
    kube = await start(script)
    assert await kube.get(SERVICE, "ns", "web") == OBJECT


async def test_a_create_whose_answer_was_lost_is_not_repeated(start: Start) -> None:
    script = Script((0, None))
    kube = await start(script)
    with pytest.raises(UnavailableError):
        await kube.create(OBJECT)
    assert len(script.requests) == 1


async def test_requests_are_counted_by_code_method_and_host(start: Start, metrics: Metrics) -> None:
    kube = await start(Script((404, {}), (200, OBJECT)))
    with pytest.raises(NotFoundError):
        await kube.get(SERVICE, "ns", "web")
    await kube.get(SERVICE, "ns", "web")
    samples = {
        (s.labels["code"], s.labels["method"]): s.value
        for family in metrics.registry.collect()
        for s in family.samples
        if s.name == "rest_client_requests_total"
    }
    assert samples == {("404", "GET"): 1, ("200", "GET"): 1}


async def test_without_credentials_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("agent_operator.shell.connection.kube_config.load_kube_config", _no_config)
    with pytest.raises(NoClusterError, match="KUBECONFIG"):
        await load_configuration()


async def _no_config(**_: Any) -> None:
    raise FileNotFoundError("no such file: config")
