"""HTTP to the remote: one pool of connections, retries, the circuit breaker. Layer: llm.remote; effects.

The one idea: everything that can go wrong on the way leaves here as a RemoteError, after it was retried if
that could help and after the circuit breaker heard of it; callers see either the answer or one error.

Proxies (HTTP_PROXY, HTTPS_PROXY, NO_PROXY) and certificate bundles (SSL_CERT_FILE, SSL_CERT_DIR) are taken
from the environment; certificates are always verified; redirects are not followed, because they would turn a
POST into a GET and could carry the key elsewhere.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import httpx2

from agent_runtime.contract import FailureCode, RemoteConfig
from agent_runtime.llm.base import GenerationError
from agent_runtime.llm.failures import LoadError, failure
from agent_runtime.llm.remote import breaker
from agent_runtime.llm.remote.breaker import Circuit, Outcome, Ticket
from agent_runtime.llm.remote.errors import Errors, RemoteError
from agent_runtime.llm.remote.mapping import Body, encode_body
from agent_runtime.llm.remote.retry import RetryPolicy, retrying
from agent_runtime.observability import tracing

log = logging.getLogger("agent_runtime.remote")

T = TypeVar("T")

MAX_BODY_BYTES = 16 * 2**20
"""Of an answer that is not streamed; the log-probabilities of a prompt of 100,000 tokens fit."""
MAX_ERROR_BYTES = 64 * 2**10
CONNECT_SECONDS = 10.0
POOL_SECONDS = 10.0
"""Longest wait for a free connection."""
DRAIN_SECONDS = 1.0
"""Longest wait for the end of a body after `[DONE]`, so that the connection can be used again."""
DONE = "[DONE]"

_RETRY = RetryPolicy()
_POLICY = breaker.Policy()


@dataclass(slots=True)
class _Opened:
    """A stream whose first event has arrived."""

    ticket: Ticket
    response: httpx2.Response
    events: AsyncIterator[str]
    first: str


class RemoteClient:
    """Calls one remote. Create it anywhere; use it on one event loop.

    The constructor raises LoadError for a proxy or a certificate bundle that cannot be used.
    """

    def __init__(
        self,
        config: RemoteConfig,
        errors: Errors,
        *,
        api_key: str | None,
        clock: Callable[[], float],
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        retry: RetryPolicy = _RETRY,
        policy: breaker.Policy = _POLICY,
        max_connections: int = 256,
    ) -> None:
        self._errors, self._clock, self._rng, self._sleep = errors, clock, rng, sleep
        self._retry, self._policy = retry, policy
        self._timeout = config.timeout_seconds
        self._circuit = Circuit()
        self._last_failure = ""
        headers = {"User-Agent": "agent-runtime"}
        if api_key is not None:
            headers["Authorization"] = f"Bearer {api_key}"
        # Waits for bytes are bounded below, per event: a server's keep-alive comments are bytes too.
        timeout = httpx2.Timeout(
            None, connect=min(CONNECT_SECONDS, self._timeout), pool=min(POOL_SECONDS, self._timeout)
        )
        limits = httpx2.Limits(
            max_connections=max_connections, max_keepalive_connections=32, keepalive_expiry=30.0
        )
        try:
            self._http = httpx2.AsyncClient(
                base_url=config.base_url, headers=headers, timeout=timeout, limits=limits
            )
        except (OSError, ImportError, ValueError, httpx2.InvalidURL) as error:
            raise bad_environment(error) from None

    @property
    def circuit(self) -> Circuit:
        """The breaker's state now."""
        return self._circuit

    async def aclose(self) -> None:
        """Closes every connection."""
        await self._http.aclose()

    async def fetch(
        self,
        method: str,
        path: str,
        parse: Callable[[bytes], T],
        body: Body | None = None,
        deadline: float | None = None,
    ) -> T:
        """What `parse` makes of the body of a 2xx answer, which must come whole within the time-out; it
        raises RemoteError for garbage. Raises RemoteError."""

        content = self._encoded(body)

        async def once() -> T:
            with (
                self._settled(self._admit()),
                self._translated(lambda: self._errors.no_first_byte(self._timeout)),
            ):
                async with asyncio.timeout(self._timeout):
                    response = await self._send(method, path, content)
                    try:
                        return parse(await self._read(response, MAX_BODY_BYTES))
                    finally:
                        await response.aclose()

        return await self._repeated(once, deadline)

    @asynccontextmanager
    async def stream(
        self, path: str, body: Body, *, deadline: float | None, max_bytes: int
    ) -> AsyncIterator[AsyncIterator[str]]:
        """The data of a POST's server-sent events, up to `[DONE]`, at most `max_bytes` of body.

        Only what fails before the first event is repeated. Leaving the context closes the connection, which
        is how the remote learns that nobody waits any more. Raises RemoteError; one raised inside the context
        counts for the circuit breaker too.
        """
        content = self._encoded(body)
        opened = await self._repeated(lambda: self._open(path, content, max_bytes), deadline)
        try:
            if opened.ticket.probe:  # nobody need wait for the end of a long answer
                self._record(opened.ticket, Outcome.SUCCESS)
            with self._settled(opened.ticket):
                async with aclosing(self._events(opened)) as events:
                    yield events
        finally:
            await opened.response.aclose()

    async def _open(self, path: str, content: bytes | None, max_bytes: int) -> _Opened:
        ticket = self._admit()
        response: httpx2.Response | None = None
        try:
            with self._translated(lambda: self._errors.no_first_byte(self._timeout)):
                async with asyncio.timeout(self._timeout):
                    response = await self._send("POST", path, content, accept="text/event-stream")
                    events = _data(response, self._errors, max_bytes)
                    first = await anext(events, None)
            if first is None:
                raise self._errors.garbage("an empty stream")
        except BaseException as error:
            self._settle(ticket, error)
            if response is not None:
                await response.aclose()
            raise
        return _Opened(ticket, response, events, first)

    async def _events(self, opened: _Opened) -> AsyncGenerator[str, None]:
        yield opened.first
        while True:
            with self._translated(lambda: self._errors.stalled(self._timeout), answering=True):
                async with asyncio.timeout(self._timeout):
                    event = await anext(opened.events, None)
            if event is None:
                return
            yield event

    async def _send(
        self, method: str, path: str, content: bytes | None, accept: str = "application/json"
    ) -> httpx2.Response:
        """The headers of a 2xx answer. Raises RemoteError for any other status."""
        headers = {"Accept": accept} | ({} if content is None else {"Content-Type": "application/json"})
        tracing.inject(headers)
        request = self._http.build_request(method, path, content=content, headers=headers)
        response = await self._http.send(request, stream=True)
        if response.is_success:
            return response
        try:
            said = await self._read(response, MAX_ERROR_BYTES, cut=True)
        finally:
            await response.aclose()
        raise self._errors.status(response.status_code, response.headers, said)

    async def _read(self, response: httpx2.Response, limit: int, *, cut: bool = False) -> bytes:
        """The body. Beyond `limit` bytes it is cut, or garbage."""
        parts = bytearray()
        async with aclosing(response.aiter_bytes()) as chunks:
            async for chunk in chunks:
                parts += chunk
                if len(parts) > limit:
                    if cut:
                        return bytes(parts[:limit])
                    raise self._errors.garbage(f"more than {limit} bytes")
        return bytes(parts)

    def _encoded(self, body: Body | None) -> bytes | None:
        try:
            return None if body is None else encode_body(body)
        except ValueError as error:
            raise self._errors.refused(f"cannot be sent this request: it is not JSON ({error}).") from None

    async def _repeated(self, once: Callable[[], Awaitable[T]], deadline: float | None) -> T:
        def left() -> float:
            return float("inf") if deadline is None else deadline - self._clock()

        return await retrying(once, self._retry, left=left, rng=self._rng, sleep=self._sleep)

    @contextmanager
    def _translated(self, timed_out: Callable[[], RemoteError], *, answering: bool = False) -> Iterator[None]:
        """Turns the errors of httpx2 and of asyncio.timeout into RemoteErrors."""
        try:
            yield
        except TimeoutError:
            raise timed_out() from None
        except httpx2.HTTPError as error:
            raise self._errors.transport(error, answering=answering) from error

    @contextmanager
    def _settled(self, ticket: Ticket) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._settle(ticket, error)
            raise
        self._record(ticket, Outcome.SUCCESS)

    def _admit(self) -> Ticket:
        now = self._clock()
        circuit, ticket = breaker.admit(self._circuit, now)
        self._change(circuit)
        if ticket is None:
            raise self._errors.circuit_open(breaker.retry_after(circuit, now), self._last_failure)
        return ticket

    def _settle(self, ticket: Ticket, error: BaseException) -> None:
        """The call ended with an error. One that was cancelled or ran out of its own time says nothing."""
        if not isinstance(error, RemoteError):
            return self._record(ticket, Outcome.UNKNOWN)
        if error.outcome is Outcome.FAILURE:
            self._last_failure = str(error)
        return self._record(ticket, error.outcome)

    def _record(self, ticket: Ticket, outcome: Outcome) -> None:
        now, jitter = self._clock(), self._rng.random()
        self._change(breaker.record(self._circuit, self._policy, ticket, outcome, now=now, jitter=jitter))

    def _change(self, circuit: Circuit) -> None:
        before, self._circuit = self._circuit.phase, circuit
        if circuit.phase is not before:
            level = logging.INFO if circuit.phase is breaker.Phase.CLOSED else logging.WARNING
            log.log(
                level, f"remote circuit {circuit.phase}",
                extra={"fields": {"was": str(before), "opened": circuit.opened,
                "seconds": round(breaker.retry_after(circuit, self._clock()), 1)
                if circuit.phase is breaker.Phase.OPEN else 0, "last_failure": self._last_failure}},
            )  # fmt: skip


