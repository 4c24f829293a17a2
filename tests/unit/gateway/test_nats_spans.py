"""Spans of messages: what they say of a send and of a delivery, and what they believe of others' headers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from bridge import BridgeError, Closed, Delivery, NotSent, Refusal, Refused, Reject, Turn, Unknown
from gateway.telemetry.tracing.nats_spans import NatsSpans, name_tenant, outcome_of
from gateway.telemetry.tracing.tracer import Tracing, current_trace_id
from tests.unit.gateway.given import TENANT, TRACE, settings

DECIDE = "beamline.router.v1.decide"
RESULT = "caf.exec.result.v1"
DURABLE = "beamline-gateway-results"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
HEADERS = {"tenant_id": TENANT, "cp_phase": "cp3", "Nats-Msg-Id": "m-1", "traceparent": PARENT}


class Observed:
    """An observer whose spans are kept."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracing = Tracing(settings(), self.exporter)
        self.observer = NatsSpans(self.tracing)

    def span(self) -> ReadableSpan:
        """The one that was finished since the last call."""
        assert self.tracing.provider is not None
        self.tracing.provider.force_flush()
        [found] = self.exporter.get_finished_spans()
        self.exporter.clear()
        return found


@pytest.fixture
def observed() -> Iterator[Observed]:
    made = Observed()
    yield made
    made.tracing.shutdown(5.0)


def delivery(headers: Mapping[str, str] = HEADERS, *, num_delivered: int = 1) -> Delivery:
    return Delivery(RESULT, b"{}", headers, num_delivered, "BEAMLINE_EXEC", 42)


def consume(observed: Observed, *turns: tuple[Turn, BaseException], **more: Any) -> ReadableSpan:
    """The span of a delivery that takes these turns."""
    with observed.observer.consuming(DURABLE, delivery(**more)) as tell:
        for turn, why in turns:
            tell(turn, why)
    return observed.span()


def of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def trace_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return format(span.context.trace_id, "032x")


# -- sends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (NotSent("away"), "not_sent"),
        (Unknown("silence"), "unknown"),
        (Refused("no", reason=Refusal.PERMISSION), "refused"),
        (Closed("closing"), "closed"),
        (asyncio.CancelledError(), "unknown"),
    ],
)
def test_a_message_that_failed_says_how_in_its_span(
    observed: Observed, error: BridgeError, outcome: str
) -> None:
    with (
        pytest.raises(type(error)),
        observed.observer.sending("publish", "caf.exec.assign.v1", {}),
    ):
        raise error
    span = observed.span()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, outcome)
    assert of(span)["error.type"] == outcome
    assert not span.events, "an exception's message may quote a payload"


def test_a_message_carries_the_span_that_sent_it(observed: Observed) -> None:
    given = {"tenant_id": TENANT, "cp_phase": "cp2", "Nats-Msg-Id": "m"}
    headers = dict(given)
    with observed.observer.sending("request", DECIDE, headers):
        sent = headers["traceparent"]
    span = observed.span()
    assert span.name == "nats.request" and span.kind is SpanKind.CLIENT
    assert span.context is not None
    assert sent.split("-")[1:3] == [trace_of(span), format(span.context.span_id, "016x")]
    assert headers == {**given, "traceparent": sent}
    assert of(span) == {
        "subject": DECIDE,
        "tenant_id": TENANT,
        "cp_phase": "cp2",
        "messaging.system": "nats",
        "messaging.destination.name": DECIDE,
        "messaging.operation.name": "request",
        "messaging.operation.type": "send",
        "messaging.message.id": "m",
    }


def test_a_message_without_a_phase_is_of_the_unknown_one(observed: Observed) -> None:
    with observed.observer.sending("publish", "s", {}):
        pass
    assert of(observed.span())["cp_phase"] == "unknown"


# -- deliveries ----------------------------------------------------------------------------------------


def test_a_delivery_continues_the_trace_of_its_sender(observed: Observed) -> None:
    span = consume(observed, num_delivered=3)
    assert span.name == "nats.consume" and span.kind is SpanKind.CONSUMER
    assert trace_of(span) == TRACE
    assert span.parent is not None and format(span.parent.span_id, "016x") == "00f067aa0ba902b7"
    assert span.status.status_code is StatusCode.UNSET
    assert of(span) == {
        "subject": RESULT,
        "tenant_id": TENANT,
        "cp_phase": "cp3",
        "durable": DURABLE,
        "redelivery_count": 2,
        "stream": "BEAMLINE_EXEC",
        "stream_seq": 42,
        "messaging.system": "nats",
        "messaging.destination.name": RESULT,
        "messaging.operation.name": "consume",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": DURABLE,
        "messaging.message.id": "m-1",
        "messaging.message.body.size": 2,
    }


def test_names_of_headers_have_no_case(observed: Observed) -> None:
    shouted = {name.upper(): value for name, value in HEADERS.items()}
    assert of(consume(observed, headers=shouted)) == of(consume(observed))
    assert trace_of(consume(observed, headers={"Traceparent": PARENT})) == TRACE


