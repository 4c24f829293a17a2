"""What went wrong is visible in the trace: refused and redelivered messages, a silent Router, NATS away."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterator

import pytest

from gateway.telemetry.tracing.otlp.spans import Span
from tests.support.documents import ASSIGNMENTS, DECIDE, assignment_body, decide_body
from tests.support.http_client import Client
from tests.support.nats_session import NatsSession
from tests.support.result_messages import (
    EXEC,
    RESULT_SUBJECT,
    publish,
    result_body,
    result_headers,
    usage_of,
)
from tests.support.scripted_router import ScriptedRouter
from tests.support.traces import GATEWAY, Traced, children, only, traced
from tests.support.waiting import wait_until

DELIVERIES = 3
SENDERS_SPAN = "00f067aa0ba902b7"
ENVIRONMENT = {
    "NATS_MAX_DELIVER": str(DELIVERIES),
    "NATS_BACKOFF_MS": "50",
    "ROUTER_REQUEST_TIMEOUT_MS": "300",
    "WEB_CONCURRENCY": "2",
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Traced]:
    with traced("failing", ENVIRONMENT) as started:
        yield started


@pytest.fixture(scope="module")
def worker(stack: Traced) -> Iterator[NatsSession]:
    with NatsSession(stack.nats.url, name="worker") as session:
        yield session


@pytest.fixture
def client(stack: Traced) -> Iterator[Client]:
    with stack.gateway.client() as client:
        yield client


@pytest.fixture
def trace_id() -> str:
    """A trace that no other test has."""
    return uuid.uuid4().hex


def sent_in(trace_id: str) -> dict[str, str]:
    """Headers of a result that a tracing worker sends."""
    return result_headers(traceparent=f"00-{trace_id}-{SENDERS_SPAN}-01", trace_id=trace_id)


def test_each_delivery_of_a_refused_result_is_a_span_until_its_dead_letter(
    stack: Traced, worker: NatsSession, trace_id: str
) -> None:
    seq = publish(worker, result_body(status="no such status"), sent_in(trace_id))
    letter = only(stack.wait_for(trace_id, name="nats.publish", subject=f"{RESULT_SUBJECT}.dlq"))
    consumed = stack.wait_for(trace_id, DELIVERIES, name="nats.consume", stream_seq=seq)
    assert [span.attributes["redelivery_count"] for span in consumed] == list(range(DELIVERIES))
    for span in consumed:
        assert span.parent_id == SENDERS_SPAN
        assert (span.status, span.status_message) == ("error", "schema_invalid")
        assert span.attributes["error.type"] == "schema_invalid"
    turns = [[event.name for event in span.events] for span in consumed]
    assert turns == [["refused"], ["refused"], ["given_up"]]
    assert letter.parent_id == consumed[-1].span_id


def test_a_result_that_says_nothing_of_a_trace_begins_one_that_its_usage_continues(
    stack: Traced, worker: NatsSession
) -> None:
    body = result_body()
    headers = result_headers()
    del headers["trace_id"]
    publish(worker, body, headers)
    (usage,) = wait_until(lambda: usage_of(worker, assignment_id=body["assignment_id"]))
    told = usage.headers["trace_id"]
    metered = only(stack.wait_for(told, name="nats.publish"))
    consumed = only(stack.wait_for(told, name="nats.consume"))
    assert (consumed.parent_id, metered.parent_id) == ("", consumed.span_id)


def test_a_result_that_names_a_trace_by_its_id_alone_is_in_that_trace(
    stack: Traced, worker: NatsSession, trace_id: str
) -> None:
    publish(worker, result_body(), result_headers(trace_id=trace_id))
    consumed = only(stack.wait_for(trace_id, name="nats.consume"))
    assert consumed.parent_id == ""
    metered = only(stack.wait_for(trace_id, name="nats.publish"))
    assert metered.parent_id == consumed.span_id


@pytest.mark.parametrize(
    "traceparent",
    ["", "nonsense", f"00-{'0' * 32}-{SENDERS_SPAN}-01", f"ff-{'a' * 32}-{SENDERS_SPAN}-01"],
)
def test_a_broken_traceparent_of_a_result_is_no_parent(
    stack: Traced, worker: NatsSession, trace_id: str, traceparent: str
) -> None:
    publish(worker, result_body(), result_headers(trace_id=trace_id, traceparent=traceparent))
    assert only(stack.wait_for(trace_id, name="nats.consume")).parent_id == ""


def test_what_a_hostile_sender_writes_into_headers_is_not_in_the_span(
    stack: Traced, worker: NatsSession, trace_id: str
) -> None:
    headers = sent_in(trace_id) | {
        "tenant_id": "evil tenant",
        "cp_phase": "evil-phase",
        "Nats-Msg-Id": "evil" * 100 + uuid.uuid4().hex,
    }
    publish(worker, result_body(), headers)
    spans = stack.wait_for(trace_id, DELIVERIES, name="nats.consume")
    for span in spans:
        assert span.attributes["cp_phase"] == "unknown"
        assert "evil" not in repr(span)


def failed_call(stack: Traced, trace_id: str, name: str) -> tuple[Span, Span]:
    """The request's span, and that of the message below it."""
    request = stack.server_span(trace_id)
    return request, only(children(stack.wait_for(trace_id, name=name), request))


