"""kopf as the watcher, and nothing else. Layer: controller; the only module that imports kopf.

The one idea: kopf knows how to list, watch, reconnect and log in; its handlers here are three lines that
hand raw objects to the informer. It writes nothing: no finalizers, annotations, events or peering, and
no handler that could make it. A list of a kind that follows the informer's own is turned into an empty one
of the same version: the watch goes on from there, and a fleet is not read twice at a start. Why not its
retries, timers and indices: they write to objects or keep a task per object; our queue does neither. The
barrier "all caches are filled before the first reconcile" is the informer's list, taken before kopf starts.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Callable, Hashable
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp

from agent_operator.controller.informer import Informer
from agent_operator.controller.light_kopf import kopf
from agent_operator.shell.kinds import Kind

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

RELOGIN_SECONDS = 5.0
WATCH_SLACK = 8


class _NoDiffBase(kopf.DiffBaseStorage):
    """No memory of how an object was: without it kopf copies every object twice to compare it with that."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return {}

    def store(self, **_: Any) -> None:
        pass


class _NoProgress(kopf.ProgressStorage):
    """No memory of which handlers ran: a watcher has nothing to resume."""

    def fetch(self, **_: Any) -> None:
        pass

    def store(self, **_: Any) -> None:
        pass

    def purge(self, **_: Any) -> None:
        pass

    def touch(self, **_: Any) -> None:
        pass

    def clear(self, *, essence: Any) -> Any:
        return essence


class WatchesStoppedError(Exception):
    """kopf ended although nobody asked it to; the process should start over."""


def make_settings(informer: Informer[Any]) -> kopf.OperatorSettings:
    """kopf configured to read only."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.posting.enabled = False
    # Never used, but kopf strips its default finalizer from objects where another kopf put it.
    settings.persistence.finalizer = "agentoperator.dev/kopf-never-used"
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    settings.process.ultimate_exiting_timeout = None
    settings.queueing.worker_limit = None
    settings.queueing.idle_timeout = 1.0
    settings.queueing.exit_timeout = 1.0
    settings.networking.request_timeout = 60.0
    settings.networking.connect_timeout = 5.0
    settings.watching.chunk_size = 500
    settings.watching.connect_timeout = 5.0
    settings.watching.client_timeout = 600.0
    settings.watching.server_timeout = 540
    for kind in informer.kinds:
        selector = informer.selector_of(kind)
        if selector:
            settings.watching.label_selectors[_selector(kind)] = selector
    return settings


def make_registry(informer: Informer[Any], login: Callable[[], kopf.AiohttpSession]) -> kopf.OperatorRegistry:
    """One login and one event handler per kind."""
    registry = kopf.OperatorRegistry()
    logins = 0

    @kopf.on.login(registry=registry)
    async def log_in(**_: Any) -> kopf.AiohttpSession:
        nonlocal logins
        if logins:
            # kopf asks again whenever the API server answers 401, without a pause of its own.
            await asyncio.sleep(RELOGIN_SECONDS)
        logins += 1
        return login()

    async def on_event(event: Any, **_: Any) -> None:
        if event["type"] == "DELETED":
            informer.observe_deleted(event["object"])
        else:
            informer.observe(event["object"], listed=event["type"] is None)

    for kind in informer.kinds:
        kopf.on.event(
            group=kind.group, version=kind.version, plural=kind.plural,
            id=f"watch-{kind.plural}", registry=registry,
        )(on_event)  # fmt: skip
    return registry


async def watch(
    informer: Informer[K],
    *,
    server: str,
    new_session: Callable[[int, aiohttp.ClientMiddlewareType], aiohttp.ClientSession],
    on_started: Callable[[], None],
) -> None:
    """Watch until cancelled. `new_session` gets the number of connections and a middleware; kopf closes it.

    `on_started` is called once kopf has installed its signal handlers, to put ours back.

    Raises:
        WatchesStoppedError: kopf gave up, for example because a watch was forbidden.
    """
    streams = len(informer.kinds) * max(1, len(informer.namespaces))

    def login() -> kopf.AiohttpSession:
        session = new_session(streams + WATCH_SLACK, _going_on(informer, urlsplit(server).path.rstrip("/")))
        return kopf.AiohttpSession(server=server, aiohttp_session=session)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        tasks = await kopf.spawn_tasks(
            registry=make_registry(informer, login),
            settings=make_settings(informer),
            clusterwide=not informer.namespaces,
            namespaces=list(informer.namespaces),
            identity="agent-operator",
        )
    on_started()
    # Not kopf.run_tasks: in the end it cancels every task of the loop that is younger than its own,
    # which would include requests that release the lease.
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        errors = [task.exception() for task in done if not task.cancelled()]
        raise WatchesStoppedError(f"the watches stopped: {errors[0] if errors else 'cancelled'}")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _going_on(informer: Informer[Any], prefix: str) -> aiohttp.ClientMiddlewareType:
    """Turns a list of what the informer has just listed into an empty one of the same version."""

    async def middleware(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        asked = request.url
        version = None if "watch" in asked.query else informer.take_version(asked.path.removeprefix(prefix))
        if not version:
            return await handler(request)
        nothing = {"fieldSelector": "metadata.name=none"}
        as_of = {"resourceVersion": version, "resourceVersionMatch": "Exact"}
        request.url = asked.update_query(nothing | as_of)
        response = await handler(request)
        if response.status == HTTPStatus.OK:
            return response
        response.release()  # the version is too old already
        request.url = asked
        return await handler(request)

    return middleware


def _selector(kind: Kind) -> Callable[[kopf.Resource], bool]:
    def matches(resource: kopf.Resource) -> bool:
        return (resource.group, resource.plural) == (kind.group, kind.plural)

    return matches
