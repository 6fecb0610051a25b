"""Spans: the right ones, with the conventions' names, to a real collector; and nothing when nobody looks."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent_runtime.llm.base import Sampling
from agent_runtime.observability import otel, tracing
from agent_runtime.observability.logging import JsonFormatter, trace_ids
from agent_runtime.observability.tracing_middleware import TracingMiddleware
from tests.model.training import REPOSITORY
from tests.support.asgi_server import serving

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Spans:
    """What was recorded, by name."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return span

    def attributes(self, name: str) -> dict[str, Any]:
        return dict(self.named(name).attributes or {})


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    tracing.use(otel.OtelTracer(SimpleSpanProcessor(spans.exporter), {"service.name": "geo"}))
    yield spans
    tracing.use(None)


@pytest.fixture
def off() -> Iterator[None]:
    tracing.use(None)
    yield


async def echo(request: Request) -> Response:
    """What a handler sees and would send on."""
    headers: dict[str, str] = {}
    tracing.inject(headers)
    with tracing.generation("chat", "geo", Sampling(8)):
        pass
    return JSONResponse({"ids": trace_ids.get(), "headers": headers}, headers={"x-request-id": "req-1"})


async def broken(request: Request) -> Response:
    return JSONResponse({}, 503)


APP = TracingMiddleware(
    Starlette(
        routes=[
            Route("/v1/things/{thing}", echo),
            Route("/broken", broken),
            Route("/health/live", echo),
        ]
    )
)


def get(path: str, **headers: str) -> httpx2.Response:
    with serving(APP) as url:
        return httpx2.get(f"{url}{path}", headers=headers, trust_env=False)


def test_a_request_is_a_span_named_by_its_route_below_its_caller(spans: Spans) -> None:
    answer = get("/v1/things/42", traceparent=TRACEPARENT).json()

    span = spans.named("GET /v1/things/{thing}")
    assert span.parent is not None and span.context is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/v1/things/{thing}",
        "http.response.status_code": 200,
        "url.path": "/v1/things/42",
        "url.scheme": "http",
        "agent_runtime.request.id": "req-1",
    }
    own = f"{span.context.span_id:016x}"
    assert answer["ids"] == [TRACE, own], "log lines carry the ids"
    assert answer["headers"]["traceparent"] == f"00-{TRACE}-{own}-01", "and so do requests to others"
    generation = spans.named("chat geo")
    assert generation.parent is not None and f"{generation.parent.span_id:016x}" == own


def test_an_answer_that_is_the_servers_fault_marks_its_span(spans: Spans) -> None:
    get("/broken")

    assert spans.attributes("GET /broken")["error.type"] == "503"
    assert not spans.named("GET /broken").status.is_ok


def test_probes_are_not_traced(spans: Spans) -> None:
    get("/health/live", traceparent=TRACEPARENT)

    assert {span.name for span in spans.exporter.get_finished_spans()} == {"chat geo"}


def test_a_generation_tells_what_was_asked_and_what_came_but_no_text(spans: Spans) -> None:
    sampling = Sampling(
        max_tokens=64, temperature=0.5, top_p=0.9, top_k=40, seed=7, stop=("secret",), presence_penalty=0.1
    )
    span = tracing.generation("chat", "geo", sampling)
    tracing.generated(
        span, model="geo", finish_reason="length", input_tokens=12, output_tokens=64, first_chunk=0.25
    )
    span.end()

    assert spans.attributes("chat geo") == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "agent_runtime",
        "gen_ai.system": "agent_runtime",
        "gen_ai.request.model": "geo",
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 40,
        "gen_ai.request.seed": 7,
        "gen_ai.request.presence_penalty": 0.1,
        "gen_ai.response.model": "geo",
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 64,
    }


def test_tools_are_below_the_agent_that_called_them(spans: Spans) -> None:
    with (
        tracing.invoke_agent("geography", "geo", "run-1", "session-1"),
        tracing.execute_tool("search", "call-1"),
    ):
        pass

    agent, tool = spans.named("invoke_agent geography"), spans.named("execute_tool search")
    assert tool.parent is not None and agent.context is not None
    assert tool.parent.span_id == agent.context.span_id
    assert spans.attributes("invoke_agent geography") == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "agent_runtime",
        "gen_ai.system": "agent_runtime",
        "gen_ai.agent.name": "geography",
        "gen_ai.request.model": "geo",
        "gen_ai.conversation.id": "session-1",
        "agent_runtime.run.id": "run-1",
    }
    assert spans.attributes("execute_tool search") == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.provider.name": "agent_runtime",
        "gen_ai.system": "agent_runtime",
        "gen_ai.tool.name": "search",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "call-1",
    }


