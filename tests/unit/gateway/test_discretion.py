"""What of a span leaves the process: a list of what is allowed, whoever recorded it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from gateway.telemetry.tracing.discretion import ATTRIBUTES, discreet

ROUTE = "/api/v1/results/<path:assignment_id>"
PATH = "/api/v1/results/somebody@example.com"


@pytest.fixture
def provider() -> Iterator[TracerProvider]:
    made = TracerProvider(shutdown_on_exit=False)
    yield made
    made.shutdown()


def told(provider: TracerProvider, name: str, kind: SpanKind, **attributes: Any) -> ReadableSpan:
    """What is told of a span; ``__`` in an attribute's name stands for a dot."""
    span = provider.get_tracer("t").start_span(
        name, kind=kind, attributes={key.replace("__", "."): v for key, v in attributes.items()}
    )
    span.end()
    assert isinstance(span, ReadableSpan)
    return discreet(span)


def test_what_the_instrumentation_records_of_the_client_is_left_out(
    provider: TracerProvider,
) -> None:
    span = told(
        provider,
        f"GET {ROUTE}",
        SpanKind.SERVER,
        http__request__method="GET",
        http__route=ROUTE,
        url__path=PATH,
        url__query="token=1",
        url__scheme="https",
        server__address="internal.example",
        client__address="203.0.113.9",
        user_agent__original="curl/8",
        http__request__header__authorization=["Bearer x"],
        something__new="in the next version",
    )
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": ROUTE,
        "url.path": ROUTE,
        "url.scheme": "https",
    }
    assert span.name == f"GET {ROUTE}"


@pytest.mark.parametrize(("method", "name"), [("GET", "GET"), ("_OTHER", "HTTP")])
def test_a_path_without_a_rule_is_neither_name_nor_attribute(
    provider: TracerProvider, method: str, name: str
) -> None:
    span = told(
        provider, f"GET {PATH}", SpanKind.SERVER, http__request__method=method, url__path=PATH
    )
    assert (span.name, dict(span.attributes or {})) == (name, {"http.request.method": method})


def test_an_exception_is_its_class_alone(provider: TracerProvider) -> None:
    tracer = provider.get_tracer("t")
    with (
        pytest.raises(ValueError, match="quotes"),
        tracer.start_as_current_span("s") as span,
    ):
        raise ValueError("quotes the payload")
    assert isinstance(span, ReadableSpan)
    [event] = discreet(span).events
    assert (event.name, dict(event.attributes or {})) == (
        "exception",
        {"exception.type": "ValueError"},
    )
    status = discreet(span).status
    assert (status.status_code, status.description) == (StatusCode.ERROR, None)


@pytest.mark.parametrize(
    ("description", "kept"),
    [("not_sent", "not_sent"), ("schema_invalid", "schema_invalid"), ("two words", None)],
)
def test_a_description_is_told_where_it_is_a_code(
    provider: TracerProvider, description: str, kept: str | None
) -> None:
    span = provider.get_tracer("t").start_span("s")
    span.set_status(StatusCode.ERROR, description)
    span.end()
    assert isinstance(span, ReadableSpan)
    assert discreet(span).status.description == kept


@pytest.mark.parametrize("name", ["request_id", "messaging__message__id"])
def test_ids_that_others_make_up_are_redacted(provider: TracerProvider, name: str) -> None:
    mail = told(provider, "s", SpanKind.CONSUMER, **{name: "for-somebody@example.com"})
    assert "somebody" not in str(mail.attributes)
    plain = told(provider, "s", SpanKind.CONSUMER, **{name: "6f1c3b1e-plain"})
    assert "6f1c3b1e-plain" in (plain.attributes or {}).values()


def test_the_callers_tracestate_is_left_out_and_the_rest_of_the_context_is_not(
    provider: TracerProvider,
) -> None:
    caller = SpanContext(1, 2, True, TraceFlags(1), TraceState([("vendor", "somebody")]))
    parent = set_span_in_context(NonRecordingSpan(caller))
    span = provider.get_tracer("t").start_span("s", parent)
    span.end()
    assert isinstance(span, ReadableSpan)
    shown = discreet(span)
    assert span.context is not None and shown.context is not None
    assert span.context.trace_state and not shown.context.trace_state
    assert (shown.context.trace_id, shown.context.span_id, shown.context.trace_flags) == (
        span.context.trace_id,
        span.context.span_id,
        span.context.trace_flags,
    )
    assert shown.parent == span.parent


def test_everything_else_is_as_it_was(provider: TracerProvider) -> None:
    span = provider.get_tracer("t").start_span(
        "nats.publish", kind=SpanKind.PRODUCER, attributes={"subject": "s"}
    )
    span.end()
    assert isinstance(span, ReadableSpan)
    assert discreet(span).to_json() == span.to_json()


def test_every_attribute_has_a_meaning() -> None:
    assert all(meaning.endswith(".") for meaning in ATTRIBUTES.values())
