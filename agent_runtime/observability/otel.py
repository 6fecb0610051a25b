"""Spans through OpenTelemetry's SDK. Layer: observability; imported only when traces are asked for.

The one idea: everything about sampling, batching and sending is the SDK's and its environment variables';
here a Span of ours becomes one of theirs. Spans leave in a background thread from a bounded queue, so a
collector that is slow or away costs spans and never requests.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from contextvars import Token
from types import TracebackType
from typing import Any, Literal, Self

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agent_runtime.observability.logging import trace_ids
from agent_runtime.observability.tracing import ERROR_TYPE, Attribute, Kind, Span

log = logging.getLogger("agent_runtime.tracing")

_KINDS = {
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
    "internal": trace.SpanKind.INTERNAL,
}
_PROPAGATOR = TraceContextTextMapPropagator()


class OtelSpan(Span):
    """A span of the SDK."""

    __slots__ = ("_attached", "_ids", "_span")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._attached: Token[context.Context] | None = None
        self._ids: Token[tuple[str, str] | None] | None = None

    def set(self, attribute: str, value: Attribute) -> None:
        """Notes a fact."""
        self._span.set_attribute(attribute, value)

    def rename(self, name: str) -> None:
        """A better name, once it is known."""
        self._span.update_name(name)

    def fail(self, kind: str) -> None:
        """The work failed."""
        self._span.set_attribute(ERROR_TYPE, kind)
        self._span.set_status(trace.StatusCode.ERROR)

    def end(self) -> None:
        """The work is over."""
        self._span.end()

    def __enter__(self) -> Self:
        self._attached = context.attach(trace.set_span_in_context(self._span))
        ids = self._span.get_span_context()
        self._ids = trace_ids.set((f"{ids.trace_id:032x}", f"{ids.span_id:016x}"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
    ) -> None:
        if kind is not None:
            # The class alone: an exception's words may hold what a prompt or a tool said.
            self.fail(kind.__name__)
        if self._attached is not None and self._ids is not None:
            context.detach(self._attached)
            # Closed by another task, an async generator has no context of its own left to restore.
            with suppress(ValueError):
                trace_ids.reset(self._ids)
        self.end()


class OtelTracer:
    """Makes spans with a provider of its own; the process-wide one is left to whoever embeds the runtime."""

    def __init__(self, processor: SpanProcessor, resource: Mapping[str, str]) -> None:
        ours = Resource.create(dict(resource))
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say was said on purpose and comes first.
        self._provider = TracerProvider(
            resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("agent_runtime")

    def span(
        self,
        name: str,
        kind: Kind,
        attributes: Mapping[str, Attribute],
        parent: Mapping[str, str] | None = None,
    ) -> Span:
        """A span begun now."""
        above = None if parent is None else _PROPAGATOR.extract(dict(parent))
        return OtelSpan(self._tracer.start_span(name, above, _KINDS[kind], attributes))

    def inject(self, headers: MutableMapping[str, str]) -> None:
        """Adds the current span's context."""
        _PROPAGATOR.inject(headers)

    def shutdown(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()


class LogExporter(SpanExporter):
    """Each finished span as a log line, for development and tests."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Writes them."""
        for span in spans:
            data: dict[str, Any] = json.loads(span.to_json())
            log.info("span", extra={"fields": {"span": data}})
        return SpanExportResult.SUCCESS


def tracer(exporter: Literal["otlp", "console"], resource: Mapping[str, str]) -> OtelTracer:
    """The tracer for an exporter."""
    processor: SpanProcessor
    if exporter == "console":
        processor = SimpleSpanProcessor(LogExporter())
    else:
        processor = BatchSpanProcessor(OTLPSpanExporter())
    return OtelTracer(processor, resource)