def bad_environment(error: Exception) -> LoadError:
    """Why no client can be made; the settings' values are not shown, a proxy's may hold a password."""
    if isinstance(error, OSError):
        what = f"the certificate bundle cannot be read ({error.strerror or error})"
    elif isinstance(error, ImportError):
        what = "a SOCKS proxy is set, and only HTTP proxies are supported"
    else:
        what = "a proxy's URL is not valid"
    return failure(
        FailureCode.CONFIG_INVALID,
        f"The environment does not allow calling a remote model: {what}.",
        "Correct HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE or SSL_CERT_DIR in spec.template.",
    )


class _Checked(httpx2.AsyncByteStream):
    """A response's body, decompressed, at most `limit` bytes, and UTF-8: httpx2 would replace what is not,
    and the caller would take the replacement for the model's text."""

    def __init__(self, response: httpx2.Response, errors: Errors, limit: int) -> None:
        self._response, self._errors, self._left = response, errors, limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            async with aclosing(self._response.aiter_bytes()) as chunks:
                async for chunk in chunks:
                    decoder.decode(chunk)
                    self._left -= len(chunk)
                    if self._left < 0:
                        raise self._errors.garbage("more data than an answer of this length can be")
                    yield chunk
        except UnicodeDecodeError:
            raise self._errors.garbage("text that is not UTF-8") from None

    async def aclose(self) -> None:
        await self._response.aclose()


async def _data(response: httpx2.Response, errors: Errors, limit: int) -> AsyncGenerator[str, None]:
    """The data of each event up to `[DONE]`."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "text/event-stream":
        raise errors.garbage(f"'{errors.clean(kind)}' instead of a stream of server-sent events")
    body = httpx2.Response(
        200,
        headers={"Content-Type": kind},
        stream=_Checked(response, errors, limit),
        request=response.request,
    )
    # `__aiter__` is a generator function: closing it closes the body at once and not at garbage collection.
    async with aclosing(httpx2.EventSource(body).__aiter__()) as events:  # type: ignore[type-var]
        async for event in events:
            if event.data == DONE:
                with contextlib.suppress(TimeoutError, httpx2.HTTPError, GenerationError):
                    async with asyncio.timeout(DRAIN_SECONDS):
                        async for _ in events:
                            pass
                return
            if event.data:
                yield event.data