def test_an_exception_is_noted_by_its_class_and_not_by_its_words(spans: Spans) -> None:
    with pytest.raises(ValueError, match="the prompt"), tracing.execute_tool("search"):
        raise ValueError("the prompt was: my secret")

    span = spans.named("execute_tool search")
    assert spans.attributes("execute_tool search")["error.type"] == "ValueError"
    assert "secret" not in span.to_json()


async def test_a_span_in_a_stream_that_another_task_closes_ends_all_the_same(spans: Spans) -> None:
    async def stream() -> Any:
        with tracing.invoke_agent("geography", "geo", "run-1"):
            yield 1
            yield 2

    made = stream()
    assert await asyncio.create_task(anext(made)) == 1
    await asyncio.create_task(made.aclose())

    assert spans.named("invoke_agent geography").end_time is not None


@pytest.mark.usefixtures("off")
def test_without_an_exporter_the_callers_trace_is_still_logged_and_passed_on() -> None:
    answer = get("/v1/things/42", traceparent=TRACEPARENT, tracestate="vendor=1").json()

    assert answer == {
        "ids": [TRACE, PARENT],
        "headers": {"traceparent": TRACEPARENT, "tracestate": "vendor=1"},
    }
    assert trace_ids.get() is None


@pytest.mark.usefixtures("off")
def test_without_an_exporter_every_span_is_the_one_that_does_nothing() -> None:
    assert tracing.generation("chat", "geo", Sampling(8)) is tracing.NO_SPAN
    assert tracing.execute_tool("search") is tracing.NO_SPAN
    assert tracing.invoke_agent("a", "b", "c") is tracing.NO_SPAN
    assert get("/v1/things/42").json() == {"ids": None, "headers": {}}


@pytest.mark.parametrize(
    "header",
    [
        "", "nonsense", f"00-{TRACE}-{PARENT}", f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{PARENT}-01", f"{TRACEPARENT}-more",
    ],
)  # fmt: skip
def test_an_invalid_traceparent_is_ignored(header: str) -> None:
    assert tracing.parse_traceparent(header) is None


def test_a_traceparent_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    found = tracing.parse_traceparent(f"01-{TRACE}-{PARENT}-01-more")

    assert found is not None and (found.trace_id, found.span_id) == (TRACE, PARENT)


@pytest.mark.parametrize(
    ("environment", "exporter"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, "console"),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, None),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, None),
    ],
)
def test_the_environment_says_where_spans_go(environment: dict[str, str], exporter: str | None) -> None:
    assert tracing.wanted(environment) == exporter


def test_spans_reach_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[ExportTraceServiceRequest] = []

    async def collect(request: Request) -> Response:
        received.append(ExportTraceServiceRequest.FromString(await request.body()))
        return Response(b"", media_type="application/x-protobuf")

    with serving(Starlette(routes=[Route("/v1/traces", collect, methods=["POST"])])) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "said-on-purpose")
        assert tracing.configure({"service.name": "geo", "service.namespace": "default"})
        with tracing.execute_tool("search"):
            pass
        tracing.shutdown()

    (batch,) = received
    resource = {pair.key: pair.value.string_value for pair in batch.resource_spans[0].resource.attributes}
    assert resource["service.name"] == "said-on-purpose" and resource["service.namespace"] == "default"
    assert [span.name for span in batch.resource_spans[0].scope_spans[0].spans] == ["execute_tool search"]
    assert not tracing.enabled()


def test_with_the_console_exporter_spans_are_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    monkeypatch.setattr(otel.log, "propagate", False)
    monkeypatch.setattr(otel.log, "handlers", [handler])
    otel.log.setLevel(logging.INFO)
    try:
        assert tracing.configure({"service.name": "geo"}, {"OTEL_TRACES_EXPORTER": "console"})
        with tracing.execute_tool("search"):
            pass
    finally:
        tracing.shutdown()

    written = [json.loads(line) for line in stream.getvalue().splitlines()]
    (span,) = [line["span"] for line in written if line["msg"] == "span"]
    assert span["name"] == "execute_tool search"


def test_without_the_extra_there_is_a_warning_naming_it_and_no_trace() -> None:
    program = (
        "import sys, logging\n"
        "sys.modules['opentelemetry'] = None\n"
        "from agent_runtime.observability import logging as l, tracing\n"
        "l.configure('info')\n"
        "assert not tracing.configure({'service.name': 'geo'}, {'OTEL_TRACES_EXPORTER': 'console'})\n"
        "assert tracing.execute_tool('search') is tracing.NO_SPAN\n"
    )
    done = run(program)

    assert "agent-operator[otel]" in json.loads(done)["msg"]


def test_tracing_that_is_off_never_imports_opentelemetry() -> None:
    run(
        "import sys\n"
        "from agent_runtime.observability import tracing, tracing_middleware, recorder\n"
        "assert not tracing.configure({'service.name': 'geo'}, {})\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
