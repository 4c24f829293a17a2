"""Spans as bytes: the cheap encoder says what OpenTelemetry's own says, of whatever spans there are."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode_plainly
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceState

from gateway.telemetry.tracing.otlp.encoder import encode_spans

_SIXTY_FOUR: Final = st.integers(1, (1 << 64) - 1)
_CONTEXTS: Final = st.builds(
    SpanContext,
    st.integers(1, (1 << 128) - 1),
    _SIXTY_FOUR,
    st.booleans(),
    trace_state=st.sampled_from([TraceState(), TraceState([("vendor", "x")])]),
)
_VALUES: Final = st.one_of(
    st.text(max_size=300),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False),
    st.lists(st.text(max_size=5), max_size=3).map(tuple),
)
_ATTRIBUTES: Final = st.dictionaries(st.text(min_size=1, max_size=20), _VALUES, max_size=6)
_TIMES: Final = st.integers(1, (1 << 63) - 1)
_RESOURCES: Final = tuple(Resource({"service.name": name}, "a schema") for name in ("a", "b"))
_SCOPES: Final = (InstrumentationScope("x", "1"), InstrumentationScope("y", None, "a schema"), None)
_SPANS: Final = st.builds(
    ReadableSpan,
    st.text(max_size=40),
    _CONTEXTS,
    parent=st.none() | _CONTEXTS,
    resource=st.sampled_from(_RESOURCES),
    attributes=_ATTRIBUTES,
    events=st.lists(st.builds(Event, st.text(max_size=9), _ATTRIBUTES, _TIMES), max_size=1),
    links=st.lists(st.builds(Link, _CONTEXTS, _ATTRIBUTES), max_size=1),
    kind=st.sampled_from(SpanKind),
    status=st.sampled_from([Status(), Status(StatusCode.ERROR, "why"), Status(StatusCode.OK)]),
    start_time=_TIMES,
    end_time=_TIMES,
    instrumentation_scope=st.sampled_from(_SCOPES),
)


def by_scope(request: ExportTraceServiceRequest) -> dict[tuple[bytes, str, bytes, str], list[str]]:
    """The spans of each resource and scope: how they are grouped is the encoder's own."""
    found: dict[tuple[bytes, str, bytes, str], list[str]] = {}
    for group in request.resource_spans:
        for scoped in group.scope_spans:
            key = (
                group.resource.SerializeToString(deterministic=True),
                group.schema_url,
                scoped.scope.SerializeToString(deterministic=True),
                scoped.schema_url,
            )
            found.setdefault(key, []).extend(map(str, scoped.spans))
    return found


@given(st.lists(_SPANS, max_size=4))
def test_it_says_what_opentelemetrys_own_encoder_says(spans: list[ReadableSpan]) -> None:
    assert by_scope(encode_spans(spans)) == by_scope(encode_plainly(spans))


@pytest.mark.parametrize("value", [True, 1, "1", 1.0])
def test_values_that_python_holds_equal_are_told_apart(value: Any) -> None:
    context = SpanContext(1, 2, is_remote=False)
    spans = [
        ReadableSpan("s", context, attributes={"a": each}, start_time=1, end_time=2)
        for each in (1, True, "1", 1.0, value)
    ]
    assert by_scope(encode_spans(spans)) == by_scope(encode_plainly(spans))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_exporters_call_it(protocol: str) -> None:
    """They are given it by the name of their own function: a version that has another would encode at its own cost."""
    from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http

    from gateway.telemetry.tracing.otlp.exporter import otlp_exporter
    from gateway.telemetry.tracing.settings import TracingSettings
    from tests.unit.gateway.given import settings

    module = {"http": http, "grpc": grpc}[protocol]
    given_protocol = {"http": "http/protobuf", "grpc": "grpc"}[protocol]
    made: TracingSettings = settings(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_PROTOCOL=given_protocol
    )
    exporter = otlp_exporter(made)
    exporter.shutdown()
    assert vars(module)["encode_spans"] is encode_spans
    assert "encode_spans" in _names(module.OTLPSpanExporter)


def _names(kind: type[Any]) -> set[str]:
    """The global names that the methods of a class use."""
    return {
        name
        for method in vars(kind).values()
        if (code := getattr(method, "__code__", None)) is not None
        for name in code.co_names
    }
