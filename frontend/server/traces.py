"""Traces for OpenTelemetry: a span for each POST request and one for each of its steps, sent to a collector.

A client's `traceparent` is taken as the parent, and the engine gets that of the request's span. OpenTelemetry's SDK
decides what is sampled and gives ids; the spans are made at the end, of the request's record. Imported only if traces
are asked for.
"""

import os
import time

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import SpanKind, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from .log import REQUEST_ID
from .request_record import RequestRecord, Trace
from .trace_attributes import PROVIDER
from .trace_encoding import add_attributes, encode_trace, to_ns
from .trace_sender import TraceSender
from .trace_settings import ExportSettings

_CONTEXT_HEADERS = (b"traceparent", b"tracestate")
_PROPAGATOR = TraceContextTextMapPropagator()
_NAME = "frontend"


class Traces:
    """Sends traces to the collector at `endpoint`, a URL; `version` is this server's.

    What the collector does not take in time is dropped. The variables of OpenTelemetry's SDK are honoured: for sending
    (`ExportSettings`, which may raise StartupError), sampling (OTEL_TRACES_SAMPLER), the service's name.
    """

    def __init__(self, endpoint: str, version: str) -> None:
        settings, resource = ExportSettings.from_environ(os.environ), _resource(version)
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._tracer = provider.get_tracer(_NAME, version)
        self._new_span_id = provider.id_generator.generate_span_id
        self._sender = TraceSender(endpoint, _origin(resource, version), settings)

    def begin(self, record: RequestRecord, scope: Scope) -> None:
        """A request has arrived. Health checks, metrics and pages, which are no POST, have no trace."""
        if record.method != "POST":
            return
        given: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            if name in _CONTEXT_HEADERS:
                given.setdefault(name.decode(), []).append(value.decode("latin-1"))
        began_ns = time.time_ns() - to_ns(time.monotonic() - record.arrived_at)
        span = self._tracer.start_span("POST", _PROPAGATOR.extract(given), SpanKind.SERVER, start_time=began_ns)
        headers: dict[str, str] = {}
        _PROPAGATOR.inject(headers, set_span_in_context(span))
        record.trace = Trace(span, began_ns, headers)

    def end(self, record: RequestRecord) -> None:
        """The request has ended: its record is complete."""
        if record.trace is None:
            return
        span = record.trace.span
        if isinstance(span, ReadableSpan) and span.get_span_context().trace_flags.sampled:
            self._sender.add(*encode_trace(record, span, record.trace.began_ns, REQUEST_ID.get(), self._new_span_id))

    async def close(self) -> None:
        """Send what is left. May take as long as the exporter's time limit, 10 s by default."""
        await self._sender.close()


def _origin(resource: Resource, version: str) -> ResourceSpans:
    """What all spans of this server have in common, in protobuf."""
    scope = ScopeSpans(scope=InstrumentationScope(name=_NAME, version=version))
    origin = ResourceSpans(scope_spans=[scope], schema_url=resource.schema_url)
    add_attributes(origin.resource.attributes, resource.attributes)
    return origin


def _resource(version: str) -> Resource:
    """The service, under the name of OTEL_SERVICE_NAME if that is set."""
    found = Resource.create({SERVICE_VERSION: version})
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: PROVIDER}))
    return found
