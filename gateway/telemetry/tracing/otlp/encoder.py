"""Spans as OTLP has them, at a fifth of the usual cost: the exporting thread shares the GIL with the requests.

OpenTelemetry's encoder makes a protobuf message of every attribute of every span, and that is a tenth of all that a
traced request costs. But nearly all attributes are the same again and again (a route, a tenant, a subject), so each is
encoded once and remembered, and the pieces are joined. What few spans have (events, an error, an attribute that is
neither a text nor a number) is left to OpenTelemetry's encoder.

The exporters are made to call it in the place of their own (`gateway.telemetry.tracing.otlp.exporter`); a test compares
both.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode_plainly
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode

# Tags: a field's number << 3 | its wire type (0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes).
_SPANS: Final = (
    b"\x12"  # of ScopeSpans, in opentelemetry/proto/trace/v1/trace.proto, and so are the next
)
_TRACE_ID, _SPAN_ID, _PARENT_ID = b"\x0a\x10", b"\x12\x08", b"\x22\x08"  # with their lengths
_NAME, _KIND, _START, _END, _ATTRIBUTE = b"\x2a", b"\x30", b"\x39", b"\x41", b"\x4a"
_LINK = b"\x6a\x21"  # with its length: two ids and flags
_UNSET_STATUS, _FLAGS = b"\x7a\x00", b"\x85\x01"
_LINK_FLAGS: Final = b"\x35"  # of Link; its ids have the tags of a span's
_KEY, _VALUE = b"\x0a", b"\x12"  # of KeyValue, in opentelemetry/proto/common/v1/common.proto
_TEXT, _BOOL, _WHOLE = b"\x0a", b"\x10", b"\x18"  # of AnyValue

_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
_LARGEST_WHOLE: Final = (1 << 63) - 1
_REMEMBERED: Final = 4096


class _Unusual(Exception):
    """Something that is left to OpenTelemetry's encoder."""


def encode_spans(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """The export request of these spans, as OpenTelemetry's function of that name makes it."""
    groups: dict[tuple[int, int], tuple[ReadableSpan, list[bytes]]] = {}
    for span in spans:
        try:
            encoded = _encode(span)
        except _Unusual:
            plain = encode_plainly([span]).resource_spans[0].scope_spans[0].spans[0]
            encoded = plain.SerializeToString()
        # By identity: the hash of a resource is that of its JSON, made anew each time.
        key = (id(span.resource), id(span.instrumentation_scope))
        _, pieces = groups.setdefault(key, (span, []))
        pieces += (_SPANS, _varint(len(encoded)), encoded)
    request = ExportTraceServiceRequest()
    for first, pieces in groups.values():
        group = request.resource_spans.add()
        group.MergeFromString(_group(first.resource, first.instrumentation_scope))
        group.scope_spans[0].MergeFromString(b"".join(pieces))
    return request


def _encode(span: ReadableSpan) -> bytes:
    context, parent = span.context, span.parent
    if (
        context is None
        or context.trace_state
        or span.events
        or span.status.status_code is not StatusCode.UNSET
        or span.dropped_attributes
        or span.start_time is None
        or span.end_time is None
    ):
        raise _Unusual
    pieces = [_ids(context)]
    if parent is not None:
        pieces += (_PARENT_ID, parent.span_id.to_bytes(8, "big"))
    pieces += (
        _name(span.name, span.kind),
        _START,
        span.start_time.to_bytes(8, "little"),
        _END,
        span.end_time.to_bytes(8, "little"),
    )
    try:
        pieces += [_attribute(name, value) for name, value in (span.attributes or {}).items()]
    except TypeError:  # a value that cannot be remembered
        raise _Unusual from None
    pieces += map(_link, span.links)
    pieces += (_UNSET_STATUS, _FLAGS, _flags(parent))
    return b"".join(pieces)


def _link(link: Link) -> bytes:
    if link.attributes or link.dropped_attributes:
        raise _Unusual
    return _LINK + _ids(link.context) + _LINK_FLAGS + _flags(link.context)


def _ids(context: SpanContext) -> bytes:
    trace_id, span_id = context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")
    return _TRACE_ID + trace_id + _SPAN_ID + span_id


def _flags(context: SpanContext | None) -> bytes:
    is_remote = context is not None and context.is_remote
    return (_HAS_IS_REMOTE | (_IS_REMOTE if is_remote else 0)).to_bytes(4, "little")


@lru_cache(maxsize=_REMEMBERED)
def _name(name: str, kind: SpanKind) -> bytes:
    # OTLP counts from unspecified, OpenTelemetry from internal.
    return _sized(_NAME, name.encode()) + _KIND + _varint(kind.value + 1)


@lru_cache(maxsize=_REMEMBERED, typed=True)
def _attribute(name: str, value: Any) -> bytes:
    match value:
        case str():
            encoded = _sized(_TEXT, value.encode())
        case bool():
            encoded = _BOOL + _varint(value)
        case int() if 0 <= value <= _LARGEST_WHOLE:
            encoded = _WHOLE + _varint(value)
        case _:
            raise _Unusual
    return _sized(_ATTRIBUTE, _sized(_KEY, name.encode()) + _sized(_VALUE, encoded))


@lru_cache(maxsize=16)
def _group(resource: Resource, scope: InstrumentationScope | None) -> bytes:
    """What the spans of a resource and scope have in common, and no span."""
    nobody = SpanContext(1, 1, is_remote=False)
    span = ReadableSpan("", nobody, resource=resource, instrumentation_scope=scope)
    group = encode_plainly([span]).resource_spans[0]
    shared: ScopeSpans = group.scope_spans[0]
    shared.ClearField("spans")
    return group.SerializeToString()


def _sized(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Seven bits a byte, the low ones first; the highest bit says that more come."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
