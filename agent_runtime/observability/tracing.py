"""Spans of requests, generations, tools and agents. Layer: observability; OpenTelemetry only behind `otel`.

The one idea: code that is traced does not know whether anybody looks. Without an exporter in the environment
every span is the one object NO_SPAN, which does nothing, and OpenTelemetry is never imported; with one,
`observability.otel` takes its place. What exports is OpenTelemetry's own environment variables' business:
`OTEL_EXPORTER_OTLP_ENDPOINT` (or `..._TRACES_ENDPOINT`) sends OTLP over HTTP, `OTEL_TRACES_EXPORTER=console`
writes spans as log lines, `none` and `OTEL_SDK_DISABLED=true` turn tracing off.

The W3C `traceparent` of a caller is honoured either way: its ids stand in every log line of the request, and
it goes on to tools and remote models.

Names follow OpenTelemetry's GenAI conventions, which are in development: each stands once, here. Prompts,
answers, arguments and results are never recorded.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

from agent_runtime.observability.logging import trace_ids

log = logging.getLogger("agent_runtime.tracing")

PROVIDER = "agent_runtime"
"""Value of gen_ai.provider.name: the conventions list vendors' APIs only and allow a name of one's own."""

OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
SYSTEM = "gen_ai.system"
"""The name of PROVIDER_NAME before version 1.37 of the conventions; many viewers still read it."""
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_TOP_P = "gen_ai.request.top_p"
REQUEST_TOP_K = "gen_ai.request.top_k"
REQUEST_SEED = "gen_ai.request.seed"
REQUEST_FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty"
REQUEST_PRESENCE_PENALTY = "gen_ai.request.presence_penalty"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
AGENT_NAME = "gen_ai.agent.name"
CONVERSATION_ID = "gen_ai.conversation.id"
TOOL_NAME = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_CALL_ID = "gen_ai.tool.call.id"
ERROR_TYPE = "error.type"
HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
URL_PATH = "url.path"
URL_SCHEME = "url.scheme"
REQUEST_ID = "agent_runtime.request.id"
RUN_ID = "agent_runtime.run.id"

Attribute = str | int | float | bool | tuple[str, ...]
Kind = Literal["server", "client", "internal"]
Operation = Literal["chat", "text_completion", "invoke_agent", "execute_tool", "decide"]


class Span:
    """One timed piece of work; this base class records nothing.

    As a context manager it is the parent of spans begun inside, ends itself, and notes an exception by its
    class. Where the work spans callbacks or an async generator, use `end` instead of `with`.
    """

    __slots__ = ()

    def set(self, attribute: str, value: Attribute) -> None:
        """Notes a fact."""

    def rename(self, name: str) -> None:
        """A better name, once it is known."""

    def fail(self, kind: str) -> None:
        """The work failed; `kind` is an error code or the name of an exception class."""

    def end(self) -> None:
        """The work is over. Further calls change nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


NO_SPAN = Span()


class Tracer(Protocol):
    """What makes spans when somebody looks."""

    def span(
        self,
        name: str,
        kind: Kind,
        attributes: Mapping[str, Attribute],
        parent: Mapping[str, str] | None = None,
    ) -> Span:
        """A span begun now, below the current one, or below the caller's `traceparent` in `parent`."""
        ...

    def inject(self, headers: MutableMapping[str, str]) -> None:
        """Adds the current span's `traceparent` and `tracestate`."""
        ...

    def shutdown(self) -> None:
        """Sends what is left."""
        ...


SHUTDOWN_SECONDS = 3.0

_tracer: Tracer | None = None


@dataclass(frozen=True, slots=True)
class Incoming:
    """A caller's trace context, as its headers said it."""

    traceparent: str
    tracestate: str
    trace_id: str
    span_id: str


_incoming: ContextVar[Incoming | None] = ContextVar("incoming_trace", default=None)

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
MAX_TRACESTATE = 512


def parse_traceparent(traceparent: str, tracestate: str = "") -> Incoming | None:
    """The context in a W3C `traceparent` header; None when it is not a valid one (W3C Trace Context, 3.2).

    OpenTelemetry's propagator does the same, but is there only with the extra.
    """
    found = _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None:
        return None
    version, trace_id, span_id, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    state = tracestate if len(tracestate) <= MAX_TRACESTATE and tracestate.isprintable() else ""
    return Incoming(traceparent.strip(), state, trace_id, span_id)


def wanted(environment: Mapping[str, str]) -> Literal["otlp", "console"] | None:
    """Which exporter the environment asks for."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if exporter == "console":
        return "console"
    if exporter == "otlp" or (not exporter and any(environment.get(name, "").strip() for name in endpoints)):
        return "otlp"
    return None


def configure(resource: Mapping[str, str], environment: Mapping[str, str] | None = None) -> bool:
    """Starts tracing when the environment asks for it; whether it does.

    `resource` are OpenTelemetry resource attributes of this process (`service.name` and so on). A missing
    extra is a warning, not the end: the runtime serves without traces.
    """
    exporter = wanted(os.environ if environment is None else environment)
    if exporter is None:
        return False
    try:
        from agent_runtime.observability import otel
    except ImportError as missing:
        log.warning(
            "traces were asked for (OTEL_*) but cannot be made: %s. Install the extra `otel`: "
            "pip install 'agent-operator[otel]'.", missing,
        )  # fmt: skip
        return False
    use(otel.tracer(exporter, resource))
    log.info("tracing", extra={"fields": {"exporter": exporter}})
    return True


def use(tracer: Tracer | None) -> None:
    """Makes every span from now on with this tracer; with none again when None."""
    global _tracer  # noqa: PLW0603 - like logging, tracing is one per process
    _tracer = tracer


def enabled() -> bool:
    """Whether spans are recorded."""
    return _tracer is not None


def shutdown() -> None:
    """Sends what is left and stops; blocks for SHUTDOWN_SECONDS at most, also when the collector hangs."""
    tracer = _tracer
    if tracer is None:
        return
    use(None)
    sending = threading.Thread(target=tracer.shutdown, name="last-spans", daemon=True)
    sending.start()
    sending.join(SHUTDOWN_SECONDS)


@contextmanager
def received(traceparent: str, tracestate: str = "") -> Iterator[None]:
    """Inside, log lines carry the ids of the caller's trace and `inject` passes it on."""
    found = parse_traceparent(traceparent, tracestate)
    if found is None:
        yield
        return
    ids, incoming = trace_ids.set((found.trace_id, found.span_id)), _incoming.set(found)
    try:
        yield
    finally:
        _incoming.reset(incoming)
        trace_ids.reset(ids)


