"""Server spans: each request but the probes has one, in the trace that the client named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from bridge import Bridge, BridgeError, Closed, NotSent, Refusal, Refused, Unknown
from gateway.app import bridge_config, create_app
from gateway.telemetry.tracing import NatsTelemetry, Tracing
from tests.unit.gateway.given import (
    CALLER,
    DECIDE,
    DECIDE_BODY,
    TENANT,
    TRACE,
    app_without_nats,
    post,
    settings,
)

SECRET = "sw0rdf1sh"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Traced:
    """An app without NATS whose spans are kept."""

    def __init__(self) -> None:
        made = settings()
        self.exporter = InMemorySpanExporter()
        self.tracing = Tracing(made, self.exporter)
        self.app: Flask = create_app(made, Bridge(bridge_config(made)), self.tracing)

    def spans(self) -> list[ReadableSpan]:
        """What was finished since the last call."""
        self.tracing.provider.force_flush()
        found = list(self.exporter.get_finished_spans())
        self.exporter.clear()
        return found

    def post(self, **headers: str) -> str:
        """The trace id that a decide's answer names."""
        return post(self.app, headers={**CALLER, **headers}).headers["X-Trace-ID"]


@pytest.fixture
def traced() -> Iterator[Traced]:
    made = Traced()
    yield made
    made.tracing.shutdown(5.0)


def trace_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return format(span.context.trace_id, "032x")


def test_a_request_has_one_server_span_with_tenant_and_phase(traced: Traced) -> None:
    answered = traced.post(**{"X-CP-Phase": "cp5"})
    [span] = traced.spans()
    assert span.kind is SpanKind.SERVER
    assert span.name == f"POST {DECIDE}"
    assert trace_of(span) == answered
    attributes = span.attributes or {}
    assert attributes["tenant_id"] == TENANT and attributes["cp_phase"] == "cp5"
    assert attributes["http.route"] == DECIDE
    assert attributes["http.response.status_code"] == 503


def test_a_refused_request_is_found_by_its_phase_and_names_no_tenant(traced: Traced) -> None:
    traced.app.test_client().post(DECIDE, json=DECIDE_BODY, headers={"X-CP-Phase": "cp5"})
    [span] = traced.spans()
    attributes = span.attributes or {}
    assert attributes["cp_phase"] == "cp5" and "tenant_id" not in attributes


def test_an_incoming_trace_is_continued(traced: Traced) -> None:
    assert traced.post(traceparent=PARENT) == TRACE
    [span] = traced.spans()
    assert trace_of(span) == TRACE
    assert span.parent is not None and format(span.parent.span_id, "016x") == "00f067aa0ba902b7"


def test_a_named_trace_id_becomes_the_spans_own_and_the_span_is_a_root(traced: Traced) -> None:
    assert traced.post(**{"X-Trace-ID": TRACE}) == TRACE
    [span] = traced.spans()
    assert trace_of(span) == TRACE and span.parent is None


def test_a_named_trace_id_is_for_one_request_only(traced: Traced) -> None:
    traced.post(**{"X-Trace-ID": TRACE})
    assert traced.post() != TRACE
    traced.app.test_client().get("/livez", headers={"X-Trace-ID": TRACE})
    assert traced.post() != TRACE


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/_health", "/metrics"])
def test_probes_have_no_span(traced: Traced, path: str) -> None:
    traced.app.test_client().get(path)
    traced.app.test_client().get(path + "?verbose=1")
    assert not traced.spans()


@pytest.mark.parametrize(
    ("path", "base_url"),
    [
        (f"{DECIDE}?metrics", "http://localhost"),
        (f"{DECIDE}?next=http://x/livez", "http://localhost"),
        ("/api/v1/health", "http://localhost"),
        ("/health/more", "http://localhost"),
        (DECIDE, "http://metrics.example"),
    ],
)
def test_no_caller_can_switch_tracing_off(traced: Traced, path: str, base_url: str) -> None:
    traced.app.test_client().post(path, json=DECIDE_BODY, headers=CALLER, base_url=base_url)
    assert len(traced.spans()) == 1


def test_spans_hold_no_credential_and_no_payload(traced: Traced) -> None:
    headers = {"Authorization": f"Bearer {SECRET}", "X-API-Key": SECRET, "Cookie": SECRET}
    body = {**DECIDE_BODY, "metadata": {"password": SECRET}, "request_id": "r-1"}
    post(traced.app, body=body, headers={**CALLER, **headers})
    post(traced.app, body={**body, SECRET: 1}, headers={**CALLER, **headers})
    spans = traced.spans()
    assert len(spans) == 2
    for span in spans:
        assert SECRET not in span.to_json()


def test_without_a_collector_nothing_is_recorded_and_ids_are_still_made() -> None:
    gateway = app_without_nats()
    one, other = (post(gateway).headers["X-Trace-ID"] for _ in range(2))
    assert one != other
    named = post(gateway, headers={**CALLER, "X-Trace-ID": TRACE})
    assert named.headers["X-Trace-ID"] == TRACE


def test_the_alias_of_the_endpoint_reaches_the_exporter_beside_an_empty_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The exporters read the process' environment: here the environment is the interface."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    tracing = Tracing(settings(OTLP_ENDPOINT="http://127.0.0.1:1"))
    assert os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:1"
    tracing.shutdown(2.0)


# -- what leaves for NATS ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (NotSent("away"), "not_sent"),
        (Unknown("silence"), "unknown"),
        (Refused("no", reason=Refusal.PERMISSION), "refused"),
        (Closed("closing"), "closed"),
    ],
)
def test_a_message_that_failed_says_how_in_its_span(
    traced: Traced, error: BridgeError, outcome: str
) -> None:
    headers: dict[str, str] = {}
    with (
        pytest.raises(type(error)),
        NatsTelemetry(traced.tracing).sending("publish", "caf.exec.assign.v1", headers),
    ):
        raise error
    [span] = traced.spans()
    assert not span.status.is_ok
    assert (span.attributes or {})["error.type"] == outcome


def test_a_message_carries_the_span_that_sent_it(traced: Traced) -> None:
    given: dict[str, Any] = {"tenant_id": TENANT, "cp_phase": "cp2", "Nats-Msg-Id": "m"}
    headers = dict(given)
    with NatsTelemetry(traced.tracing).sending("request", "beamline.router.v1.decide", headers):
        sent = headers["traceparent"]
    [span] = traced.spans()
    assert span.name == "nats.request" and span.kind is SpanKind.CLIENT
    assert span.context is not None
    assert sent.split("-")[1:3] == [trace_of(span), format(span.context.span_id, "016x")]
    attributes = dict(span.attributes or {})
    assert attributes.pop("subject") == "beamline.router.v1.decide"
    assert attributes["tenant_id"] == TENANT and attributes["cp_phase"] == "cp2"
    assert attributes["messaging.system"] == "nats"
    assert headers == {**given, "traceparent": sent}
