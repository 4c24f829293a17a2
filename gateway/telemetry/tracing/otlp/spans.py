"""Spans as an OTLP export holds them, as plain objects: ids in hex, attributes as Python values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status as StatusMessage


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened during a span."""

    name: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Link:
    """A span of the same or another trace that this one has to do with; ids in lower-case hex."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """One span as it came over the wire. Ids are lower-case hex, ``parent_id`` is empty for a root.

    ``kind`` is ``internal | server | client | producer | consumer``, ``status`` is ``unset | ok | error``.
    ``resource`` holds the attributes of whoever sent it (``service.name``, …), ``scope`` names the instrumentation.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    scope: str
    status: str
    status_message: str
    start_ns: int
    end_ns: int
    events: tuple[Event, ...]
    links: tuple[Link, ...]

    @property
    def service(self) -> str:
        """Who sent it: the resource's ``service.name``, empty if it has none."""
        return str(self.resource.get("service.name", ""))


def read_export(request: ExportTraceServiceRequest) -> list[Span]:
    """The spans of an export."""
    return [
        _span(span, _attributes(group.resource.attributes), scoped.scope.name)
        for group in request.resource_spans
        for scoped in group.scope_spans
        for span in scoped.spans
    ]


def _span(span: SpanMessage, resource: Mapping[str, Any], scope: str) -> Span:
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        kind=SpanMessage.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        attributes=_attributes(span.attributes),
        resource=resource,
        scope=scope,
        status=StatusMessage.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_").lower(),
        status_message=span.status.message,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        events=tuple(Event(event.name, _attributes(event.attributes)) for event in span.events),
        links=tuple(
            Link(link.trace_id.hex(), link.span_id.hex(), _attributes(link.attributes))
            for link in span.links
        ),
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return _attributes(value.kvlist_value.values)
        case kind:
            return getattr(value, kind)
