"""The receiver that smoke checks and tests bring along, fed by OpenTelemetry's own exporters."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import threading
from collections.abc import Iterator

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
    OTLPSpanExporter as GrpcExporter,
)
from opentelemetry.exporter.otlp.proto.http import Compression as HttpCompression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
    OTLPSpanExporter as HttpExporter,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.trace import Link, SpanKind, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from gateway.devstack.ports import PortReservation
from gateway.telemetry.tracing.otlp.receiver import OtlpReceiver, Protocol
from tests.support.waiting import GENEROUS_SECONDS, wait_until

PROTOCOLS: tuple[Protocol, ...] = ("http", "grpc")


def exporter(protocol: Protocol, endpoint: str, *, compressed: bool = False) -> SpanExporter:
    if protocol == "grpc":
        gzipped = grpc.Compression.Gzip if compressed else grpc.Compression.NoCompression
        return GrpcExporter(endpoint, insecure=True, timeout=2, compression=gzipped)
    how = HttpCompression.Gzip if compressed else HttpCompression.NoCompression
    return HttpExporter(f"{endpoint}/v1/traces", timeout=2, compression=how)


@contextlib.contextmanager
def sending(to: SpanExporter) -> Iterator[Tracer]:
    """A tracer that sends each span as it ends."""
    provider = TracerProvider(
        resource=Resource.create({"service.name": "sender"}), shutdown_on_exit=False
    )
    provider.add_span_processor(SimpleSpanProcessor(to))
    yield provider.get_tracer("scope")
    provider.shutdown()


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_spans_come_as_they_were_made(protocol: Protocol, compressed: bool) -> None:
    with (
        OtlpReceiver(protocol) as receiver,
        sending(exporter(protocol, receiver.endpoint, compressed=compressed)) as tracer,
    ):
        with tracer.start_as_current_span("parent", kind=SpanKind.SERVER) as parent:
            context = parent.get_span_context()
            attributes: dict[str, AttributeValue] = {
                "text": "a",
                "number": 7,
                "half": 0.5,
                "yes": True,
                "list": ["a", "b"],
            }
            child = tracer.start_span(
                "child", kind=SpanKind.PRODUCER, attributes=attributes, links=[Link(context)]
            )
            child.add_event("something", {"why": "because"})
            child.set_status(StatusCode.ERROR, "code")
            child.end()
        receiver.wait_for(lambda spans: len(spans) == 2, GENEROUS_SECONDS)
        assert not receiver.complaints()
    inner, outer = receiver.spans()
    assert outer.trace_id == inner.trace_id == format(context.trace_id, "032x")
    assert (outer.parent_id, outer.kind, outer.status) == ("", "server", "unset")
    assert inner.parent_id == outer.span_id == format(context.span_id, "016x")
    assert (inner.name, inner.kind, inner.service) == ("child", "producer", "sender")
    assert (inner.status, inner.status_message) == ("error", "code")
    assert inner.attributes == attributes
    [event], [link] = inner.events, inner.links
    assert (event.name, event.attributes) == ("something", {"why": "because"})
    assert (link.trace_id, link.span_id) == (outer.trace_id, outer.span_id)
    assert outer.scope == "scope" and outer.start_ns <= inner.start_ns <= outer.end_ns


@pytest.mark.parametrize("sender", PROTOCOLS)
def test_a_client_of_the_other_protocol_is_told_apart_from_none(sender: Protocol) -> None:
    speaks: Protocol = "grpc" if sender == "http" else "http"
    with OtlpReceiver(speaks) as receiver, sending(exporter(sender, receiver.endpoint)) as tracer:
        assert not receiver.complaints()
        tracer.start_span("lost").end()
        wait_until(receiver.complaints)
        [complaint] = receiver.complaints()
        assert {"http": "HTTP/1", "grpc": "gRPC"}[sender] in complaint
        assert not receiver.spans()
        with pytest.raises(TimeoutError, match="a client speaks"):
            receiver.wait_for(lambda spans: spans, timeout=0.01)


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("/v1/metrics", {"Content-Type": "application/x-protobuf"}, b"", 404),
        ("/v1/traces", {"Content-Type": "application/json"}, b"{}", 415),
        ("/v1/traces", {"Content-Type": "application/x-protobuf"}, b"\xff\xff", 400),
        (
            "/v1/traces",
            {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"},
            b"no gzip",
            400,
        ),
        (
            "/v1/traces",
            {"Content-Type": "application/x-protobuf", "Content-Encoding": "br"},
            b"",
            400,
        ),
        (
            "/v1/traces",
            {"Content-Type": "application/x-protobuf", "Content-Length": "99999999999"},
            b"",
            400,
        ),
        (
            "/v1/traces",
            {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"},
            gzip.compress(b"", mtime=0),
            200,
        ),
    ],
)
def test_what_is_no_export_is_refused_and_complained_of(
    path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    with OtlpReceiver("http") as receiver:
        connection = http.client.HTTPConnection(receiver.address, timeout=GENEROUS_SECONDS)
        connection.request("POST", path, body, headers)
        assert connection.getresponse().status == status
        connection.close()
        assert bool(receiver.complaints()) == (status != 200)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_waits_is_woken_by_what_comes(protocol: Protocol) -> None:
    with (
        OtlpReceiver(protocol) as receiver,
        sending(exporter(protocol, receiver.endpoint)) as tracer,
    ):
        later = threading.Timer(0.1, lambda: tracer.start_span("late").end())
        later.start()
        found = receiver.wait_for(
            lambda spans: [s for s in spans if s.name == "late"], GENEROUS_SECONDS
        )
        later.join()
        assert len(found) == 1
        receiver.clear()
        with pytest.raises(TimeoutError, match="0 spans"):
            receiver.wait_for(lambda spans: spans, timeout=0.01)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_taken_port_is_told_at_once_and_a_closed_one_can_be_taken_again(
    protocol: Protocol,
) -> None:
    with PortReservation() as port:
        first = OtlpReceiver(protocol, bind=port.address)
        first.start()
        with pytest.raises(OSError, match="in use"):
            OtlpReceiver(protocol, bind=first.address)
        first.close()
        first.close()
        with OtlpReceiver(protocol, bind=first.address) as again:
            assert again.address == first.address
            with sending(exporter(protocol, again.endpoint)) as tracer:
                tracer.start_span("to the second").end()
            again.wait_for(lambda spans: spans, GENEROUS_SECONDS)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_that_was_never_started_can_be_closed(protocol: Protocol) -> None:
    OtlpReceiver(protocol).close()


def test_spans_stay_readable_after_the_end() -> None:
    with OtlpReceiver() as receiver, sending(exporter("http", receiver.endpoint)) as tracer:
        tracer.start_span("kept").end()
    assert [span.name for span in receiver.spans()] == ["kept"]
