"""Traces for OpenTelemetry: a span for each POST request and one for each of its steps, sent to a collector.

A client's `traceparent` is taken as the parent, and the engine gets that of the request's span. The spans of the steps
are made at the end, of the times in the request's record. Imported only if traces are asked for.
"""

import time
from itertools import pairwise

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from .log import REQUEST_ID
from .request_record import RequestRecord, Trace
from .trace_attributes import PROVIDER, attributes_of, span_name

_CONTEXT_HEADERS = (b"traceparent", b"tracestate")
_PROPAGATOR = TraceContextTextMapPropagator()


class Traces:
    """Sends traces to the collector at `endpoint`, a URL, in a thread of its own; `version` is this server's.

    What the collector does not take in time is dropped. The variables of OpenTelemetry's SDK are honoured: for headers
    of the collector (OTEL_EXPORTER_OTLP_HEADERS), for sampling (OTEL_TRACES_SAMPLER), for the service's name.
    """

    def __init__(self, endpoint: str, version: str) -> None:
        self._provider = TracerProvider(resource=_resource(version))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
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
        if record.trace is None:
            return
        span = record.trace.span
        if span.is_recording():
            span.update_name(span_name(record))
            span.set_attributes(attributes_of(record, REQUEST_ID.get()))
            self._add_steps(record, record.trace)
            if record.status >= 500:
                span.set_status(Status(StatusCode.ERROR))
        span.end(record.trace.began_ns + _to_ns(record.took_s))

    def close(self) -> None:
        """Send what is left. May take as long as the exporter's time limit, 10 s by default."""
        self._provider.shutdown()

    def _add_steps(self, record: RequestRecord, trace: Trace) -> None:
        """Each step ends where the next one begins, the last one with the request."""
        context = set_span_in_context(trace.span)
        moments = [*record.steps.items(), ("end", record.arrived_at + record.took_s)]
        for (step, began_at), (_, ended_at) in pairwise(moments):
            began_ns = trace.began_ns + _to_ns(began_at - record.arrived_at)
            child = self._tracer.start_span(step, context, start_time=began_ns)
            child.end(trace.began_ns + _to_ns(ended_at - record.arrived_at))


def _to_ns(seconds: float) -> int:
    return int(seconds * 1e9)


def _resource(version: str) -> Resource:
    """The service, under the name of OTEL_SERVICE_NAME if that is set."""
    found = Resource.create({SERVICE_VERSION: version})
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: PROVIDER}))
    return found
