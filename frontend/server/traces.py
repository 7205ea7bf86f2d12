"""Traces for OpenTelemetry: a span for each POST request and one for each of its steps, sent to a collector.

A client's `traceparent` is taken as the parent, and the engine gets that of the request's span. Spans are made at the
end, of the request's record. Imported only if traces are asked for.
"""

import time
from collections.abc import Iterator
from itertools import pairwise

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from .log import REQUEST_ID
from .request_record import RequestRecord, Trace
from .trace_attributes import PROVIDER, Attributes, attributes_of, span_name

_CONTEXT_HEADERS = (b"traceparent", b"tracestate")
_PROPAGATOR = TraceContextTextMapPropagator()
_NO_ATTRIBUTES: Attributes = {}


class Traces:
    """Sends traces to the collector at `endpoint`, a URL, in a thread of its own; `version` is this server's.

    What the collector does not take in time is dropped. The variables of OpenTelemetry's SDK are honoured: for headers
    of the collector (OTEL_EXPORTER_OTLP_HEADERS), for sampling (OTEL_TRACES_SAMPLER), for the service's name.

    Its tracer decides on sampling and makes the ids of a request's span. The spans that are sent are made here: the
    SDK's own, which others may change at any time from any thread, take three times as long.
    """

    def __init__(self, endpoint: str, version: str) -> None:
        self._provider = TracerProvider(resource=_resource(version))
        self._processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint))
        self._tracer = self._provider.get_tracer("frontend", version)

    def begin(self, record: RequestRecord, scope: Scope) -> None:
        """A request has arrived. Health checks, metrics and pages, which are no POST, have no trace."""
        if record.method != "POST":
            return
        given: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            if name in _CONTEXT_HEADERS:
                given.setdefault(name.decode(), []).append(value.decode("latin-1"))
        began_ns = time.time_ns() - _to_ns(time.monotonic() - record.arrived_at)
        span = self._tracer.start_span("POST", _PROPAGATOR.extract(given), SpanKind.SERVER, start_time=began_ns)
        headers: dict[str, str] = {}
        _PROPAGATOR.inject(headers, set_span_in_context(span))
        record.trace = Trace(span, began_ns, headers)

    def end(self, record: RequestRecord) -> None:
        """The request has ended: its record is complete."""
        if record.trace is None or not isinstance(record.trace.span, SdkSpan):
            return  # not sampled
        for span in self._spans(record, record.trace, record.trace.span):
            self._processor.on_end(span)

    def close(self) -> None:
        """Send what is left. May take as long as the exporter's time limit, 10 s by default."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]
        self._provider.shutdown()

    def _spans(self, record: RequestRecord, trace: Trace, span: SdkSpan) -> Iterator[ReadableSpan]:
        """That of the request, and one for each of its steps, which ends where the next one begins."""

        def to_ns(moment: float) -> int:
            return trace.began_ns + _to_ns(moment - record.arrived_at)

        ended_at = record.arrived_at + record.took_s
        yield ReadableSpan(
            span_name(record),
            span.context,
            span.parent,
            span.resource,
            attributes_of(record, REQUEST_ID.get()),
            kind=SpanKind.SERVER,
            status=Status(StatusCode.ERROR if record.status >= 500 else StatusCode.UNSET),
            start_time=trace.began_ns,
            end_time=to_ns(ended_at),
            instrumentation_scope=span.instrumentation_scope,
        )
        for (step, began_at), (_, next_at) in pairwise([*record.steps.items(), ("end", ended_at)]):
            yield ReadableSpan(
                step,
                self._context_below(span.context),
                span.context,
                span.resource,
                _NO_ATTRIBUTES,
                start_time=to_ns(began_at),
                end_time=to_ns(next_at),
                instrumentation_scope=span.instrumentation_scope,
            )

    def _context_below(self, parent: SpanContext) -> SpanContext:
        span_id = self._provider.id_generator.generate_span_id()
        return SpanContext(
            parent.trace_id, span_id, is_remote=False, trace_flags=parent.trace_flags, trace_state=parent.trace_state
        )


class _Resource(Resource):
    """A resource with a hash that is computed once: the exporter asks for that of each span, 20 us at a time."""

    def __init__(self, found: Resource) -> None:
        super().__init__(found.attributes, found.schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    __eq__ = Resource.__eq__


def _to_ns(seconds: float) -> int:
    return int(seconds * 1e9)


def _resource(version: str) -> Resource:
    """The service, under the name of OTEL_SERVICE_NAME if that is set."""
    found = Resource.create({SERVICE_VERSION: version})
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: PROVIDER}))
    return _Resource(found)