def inject(headers: MutableMapping[str, str]) -> None:
    """Adds the trace context to the headers of a request to somebody else."""
    if _tracer is not None:
        _tracer.inject(headers)
    elif (incoming := _incoming.get()) is not None:
        headers["traceparent"] = incoming.traceparent
        if incoming.tracestate:
            headers["tracestate"] = incoming.tracestate


def http_request(method: str, path: str, scheme: str, headers: Mapping[str, str]) -> Span:
    """The span of an HTTP request being answered; it continues the trace in the caller's headers."""
    if _tracer is None:
        return NO_SPAN
    facts: dict[str, Attribute] = {HTTP_METHOD: method, URL_PATH: path, URL_SCHEME: scheme}
    return _tracer.span(method, "server", facts, headers)


def answered(span: Span, method: str, route: str | None, status: int | None) -> None:
    """How the HTTP request ended. `route` is the path template; `status` None is a client that left."""
    if span is NO_SPAN:
        return
    if route is not None:
        span.rename(f"{method} {route}")
        span.set(HTTP_ROUTE, route)
    if status is None:
        span.fail("client_disconnected")
        return
    span.set(HTTP_STATUS, status)
    if status >= 500:
        span.fail(str(status))


class HasSampling(Protocol):
    """What a generation's span tells of llm.base.Sampling."""

    @property
    def max_tokens(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def top_p(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def seed(self) -> int | None: ...
    @property
    def presence_penalty(self) -> float: ...
    @property
    def frequency_penalty(self) -> float: ...


def generation(operation: Operation, model: str, sampling: HasSampling, *, remote: bool = False) -> Span:
    """The span of one generation; `remote` when another process generates."""
    if _tracer is None:
        return NO_SPAN
    facts: dict[str, Attribute] = {
        **_operation(operation),
        REQUEST_MODEL: model,
        REQUEST_MAX_TOKENS: sampling.max_tokens,
        REQUEST_TEMPERATURE: sampling.temperature,
        REQUEST_TOP_P: sampling.top_p,
    }
    if sampling.top_k:
        facts[REQUEST_TOP_K] = sampling.top_k
    if sampling.seed is not None:
        facts[REQUEST_SEED] = sampling.seed
    if sampling.presence_penalty:
        facts[REQUEST_PRESENCE_PENALTY] = sampling.presence_penalty
    if sampling.frequency_penalty:
        facts[REQUEST_FREQUENCY_PENALTY] = sampling.frequency_penalty
    return _tracer.span(f"{operation} {model}", "client" if remote else "internal", facts)


def generated(
    span: Span,
    *,
    model: str,
    finish_reason: str,
    input_tokens: int,
    output_tokens: int,
    first_chunk: float | None,
) -> None:
    """What a generation came to; `first_chunk` is the seconds until its first piece."""
    if span is NO_SPAN:
        return
    span.set(RESPONSE_MODEL, model)
    span.set(RESPONSE_FINISH_REASONS, (finish_reason,))
    span.set(USAGE_INPUT_TOKENS, input_tokens)
    span.set(USAGE_OUTPUT_TOKENS, output_tokens)
    if first_chunk is not None:
        span.set(RESPONSE_TIME_TO_FIRST_CHUNK, first_chunk)


def execute_tool(name: str, call_id: str | None = None, kind: str = "function") -> Span:
    """The span of one tool execution."""
    if _tracer is None:
        return NO_SPAN
    facts: dict[str, Attribute] = {**_operation("execute_tool"), TOOL_NAME: name, TOOL_TYPE: kind}
    if call_id is not None:
        facts[TOOL_CALL_ID] = call_id
    return _tracer.span(f"execute_tool {name}", "internal", facts)


def invoke_agent(name: str, model: str, run_id: str, conversation_id: str | None = None) -> Span:
    """The span of one agent run."""
    if _tracer is None:
        return NO_SPAN
    facts: dict[str, Attribute] = {
        **_operation("invoke_agent"), AGENT_NAME: name, REQUEST_MODEL: model, RUN_ID: run_id,
    }  # fmt: skip
    if conversation_id is not None:
        facts[CONVERSATION_ID] = conversation_id
    return _tracer.span(f"invoke_agent {name}", "internal", facts)


def _operation(name: Operation) -> dict[str, Attribute]:
    return {OPERATION_NAME: name, PROVIDER_NAME: PROVIDER, SYSTEM: PROVIDER}