def test_a_silent_router_is_an_unknown_request_and_a_failed_server_span(
    stack: Traced, client: Client, trace_id: str
) -> None:
    with ScriptedRouter(stack.nats.url, lambda request: None):
        answer = client.post(DECIDE, decide_body(), {"X-Trace-ID": trace_id})
    assert answer.code == "timeout"
    request, asked = failed_call(stack, trace_id, "nats.request")
    assert (request.status, request.attributes["http.response.status_code"]) == ("error", 504)
    assert request.attributes["error_code"] == "timeout"
    assert (asked.status, asked.status_message) == ("error", "unknown")
    assert asked.attributes["error.type"] == "unknown"


def test_without_a_router_the_request_was_not_sent(
    stack: Traced, client: Client, trace_id: str
) -> None:
    assert client.post(DECIDE, decide_body(), {"X-Trace-ID": trace_id}).status == 503
    request, asked = failed_call(stack, trace_id, "nats.request")
    assert (request.status, asked.attributes["error.type"]) == ("error", "not_sent")


def test_a_refusal_of_the_router_is_no_failure_of_the_message_but_the_answers_code(
    stack: Traced, client: Client, trace_id: str
) -> None:
    refusal = {"ok": False, "error": {"code": "policy_not_found", "message": "none"}}
    with ScriptedRouter(stack.nats.url, lambda request: refusal):
        client.post(DECIDE, decide_body(), {"X-Trace-ID": trace_id})
    request, asked = failed_call(stack, trace_id, "nats.request")
    # 4xx is the client's mistake: no error of the server's span (OpenTelemetry's conventions).
    assert (request.status, asked.status) == ("unset", "unset")
    assert request.attributes["error_code"] == "policy_not_found"


def test_refused_requests_are_found_by_phase_and_code(stack: Traced, trace_id: str) -> None:
    headers = {"X-Trace-ID": trace_id, "X-CP-Phase": "cp7"}
    with stack.gateway.client(headers={}) as stranger:
        assert stranger.post(DECIDE, decide_body(), headers).status == 401
    span = stack.server_span(trace_id)
    assert (span.attributes["cp_phase"], span.attributes["error_code"]) == ("cp7", "unauthorized")
    assert "tenant_id" not in span.attributes


def test_a_request_that_nats_does_not_answer_is_a_failed_server_span(trace_id: str) -> None:
    environment = {**ENVIRONMENT, "ROUTER_REQUEST_TIMEOUT_MS": "1000"}
    with traced("frozen", environment) as stack, stack.gateway.client() as client:
        assert client.post(ASSIGNMENTS, assignment_body()).status == 202
        stack.nats.freeze()
        try:
            answer = client.post(ASSIGNMENTS, assignment_body(), {"X-Trace-ID": trace_id})
        finally:
            stack.nats.thaw()
        assert answer.status in (503, 504)
        request = stack.server_span(trace_id)
        assert request.status == "error"
        assert request.attributes["error_code"] == json.loads(answer.body)["error"]["code"]


def test_a_result_whose_worker_died_with_it_in_hand_is_delivered_again_and_says_so(
    trace_id: str,
) -> None:
    environment = {**ENVIRONMENT, "NATS_ACK_WAIT_MS": "500"}
    with (
        traced("redelivered", environment) as stack,
        NatsSession(stack.nats.url, name="worker") as worker,
    ):
        workers = stack.gateway.workers()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        publish(worker, result_body(), sent_in(trace_id))
        wait_until(lambda: _in_hand(worker) == 1)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        (consumed,) = stack.wait_for(trace_id, name="nats.consume")
    assert consumed.attributes["redelivery_count"] >= 1
    assert (consumed.service, consumed.parent_id) == (GATEWAY, SENDERS_SPAN)
    assert consumed.status == "unset"


def _in_hand(session: NatsSession) -> int:
    found = session.call(session.jetstream.consumer_info(EXEC, "beamline-gateway-results"))
    return found.num_ack_pending or 0
