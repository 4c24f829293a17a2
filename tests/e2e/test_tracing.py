"""One trace from the HTTP request over NATS to the usage event: two workers and a real OTLP receiver."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.tracing.otlp.receiver import Protocol
from tests.support.documents import ASSIGNMENTS, DECIDE, assignment_body, decide_body
from tests.support.http_client import Client
from tests.support.nats_tap import NatsTap
from tests.support.traces import (
    GATEWAY,
    ROUTER,
    WORKER,
    Traced,
    children,
    find,
    only,
    traced,
)
from tests.support.waiting import wait_until

ASSIGN = "caf.exec.assign.v1"
RESULT = "caf.exec.result.v1"
USAGE_SUBJECT = "beamline.usage.v1.metered"
DECIDE_SUBJECT = "beamline.router.v1.decide"
CALLERS_SPAN = "00f067aa0ba902b7"
CP_FAMILIES = ("beamline_gateway_cp_requests_total", "beamline_gateway_cp_latency_seconds_count")


def called_in(trace_id: str, flags: str = "01") -> dict[str, str]:
    """The headers of a client that traces."""
    return {"traceparent": f"00-{trace_id}-{CALLERS_SPAN}-{flags}"}


def counted(traced: Traced, name: str, **labels: str) -> float:
    """The sum of this sample over all label sets that have these labels."""
    with traced.gateway.client(headers={}) as client:
        text = client.get("/metrics", {"Accept": "text/plain"}).body.decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@pytest.fixture(scope="module")
def stack() -> Iterator[Traced]:
    with traced("tracing", router=True, worker=True) as started:
        yield started


@pytest.fixture
def client(stack: Traced) -> Iterator[Client]:
    with stack.gateway.client() as client:
        yield client


@pytest.fixture
def trace_id() -> str:
    """A trace that no other test has."""
    return uuid.uuid4().hex


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_one_trace_leads_from_the_request_to_the_usage_event(
    protocol: Protocol, trace_id: str
) -> None:
    phase = "cp2"
    with traced(f"one-trace-{protocol}", protocol=protocol, router=True, worker=True) as stack:
        labels = {"cp_phase": phase, "route": ASSIGNMENTS, "method": "POST"}
        with stack.gateway.client() as client:
            headers = {"X-CP-Phase": phase, **called_in(trace_id)}
            assert client.post(ASSIGNMENTS, assignment_body(), headers).status == 202
        metered = only(stack.wait_for(trace_id, name="nats.publish", subject=USAGE_SUBJECT))
        spans = [span for span in stack.settle() if span.trace_id == trace_id]
        wait_until(lambda: all(counted(stack, name, **labels) == 1 for name in CP_FAMILIES))

    request = only([span for span in spans if span.parent_id == CALLERS_SPAN])
    assert (request.service, request.kind, request.name) == (
        GATEWAY,
        "server",
        f"POST {ASSIGNMENTS}",
    )
    sent = only(children(spans, request))
    assert (sent.service, sent.kind, sent.name) == (GATEWAY, "producer", "nats.publish")
    assert sent.attributes["subject"] == ASSIGN
    taken = only(children(spans, sent))
    assert (taken.service, taken.kind, taken.name) == (WORKER, "consumer", "nats.consume")
    (returned,) = find(children(spans, taken), "nats.publish", subject=RESULT)
    assert (returned.service, returned.kind) == (WORKER, "producer")
    (consumed,) = find(children(spans, returned), "nats.consume")
    assert (consumed.service, consumed.kind) == (GATEWAY, "consumer")
    assert consumed.attributes["subject"] == RESULT
    assert consumed.attributes["durable"] == "beamline-gateway-results"
    assert consumed.attributes["redelivery_count"] == 0
    assert only(children(spans, consumed)) == metered
    assert (metered.service, metered.kind) == (GATEWAY, "producer")
    for span in spans:
        assert span.attributes["cp_phase"] == phase, span
        assert span.attributes["tenant_id"] == "acme", span
        assert span.status == "unset", span
        assert span is request or "subject" in span.attributes, span


def test_a_decide_is_one_trace_with_the_router_and_what_it_assigns(
    stack: Traced, client: Client, trace_id: str
) -> None:
    body = decide_body(push_assignment=True)
    assert client.post(DECIDE, body, called_in(trace_id)).status == 200
    stack.wait_for(trace_id, name="nats.publish", subject=USAGE_SUBJECT)
    spans = [span for span in stack.settle() if span.trace_id == trace_id]
    request = only([span for span in spans if span.parent_id == CALLERS_SPAN])
    asked = only(children(spans, request))
    assert (asked.name, asked.kind) == ("nats.request", "client")
    assert asked.attributes["subject"] == DECIDE_SUBJECT
    decided = only(children(spans, asked))
    assert (decided.service, decided.kind) == (ROUTER, "server")
    assigned = only(children(spans, decided))
    assert assigned.attributes["subject"] == ASSIGN
    assert only(children(spans, assigned)).service == WORKER


def test_messages_on_the_wire_name_the_span_that_sent_them(
    stack: Traced, client: Client, trace_id: str
) -> None:
    with NatsTap(stack.nats.url, (ASSIGN, RESULT, USAGE_SUBJECT)) as tap:
        assert client.post(ASSIGNMENTS, assignment_body(), called_in(trace_id)).status == 202
        # The worker may still be at what an earlier test sent.
        messages = tap.wait_for(3, where=lambda one: one.headers.get("trace_id") == trace_id)
    assert {message.subject for message in messages} == {ASSIGN, RESULT, USAGE_SUBJECT}
    for message in messages:
        span = only(stack.wait_for(trace_id, name="nats.publish", subject=message.subject))
        assert message.headers["traceparent"].split("-")[1:3] == [trace_id, span.span_id]
        assert message.headers["trace_id"] == trace_id
        assert message.headers["cp_phase"] == span.attributes["cp_phase"]


def test_spans_speak_the_current_conventions(stack: Traced, client: Client, trace_id: str) -> None:
    body = assignment_body()
    client.post(ASSIGNMENTS, body, called_in(trace_id))
    request = stack.server_span(trace_id)
    stable = {
        "http.request.method": "POST",
        "http.route": ASSIGNMENTS,
        "http.response.status_code": 202,
        "url.scheme": "http",
        "url.path": ASSIGNMENTS,
        "network.protocol.version": "1.1",
    }
    assert stable.items() <= request.attributes.items()
    assert request.attributes["request_id"] == body["request_id"]
    (sent,) = stack.wait_for(trace_id, name="nats.publish", subject=ASSIGN)
    assert sent.attributes["messaging.system"] == "nats"
    assert sent.attributes["messaging.destination.name"] == ASSIGN
    assert sent.attributes["messaging.operation.name"] == "publish"
    assert sent.attributes["messaging.operation.type"] == "send"
    (consumed,) = stack.wait_for(trace_id, name="nats.consume", durable="beamline-gateway-results")
    assert consumed.attributes["messaging.operation.type"] == "process"
    assert consumed.attributes["messaging.consumer.group.name"] == "beamline-gateway-results"
    (returned,) = stack.wait_for(trace_id, name="nats.publish", subject=RESULT)
    assert (
        consumed.attributes["messaging.message.id"] == returned.attributes["messaging.message.id"]
    )
    assert request.resource["service.name"] == GATEWAY
    assert request.resource["service.version"]


@pytest.mark.parametrize(
    ("phase", "recorded"),
    [("cp5", "cp5"), (None, "cp2"), ("cp99", "unknown"), ("x" * 300, "unknown")],
    ids=["known", "absent", "unknown", "hostile"],
)
def test_the_phase_of_spans_is_that_of_the_metrics(
    stack: Traced, client: Client, trace_id: str, phase: str | None, recorded: str
) -> None:
    labels = {"cp_phase": recorded, "route": ASSIGNMENTS}
    before = [counted(stack, name, **labels) for name in CP_FAMILIES]
    given = {} if phase is None else {"X-CP-Phase": phase}
    client.post(ASSIGNMENTS, assignment_body(), {**called_in(trace_id), **given})
    stack.wait_for(trace_id, name="nats.publish", subject=USAGE_SUBJECT)
    for span in stack.settle():
        if span.trace_id == trace_id and span.service == GATEWAY:
            assert span.attributes["cp_phase"] == recorded
    wait_until(
        lambda: (
            [counted(stack, name, **labels) for name in CP_FAMILIES]
            == [count + 1 for count in before]
        )
    )


# -- once --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [ASSIGNMENTS, DECIDE])
def test_a_replay_says_so_and_links_to_the_first_request_on_every_worker(
    stack: Traced, trace_id: str, path: str
) -> None:
    body = assignment_body() if path == ASSIGNMENTS else decide_body(assignment_id=f"as-{trace_id}")
    with stack.gateway.client() as client:
        client.post(path, body, called_in(trace_id))
    first = stack.server_span(trace_id)
    assert "idempotency.replayed" not in first.attributes and not first.links
    instances: set[object] = set()

    def replayed_by_both() -> bool:
        again = uuid.uuid4().hex
        with stack.gateway.client() as client:  # a connection each, so that both workers get some
            assert client.post(path, body, called_in(again)).header("Idempotency-Replayed")
        span = stack.server_span(again)
        assert span.attributes["idempotency.replayed"] is True
        (link,) = span.links
        assert (link.trace_id, link.span_id) == (first.trace_id, first.span_id)
        # Nothing was sent again.
        assert not find(children(stack.receiver.spans(), span), subject=DECIDE_SUBJECT)
        instances.add(span.resource["service.instance.id"])
        return len(instances) == 2

    wait_until(replayed_by_both)


# -- whose trace -------------------------------------------------------------------------------------


def test_a_caller_that_does_not_record_is_followed_in_that(
    stack: Traced, client: Client, trace_id: str
) -> None:
    with NatsTap(stack.nats.url, (ASSIGN,)) as tap:
        client.post(ASSIGNMENTS, assignment_body(), called_in(trace_id, "00"))
        (message,) = tap.wait_for(1)
    assert message.headers["traceparent"].startswith(f"00-{trace_id}-")
    assert message.headers["traceparent"].endswith("-00")
    assert not [span for span in stack.settle() if span.trace_id == trace_id]


def test_an_x_trace_id_without_traceparent_names_the_trace(
    stack: Traced, client: Client, trace_id: str
) -> None:
    client.post(ASSIGNMENTS, assignment_body(), {"X-Trace-ID": trace_id})
    assert stack.server_span(trace_id).parent_id == ""
    stack.wait_for(trace_id, name="nats.publish", subject=USAGE_SUBJECT)


def test_a_trace_id_in_the_body_alone_is_told_beside_the_traces_own(
    stack: Traced, client: Client, trace_id: str
) -> None:
    named = uuid.uuid4().hex
    answer = client.post(DECIDE, decide_body(trace_id=named), called_in(trace_id))
    assert answer.header("X-Trace-ID") == named
    assert stack.server_span(trace_id).attributes["trace_id"] == named


def test_requests_of_one_connection_do_not_share_a_trace(stack: Traced, client: Client) -> None:
    traces = [client.post(ASSIGNMENTS, assignment_body()).header("X-Trace-ID") for _ in range(5)]
    assert len(set(traces)) == 5
    for found in traces:
        assert stack.server_span(found or "").parent_id == ""
