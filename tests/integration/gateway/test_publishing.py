"""Assignments, acks and usage: stored on their streams as the contract has them, and acknowledged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from flask.testing import FlaskClient

from gateway.devstack.contract import read_exec_ack, read_exec_assignment
from gateway.devstack.nats_server import NatsServer
from tests.integration.gateway.wired import CALLER, Wired
from tests.support.documents import (
    ACKS,
    ASSIGNMENTS,
    USAGE,
    ack_body,
    assignment_body,
    new_id,
    now_ms,
    usage_body,
)
from tests.support.nats_session import NatsSession, StoredMessage
from tests.support.nats_tap import NatsTap
from tests.support.wire import USAGE_FIELDS, check_headers, check_no_nulls

SECRET = "sw0rdf1sh"


@dataclass(frozen=True)
class Kind:
    """One publishing endpoint."""

    path: str
    operation: str
    key: str
    subject: str
    stream: str
    body: Callable[..., dict[str, Any]]


KINDS = [
    Kind(ASSIGNMENTS, "assignments", "assignment_id", "caf.exec.assign.v1", "BEAMLINE_EXEC", assignment_body),
    Kind(ACKS, "acks", "ack_id", "caf.exec.assign.v1.ack", "BEAMLINE_EXEC", ack_body),
    Kind(USAGE, "usage", "usage_id", "beamline.usage.v1.metered", "BEAMLINE_USAGE", usage_body),
]  # fmt: skip
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.operation)


@pytest.fixture
def streams(nats: NatsServer) -> Iterator[NatsSession]:
    with NatsSession(nats.url) as session:
        yield session


def post(client: FlaskClient, kind: Kind, body: object, **headers: str) -> Any:
    return client.post(kind.path, json=body, headers={**CALLER, **headers})


def stored(streams: NatsSession, receipt: dict[str, Any]) -> StoredMessage:
    """The message that a receipt speaks of."""
    [message] = [
        one
        for one in streams.stream_messages(receipt["stream"], after=receipt["seq"] - 1)
        if one.seq == receipt["seq"]
    ]
    return message


@each_kind
def test_a_stored_message_is_answered_202_with_its_place(
    client: FlaskClient, streams: NatsSession, kind: Kind
) -> None:
    body = kind.body()
    answer = post(client, kind, body)
    assert answer.status_code == 202
    receipt = answer.get_json()
    message = stored(streams, receipt)
    assert receipt == {
        "ok": True,
        "operation": kind.operation,
        kind.key: body[kind.key],
        "emitted": True,
        "stream": kind.stream,
        "seq": message.seq,
        "context": {
            "request_id": answer.headers["X-Request-ID"],
            "trace_id": answer.headers["X-Trace-ID"],
        },
    }
    assert message.subject == kind.subject
    check_no_nulls(json.loads(message.payload))


@each_kind
def test_the_message_carries_the_contracts_headers_and_no_credential(
    client: FlaskClient, tap: NatsTap, kind: Kind
) -> None:
    credentials = {"Authorization": f"Bearer {SECRET}", "X-API-Key": SECRET, "Cookie": SECRET}
    assert post(client, kind, kind.body(), **credentials).status_code == 202
    [message] = tap.wait_for(1, kind.subject)
    tap.settle()
    assert not [one for one in tap.messages() if one.holds(SECRET)]
    check_headers(message.headers, tenant="acme", jetstream=True)


def test_a_worker_can_read_an_assignment(client: FlaskClient, streams: NatsSession) -> None:
    body = assignment_body(
        options={"priority": 0, "deadline_ms": 0, "retry": {"max_attempts": 3, "backoff_ms": 0}},
        correlation={"trace_id": "A" * 32},
        decision={"reason": "best_score"},
        metadata={"free": [None, 1.5, {}]},
    )
    message = stored(streams, post(client, KINDS[0], body).get_json())
    read = read_exec_assignment(message.payload, message.headers)
    assert read.assignment_id == body["assignment_id"] and read.request_id == body["request_id"]
    sent = json.loads(message.payload)
    assert sent == {**body, "correlation": {"trace_id": "a" * 32}}


def test_the_router_can_read_an_ack(client: FlaskClient, streams: NatsSession) -> None:
    body = ack_body(status="rejected", reason="busy", metadata={})
    message = stored(streams, post(client, KINDS[1], body).get_json())
    read = read_exec_ack(message.payload, message.headers)
    assert (read.ack_id, read.status) == (body["ack_id"], "rejected")


@pytest.mark.parametrize("which", ["assignment_id", "request_id", "both"])
def test_usage_goes_out_with_exactly_the_contracts_fields(
    client: FlaskClient, streams: NatsSession, which: str
) -> None:
    body = usage_body(latency_ms=0, cost=1e-9)
    if which != "assignment_id":
        body["request_id"] = new_id("rq")
    if which == "request_id":
        del body["assignment_id"]
    message = stored(streams, post(client, KINDS[2], body).get_json())
    sent = json.loads(message.payload)
    optional = {"assignment_id", "request_id"} - body.keys()
    assert sent.keys() == USAGE_FIELDS - optional
    assert {name: sent[name] for name in sent if name != "trace_id"} == {
        name: body[name] for name in sent if name != "trace_id"
    }
    assert sent["trace_id"] == message.headers["trace_id"]
    assert message.headers["usage_id"] == body["usage_id"]


@pytest.mark.parametrize(
    ("offset_ms", "status"),
    [
        (0, 202),
        (4 * 60_000, 202),
        (-23 * 3_600_000, 202),
        (6 * 60_000, 400),
        (-25 * 3_600_000, 400),
    ],
    ids=["now", "a little ahead", "a little old", "too far ahead", "too old"],
)
def test_usage_is_of_the_window_in_which_it_is_counted_once(
    client: FlaskClient, offset_ms: int, status: int
) -> None:
    answer = post(client, KINDS[2], usage_body(timestamp=now_ms() + offset_ms))
    assert answer.status_code == status
    assert status == 202 or "timestamp" in answer.get_json()["error"]["message"]


@each_kind
def test_the_idempotency_key_is_another_spelling_of_the_id(
    client: FlaskClient, streams: NatsSession, kind: Kind
) -> None:
    body, key = kind.body(), new_id("key")
    del body[kind.key]
    answer = post(client, kind, body, **{"Idempotency-Key": key})
    assert answer.status_code == 202
    assert answer.get_json()[kind.key] == key
    message = stored(streams, answer.get_json())
    named = json.loads(message.payload).get(kind.key) or message.headers.get(kind.key)
    assert named == key


@each_kind
def test_the_same_request_again_is_the_same_message(
    client: FlaskClient, streams: NatsSession, kind: Kind
) -> None:
    body = kind.body()
    first = post(client, kind, body).get_json()
    again = post(client, kind, body).get_json()
    assert (again["stream"], again["seq"]) == (first["stream"], first["seq"])
    assert streams.last_sequence(kind.stream) == first["seq"]


def test_equal_ids_of_two_operations_are_two_messages(
    client: FlaskClient, streams: NatsSession
) -> None:
    """An assignment and an ack may have equal ids; neither is taken for the other."""
    same = new_id("same")
    one = post(client, KINDS[0], assignment_body(assignment_id=same)).get_json()
    other = post(client, KINDS[1], ack_body(ack_id=same)).get_json()
    assert one["seq"] != other["seq"]


@each_kind
def test_the_trace_goes_on_below_the_span_that_published(
    client: FlaskClient, shared: Wired, tap: NatsTap, kind: Kind
) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = f"00-{trace_id}-00f067aa0ba902b7-01"
    assert post(client, kind, kind.body(), traceparent=parent).status_code == 202
    [message] = tap.wait_for(1, kind.subject)
    spans = {span.name: span for span in shared.spans()}
    http, sent = spans[f"POST {kind.path}"], spans["nats.publish"]
    assert http.context is not None and sent.context is not None and sent.parent is not None
    assert sent.parent.span_id == http.context.span_id
    assert message.headers["trace_id"] == trace_id
    assert message.headers["traceparent"].split("-")[1:3] == [
        trace_id,
        format(sent.context.span_id, "016x"),
    ]
    assert (sent.attributes or {})["subject"] == kind.subject
