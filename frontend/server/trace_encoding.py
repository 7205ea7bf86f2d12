"""A request's spans in OTLP's protobuf, made of its record when it has ended.

The objects and the exporter of OpenTelemetry's SDK take some 700 us of CPU time for a request, which is as much as six
tokens of an answer cost; this takes a tenth of it.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, SpanFlags, Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext
from opentelemetry.util.types import AttributeValue

from .request_record import RequestRecord
from .trace_attributes import attributes_of, span_name

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

_LOCAL = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE = _LOCAL | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


def encode_trace(
    record: RequestRecord, span: ReadableSpan, began_ns: int, request_id: str, new_span_id: Callable[[], int]
) -> tuple[bytes, int]:
    """The spans of a request and of its steps, as the bytes of a ScopeSpans without a scope; and their number.

    Protobuf merges messages whose bytes are joined, so those of many requests make one ScopeSpans. `span` has the ids
    of the request's span, which began `began_ns` after 1970.
    """
    context, parent = span.get_span_context(), span.parent
    assert context is not None
    encoded = ScopeSpans()
    root = encoded.spans.add(
        **_below(context, parent),
        span_id=_span_id(context.span_id),
        name=span_name(record),
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=began_ns,
        end_time_unix_nano=began_ns + to_ns(record.took_s),
    )
    if record.status >= 500:
        root.status.code = Status.STATUS_CODE_ERROR
    add_attributes(root.attributes, attributes_of(record, request_id))
    _add_steps(encoded, record, context, began_ns, new_span_id)
    return encoded.SerializeToString(), len(encoded.spans)


def to_ns(seconds: float) -> int:
    """Nanoseconds."""
    return int(seconds * 1e9)


def _add_steps(
    encoded: ScopeSpans, record: RequestRecord, request: SpanContext, began_ns: int, new_span_id: Callable[[], int]
) -> None:
    """Each step ends where the next one begins, the last one with the request."""
    below = _below(request, request)
    moments = [*record.steps.items(), ("end", record.arrived_at + record.took_s)]
    for (step, began_at), (_, ended_at) in pairwise(moments):
        encoded.spans.add(
            **below,
            span_id=_span_id(new_span_id()),
            name=step,
            kind=Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=began_ns + to_ns(began_at - record.arrived_at),
            end_time_unix_nano=began_ns + to_ns(ended_at - record.arrived_at),
        )


def _below(trace: SpanContext, parent: SpanContext | None) -> dict[str, Any]:
    """The fields that place a span below its parent in this trace."""
    return {
        "trace_id": trace.trace_id.to_bytes(16, "big"),
        "parent_span_id": _span_id(parent.span_id) if parent else b"",
        "trace_state": trace.trace_state.to_header(),
        "flags": _REMOTE if parent and parent.is_remote else _LOCAL,
    }


def _span_id(number: int) -> bytes:
    return number.to_bytes(8, "big")


def add_attributes(
    encoded: "RepeatedCompositeFieldContainer[KeyValue]", attributes: Mapping[str, AttributeValue]
) -> None:
    """Add them in protobuf. Of sequences only those of strings are known."""
    for name, given in attributes.items():
        value = encoded.add(key=name).value
        if isinstance(given, bool):
            value.bool_value = given
        elif isinstance(given, int):
            value.int_value = given
        elif isinstance(given, float):
            value.double_value = given
        elif isinstance(given, str):
            value.string_value = given
        elif isinstance(given, Sequence):
            for each in given:
                value.array_value.values.add(string_value=str(each))
