"""Server spans: each request but the probes has one, in the trace that the client named."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from bridge import Bridge
from gateway.app import create_app
from gateway.bridge_config import bridge_config
from gateway.telemetry.tracing import http_spans
from gateway.telemetry.tracing.tracer import Tracing, current_trace_id, link_to, recorded_span
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
        assert self.tracing.provider is not None
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


@pytest.mark.parametrize("path", ["/livez/", "/x/livez", "/livezz", "/api/v1/livez"])
def test_only_the_probes_own_paths_have_no_span(traced: Traced, path: str) -> None:
    traced.app.test_client().get(path)
    assert len(traced.spans()) == 1


def test_a_path_that_nobody_knows_is_not_the_name_of_a_span(traced: Traced) -> None:
    traced.app.test_client().get(f"/api/v1/{SECRET}?x={SECRET}")
    [span] = traced.spans()
    assert span.name == "GET" and SECRET not in span.to_json()


def test_a_method_that_nobody_knows_is_not_told(traced: Traced) -> None:
    traced.app.test_client().open(DECIDE, method=SECRET.upper())
    [span] = traced.spans()
    assert span.name == "HTTP" and SECRET.upper() not in span.to_json()
    assert (span.attributes or {})["http.request.method"] == "_OTHER"


def test_without_a_collector_a_callers_trace_is_passed_on_as_it_came() -> None:
    tracing = Tracing(settings())
    assert tracing.provider is None
    app = Flask("bare")
    http_spans.install(app, tracing)
    app.add_url_rule("/", view_func=lambda: {"trace": current_trace_id()})
    client = app.test_client()
    assert client.get("/", headers={"traceparent": PARENT}).get_json() == {"trace": TRACE}
    one, other = (client.get("/").get_json()["trace"] for _ in range(2))
    assert one and other and len({one, other, TRACE}) == 3
    assert current_trace_id() is None


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traced]:
    """Traces of which every other one is recorded where no caller has decided: by the low half of its id."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    made = Traced()
    yield made
    made.tracing.shutdown(5.0)


def test_what_the_sampler_takes_has_its_span_and_what_it_drops_only_its_trace(half: Traced) -> None:
    answered = [half.post() for _ in range(60)]
    taken = {trace for trace in answered if int(trace[16:], 16) < 1 << 63}
    spans = half.spans()
    assert len(set(answered)) == 60 and 0 < len(taken) < 60
    assert sorted(map(trace_of, spans)) == sorted(taken)
    assert {(span.kind, span.name, span.parent) for span in spans} == {
        (SpanKind.SERVER, f"POST {DECIDE}", None)
    }
    assert current_trace_id() is None


@pytest.mark.parametrize(("half_of_id", "recorded"), [("0", 1), ("f", 0)])
def test_the_sampler_is_asked_with_the_id_that_the_client_named(
    half: Traced, half_of_id: str, recorded: int
) -> None:
    trace_id = f"{'a' * 16}{half_of_id * 15}1"
    assert half.post(**{"X-Trace-ID": trace_id}) == trace_id
    assert [trace_of(span) for span in half.spans()] == [trace_id] * recorded


@pytest.mark.parametrize(("flags", "recorded"), [("01", 1), ("00", 0)])
def test_the_caller_decides_before_the_sampler(half: Traced, flags: str, recorded: int) -> None:
    # Which alone would say the opposite.
    trace_id = "a" * 15 + ("f" if recorded else "0") * 16 + "1"
    parent = f"00-{trace_id}-00f067aa0ba902b7-{flags}"
    assert half.post(traceparent=parent, **{"X-Trace-ID": trace_id}) == trace_id
    spans = half.spans()
    assert [trace_of(span) for span in spans] == [trace_id] * recorded
    assert all(span.parent and span.parent.span_id == 0x00F067AA0BA902B7 for span in spans)


def test_no_path_looks_like_a_dropped_one(half: Traced) -> None:
    for path in ("dropped", "/dropped", "//dropped"):
        half.app.test_client().get(
            path, headers={"traceparent": PARENT}, environ_overrides={"PATH_INFO": path}
        )
    assert len(half.spans()) == 3


def test_a_replay_links_to_the_first_request(traced: Traced) -> None:
    with traced.tracing.tracer.start_as_current_span("first") as first:
        noted = recorded_span()
    assert noted is not None
    with traced.tracing.tracer.start_as_current_span("again"):
        link_to(noted)
        link_to("no span")
        link_to("")
    again = next(span for span in traced.spans() if span.name == "again")
    [link] = again.links
    assert link.context.span_id == first.get_span_context().span_id
    assert link.context.trace_id == first.get_span_context().trace_id


def test_what_is_not_recorded_is_not_linked_to() -> None:
    assert recorded_span() is None