@pytest.mark.parametrize(
    "named", [TRACE, "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"], ids=["hex", "uuid"]
)
def test_a_trace_id_alone_names_the_trace(observed: Observed, named: str) -> None:
    span = consume(observed, headers={"trace_id": named})
    assert (trace_of(span), span.parent) == (TRACE, None)


def test_what_is_sent_meanwhile_is_below_the_delivery(observed: Observed) -> None:
    headers: dict[str, str] = {}
    with (
        observed.observer.consuming(DURABLE, delivery()),
        observed.observer.sending("publish", "beamline.usage.v1.metered", headers),
    ):
        consuming = trace.get_current_span().get_span_context()
        assert current_trace_id() == TRACE
    assert observed.tracing.provider is not None
    observed.tracing.provider.force_flush()
    sent, _ = observed.exporter.get_finished_spans()
    assert sent.parent is not None and sent.parent.span_id == consuming.span_id
    assert headers["traceparent"].split("-")[1] == TRACE


@pytest.mark.parametrize(
    ("turn", "why", "error_type"),
    [
        ("refused", Reject("schema_invalid", "quotes the payload"), "schema_invalid"),
        ("given_up", Reject("late", "quotes the payload", final=True), "late"),
        ("failed", ZeroDivisionError("quotes the payload"), "ZeroDivisionError"),
        ("unacknowledged", OSError("quotes the payload"), "OSError"),
    ],
)
def test_a_turn_for_the_worse_fails_the_span_in_a_word(
    observed: Observed, turn: Turn, why: BaseException, error_type: str
) -> None:
    span = consume(observed, (turn, why))
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, error_type)
    assert of(span)["error.type"] == error_type
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        (turn, {"error.type": error_type})
    ]
    assert "quotes" not in span.to_json()


@pytest.mark.parametrize(
    ("turn", "why", "attributes"),
    [
        ("waited", NotSent("away"), {"error.type": "not_sent"}),
        ("given_back", asyncio.CancelledError(), {}),
    ],
)
def test_trouble_of_our_own_does_not_fail_a_delivery_that_may_still_end_well(
    observed: Observed, turn: Turn, why: BaseException, attributes: dict[str, str]
) -> None:
    span = consume(observed, (turn, why))
    assert span.status.status_code is StatusCode.UNSET
    assert [(event.name, event.attributes) for event in span.events] == [(turn, attributes)]


@pytest.mark.parametrize(
    "hostile",
    [
        {"tenant_id": "evil tenant"},
        {"tenant_id": "evil" * 20},
        {"cp_phase": "evil"},
        {"Nats-Msg-Id": "evil id"},
        {"Nats-Msg-Id": "evil" * 100},
        {"traceparent": "evil"},
        {"trace_id": "evil"},
        {"tracestate": "evil=evil", "traceparent": PARENT},
        {"evil": "evil"},
    ],
    ids=str,
)
def test_what_others_write_into_headers_is_not_told(
    observed: Observed, hostile: dict[str, str]
) -> None:
    assert "evil" not in consume(observed, headers=hostile).to_json()


def test_a_message_without_headers_has_a_span_too(observed: Observed) -> None:
    span = consume(observed, headers={})
    assert span.parent is None
    assert "tenant_id" not in of(span) and of(span)["cp_phase"] == "unknown"


def test_the_tenant_of_a_payload_is_added_when_it_is_known(observed: Observed) -> None:
    with observed.observer.consuming(DURABLE, delivery({})):
        name_tenant(TENANT)
    assert of(observed.span())["tenant_id"] == TENANT


# -- where nothing is recorded -------------------------------------------------------------------------


def test_unrecorded_messages_carry_the_trace_that_they_came_with() -> None:
    observer = NatsSpans(Tracing(settings()))
    headers: dict[str, str] = {}
    with (
        observer.consuming(DURABLE, delivery()),
        observer.sending("publish", "beamline.usage.v1.metered", headers),
    ):
        pass
    assert headers["traceparent"] == PARENT


def test_unrecorded_messages_without_a_trace_begin_one_that_is_not_sampled() -> None:
    observer = NatsSpans(Tracing(settings()))
    traceparents = []
    for _ in range(2):
        headers: dict[str, str] = {}
        with observer.sending("request", DECIDE, headers):
            traceparents.append(headers["traceparent"])
    one, other = traceparents
    assert one.split("-")[1] != other.split("-")[1]
    assert one.endswith("-00") and other.endswith("-00")


def test_a_trace_id_that_a_message_names_is_for_that_message_only(observed: Observed) -> None:
    assert trace_of(consume(observed, headers={"trace_id": TRACE})) == TRACE
    assert trace_of(consume(observed, headers={})) != TRACE


def test_every_error_of_the_bridge_has_a_word() -> None:
    words = {outcome_of(error("x")) for error in (NotSent, Unknown, Closed)}
    assert words == {"not_sent", "unknown", "closed"}
