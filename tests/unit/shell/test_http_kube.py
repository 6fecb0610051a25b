"""The HTTP adapter against a scripted server on loopback: what is sent, what is retried, what is raised."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any, Protocol

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client.configuration import Configuration

from agent_operator.observability.metrics import Metrics
from agent_operator.shell.connection import Connection
from agent_operator.shell.http_kube import Fence, FencedError, HttpKube
from agent_operator.shell.kinds import AGENT, EVENT, SERVICE
from agent_operator.shell.kube import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InternalError,
    InvalidError,
    Kube,
    KubeError,
    NotFoundError,
    UnavailableError,
)
from agent_operator.shell.kubeconfig import KubeconfigCredentials

OBJECT = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "ns"}}


class Script:
    """Answers requests from a list, the last one for ever, and remembers what it got."""

    def __init__(self, *answers: tuple[int, Any] | tuple[int, Any, dict[str, str]]) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.headers: list[dict[str, str]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text else None
        self.requests.append((request.method, request.path, dict(request.query), body))
        self.headers.append(dict(request.headers))
        await self.may_answer.wait()
        status, answer, *headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if status == 0:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.json_response(answer, status=status, headers=headers[0] if headers else None)


class Start(Protocol):
    """Serves a script and gives a client of it, with so many connections and a fence of its own."""

    def __call__(
        self, script: Script, fence: Fence | None = None, connections: int = 32
    ) -> Awaitable[HttpKube]: ...


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def start(metrics: Metrics) -> AsyncIterator[Start]:
    opened: list[Any] = []

    async def serve(script: Script, fence: Fence | None = None, connections: int = 32) -> HttpKube:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", script.handle)
        server = TestServer(app)
        await server.start_server()
        configuration: Any = Configuration(host=str(server.make_url("/")))
        configuration.api_key["BearerToken"] = "bearer s3cret"
        connection = Connection(KubeconfigCredentials(configuration), metrics)
        await connection.close()
        connection.session = connection.new_session(connections)
        opened.extend((connection, server))
        return HttpKube(connection, fence=fence, jitter=lambda: 0.0)

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


WRITES: dict[str, Callable[[HttpKube], Coroutine[Any, Any, Any]]] = {
    "create": lambda kube: kube.create(OBJECT),
    "replace": lambda kube: kube.replace(OBJECT),
    "apply": lambda kube: kube.apply(OBJECT),
    "apply a status": lambda kube: kube.apply(OBJECT, subresource="status"),
    "delete": lambda kube: kube.delete(SERVICE, "ns", "web", uid="u1"),
}


def test_no_verb_is_forgotten_here() -> None:
    verbs = {name for name in vars(Kube) if not name.startswith("_")}
    assert {name.split()[0] for name in WRITES} == verbs - {"get", "list", "pages"}


async def test_without_the_lease_nothing_is_written_and_everything_can_be_read(start: Start) -> None:
    script = Script((200, {"metadata": {}, "items": []}))
    kube = await start(script, fence=lambda: 0.0)
    for verb, write in WRITES.items():
        with pytest.raises(FencedError):
            await write(kube)
        assert script.requests == [], verb
    await kube.get(SERVICE, "ns", "web")
    await kube.list(SERVICE)
    assert [method for method, *_ in script.requests] == ["GET", "GET"]


async def test_a_write_is_not_repeated_once_the_lease_is_lost(start: Start) -> None:
    granted = [15.0]
    script = Script((503, {}), (200, OBJECT))
    kube = await start(script, fence=lambda: granted[0])
    call = asyncio.create_task(kube.apply(OBJECT))
    while not script.requests:
        await asyncio.sleep(0)
    granted[0] = 0.0
    with pytest.raises(FencedError):
        await call
    assert len(script.requests) == 1


@pytest.mark.parametrize("verb", WRITES)
async def test_a_write_that_waited_for_a_connection_asks_again_before_its_bytes_leave(
    start: Start, verb: str
) -> None:
    granted = [15.0]
    script = Script((200, OBJECT))
    script.may_answer.clear()
    kube = await start(script, fence=lambda: granted[0], connections=1)
    read = asyncio.create_task(kube.get(SERVICE, "ns", "web"))
    while not script.requests:
        await asyncio.sleep(0)
    write = asyncio.create_task(WRITES[verb](kube))
    await asyncio.sleep(0.05)  # it waits for the only connection now
    granted[0] = 3.0  # as much as was granted, less what the wait took, is too little for what was promised
    script.may_answer.set()
    assert await read == OBJECT
    with pytest.raises(FencedError):
        await write
    granted[0] = 15.0
    await kube.apply(OBJECT)
    assert [method for method, *_ in script.requests] == ["GET", "PATCH"]


async def test_the_server_is_told_how_long_it_may_work_on_a_write(start: Start) -> None:
    script = Script((200, OBJECT))
    for granted, told in ((5.0, "4.000s"), (12.5, "10.000s"), (500.0, "15.000s")):
        kube = await start(script, fence=lambda granted=granted: granted)  # type: ignore[misc]
        await kube.apply(OBJECT)
        assert script.requests[-1][2]["timeout"] == told
        await kube.get(SERVICE, "ns", "web")
        assert "timeout" not in script.requests[-1][2]


async def test_a_write_gives_up_before_somebody_else_may_write(start: Start) -> None:
    script = Script((200, OBJECT))
    script.may_answer.clear()
    kube = await start(script, fence=lambda: 0.25)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(UnavailableError):
        await kube.apply(OBJECT)
    assert loop.time() - began >= 0.2
    assert len(script.requests) == 1
    script.may_answer.set()


async def test_a_write_given_up_is_discarded_wherever_it_is(metrics: Metrics) -> None:
    # A server that accepts and does not read, as when nothing gets through any more.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        configuration: Any = Configuration(host=f"http://127.0.0.1:{listener.getsockname()[1]}")
        connection = Connection(KubeconfigCredentials(configuration), metrics)
        with pytest.raises(UnavailableError):
            await HttpKube(connection, fence=lambda: 0.25).apply(OBJECT)
        await connection.close()
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET


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


@pytest.mark.parametrize(
    "message",
    [
        "failed to create typed patch object (ns/web; /v1, Kind=Service): .spec.portz: unknown",
        "failed to convert new object (ns/web; /v1, Kind=Service) to typed",
    ],
)
async def test_a_field_that_does_not_exist_is_invalid_although_the_server_calls_it_its_own_fault(
    start: Start, message: str
) -> None:
    kube = await start(Script((500, {"kind": "Status", "message": message})))
    with pytest.raises(InvalidError, match="failed to"):
        await kube.apply(OBJECT)
