"""Assignments, acks and usage: stored on their stream before they are answered, with the contract's headers."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.documents import (
    ACKS,
    ASSIGNMENTS,
    USAGE,
    ack_body,
    assignment_body,
    new_id,
    usage_body,
)
from tests.support.http_client import Answer, Client, as_tenant
from tests.support.load import at_once
from tests.support.nats_session import NatsSession, StoredMessage
from tests.support.nats_tap import NatsTap
from tests.support.stacks import Running
from tests.support.wire import (
    TRACEPARENT,
    USAGE_FIELDS,
    check_correlation,
    check_headers,
    check_no_nulls,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OTHER_TRACE = "0af7651916cd43dd8448eb211c80319c"


@dataclass(frozen=True)
class Kind:
    """One of the three publishes."""

    operation: str
    path: str
    key_type: str
    subject: str
    stream: str
    body: Callable[..., dict[str, Any]]

    def __str__(self) -> str:
        return self.operation


KINDS = [
    Kind(
        "assignments",
        ASSIGNMENTS,
        "assignment_id",
        "caf.exec.assign.v1",
        "BEAMLINE_EXEC",
        assignment_body,
    ),
    Kind("acks", ACKS, "ack_id", "caf.exec.assign.v1.ack", "BEAMLINE_EXEC", ack_body),
    Kind("usage", USAGE, "usage_id", "beamline.usage.v1.metered", "BEAMLINE_USAGE", usage_body),
]

each_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


@pytest.fixture(scope="module")
def streams(stack: Running) -> Iterator[NatsSession]:
    """A reader of the shared stack's streams."""
    with NatsSession(stack.nats.url, name="reader") as session:
        yield session


def stored(streams: NatsSession, kind: Kind, answer: Answer) -> StoredMessage:
    """The message that the answer says is stored: at its sequence, on its stream."""
    receipt = answer.json()
    assert receipt["stream"] == kind.stream
    after = streams.stream_messages(kind.stream, after=receipt["seq"] - 1)
    assert after[0].seq == receipt["seq"], "the sequence answered does not exist"
    assert after[0].subject == kind.subject
    return after[0]


@each_kind
def test_accepted_request_is_stored_where_the_answer_says(
    client: Client, streams: NatsSession, kind: Kind
) -> None:
    body = kind.body()
    answer = client.post(kind.path, body)
    assert answer.status == 202, answer
    receipt = answer.json()
    assert set(receipt) == {"ok", "operation", kind.key_type, "emitted", "stream", "seq", "context"}
    assert receipt["ok"] is True
    assert receipt["operation"] == kind.operation
    assert receipt[kind.key_type] == body[kind.key_type]
    assert receipt["emitted"] is True
    assert set(receipt["context"]) == {"request_id", "trace_id"}
    check_correlation(answer, receipt["context"])
    message = stored(streams, kind, answer)
    check_headers(message.headers, tenant="acme", jetstream=True)
    assert message.headers["trace_id"] == receipt["context"]["trace_id"]


@each_kind
def test_message_holds_what_was_sent(client: Client, streams: NatsSession, kind: Kind) -> None:
    body = kind.body()
    document = payload_of(stored(streams, kind, client.post(kind.path, body)))
    check_no_nulls(document)
    body.pop("usage_id", None)
    assert {name: document.get(name) for name in body} == body


@each_kind
def test_tenant_of_the_principal_is_written_into_the_message(
    client: Client, streams: NatsSession, kind: Kind
) -> None:
    body = kind.body()
    del body["tenant_id"]
    document = payload_of(stored(streams, kind, client.post(kind.path, body)))
    assert document["tenant_id"] == "acme"


@each_kind
def test_same_id_of_two_tenants_is_stored_twice(
    client: Client, streams: NatsSession, kind: Kind
) -> None:
    body = kind.body(tenant_id="acme")
    ours = client.post(kind.path, body)
    theirs = client.post(kind.path, body | {"tenant_id": "umbrella"}, as_tenant("umbrella"))
    assert (ours.status, theirs.status) == (202, 202), theirs
    messages = [stored(streams, kind, answer) for answer in (ours, theirs)]
    assert messages[0].seq != messages[1].seq
    assert [message.headers["tenant_id"] for message in messages] == ["acme", "umbrella"]
    assert messages[0].headers["Nats-Msg-Id"] != messages[1].headers["Nats-Msg-Id"]


def test_tenants_and_ids_that_join_to_the_same_text_stay_apart(
    client: Client, streams: NatsSession
) -> None:
    """``a-b`` with ``c`` is not ``a`` with ``b-c``."""
    kind, tail = KINDS[0], uuid.uuid4().hex
    for separator in "-.:_":
        pairs = [(f"a{separator}b", f"c{tail}"), ("a", f"b{separator}c{tail}")]
        answers = [
            client.post(
                kind.path,
                kind.body(tenant_id=tenant, assignment_id=assignment_id),
                as_tenant(tenant),
            )
            for tenant, assignment_id in pairs
        ]
        assert len({stored(streams, kind, answer).seq for answer in answers}) == 2


@each_kind
def test_correlation_of_headers_is_answered_and_sent(
    client: Client, streams: NatsSession, kind: Kind
) -> None:
    body = kind.body()
    request_id = new_id("r")
    if kind.operation == "assignments":
        del body["request_id"]
    headers = {
        "X-Request-ID": request_id,
        "X-Trace-ID": TRACE,
        "X-CP-Phase": "cp4",
        "traceparent": f"00-{OTHER_TRACE}-b7ad6b7169203331-01",
    }
    answer = client.post(kind.path, body, headers)
    assert answer.json()["context"] == {"request_id": request_id, "trace_id": TRACE}
    message = stored(streams, kind, answer)
    assert message.headers["trace_id"] == TRACE
    assert message.headers["cp_phase"] == "cp4"
    continued = TRACEPARENT.fullmatch(message.headers["traceparent"])
    assert continued and continued[1] == OTHER_TRACE


def test_assignment_takes_its_request_id_from_the_header_when_it_has_none(
    client: Client, streams: NatsSession
) -> None:
    body = assignment_body()
    del body["request_id"]
    request_id = new_id("r")
    answer = client.post(ASSIGNMENTS, body, {"X-Request-ID": request_id})
    assert payload_of(stored(streams, KINDS[0], answer))["request_id"] == request_id


def test_assignment_continues_the_trace_of_its_correlation(
    client: Client, streams: NatsSession
) -> None:
    answer = client.post(ASSIGNMENTS, assignment_body(correlation={"trace_id": TRACE}))
    message = stored(streams, KINDS[0], answer)
    assert message.headers["trace_id"] == TRACE
    assert answer.header("X-Trace-ID") == TRACE


def test_usage_message_has_exactly_the_fields_of_the_contract(
    client: Client, streams: NatsSession
) -> None:
    body = usage_body(request_id=new_id("r"), cost=0.000000001, latency_ms=0)
    message = stored(streams, KINDS[2], client.post(USAGE, body))
    document = payload_of(message)
    assert set(document) == USAGE_FIELDS
    assert message.headers["usage_id"] == body["usage_id"]
    assert "usage_source" not in message.headers
    assert document["cost"] == pytest.approx(1e-9, rel=1e-9)
    assert document["trace_id"] == message.headers["trace_id"]


@pytest.mark.parametrize("absent", ["assignment_id", "request_id"])
def test_usage_message_omits_the_id_that_is_absent(
    client: Client, streams: NatsSession, absent: str
) -> None:
    body = usage_body(request_id=new_id("r"))
    del body[absent]
    document = payload_of(stored(streams, KINDS[2], client.post(USAGE, body)))
    assert set(document) == USAGE_FIELDS - {absent}


def test_cost_keeps_its_decimal_places(client: Client, streams: NatsSession) -> None:
    for cost in (0.1, 0.123456789, 12345.000000001, 1e-9, 3):
        document = payload_of(stored(streams, KINDS[2], client.post(USAGE, usage_body(cost=cost))))
        assert document["cost"] == cost


@each_kind
def test_one_request_is_one_message(client: Client, tap: NatsTap, kind: Kind) -> None:
    for _ in range(10):
        assert client.post(kind.path, kind.body()).status == 202
    tap.settle()
    assert len(tap.messages(kind.subject)) == 10


@each_kind
def test_concurrent_requests_are_each_stored_once(
    stack: Running, streams: NatsSession, kind: Kind
) -> None:
    before = streams.last_sequence(kind.stream)
    bodies = [kind.body() for _ in range(40)]

    def work(body: dict[str, Any]) -> Answer:
        with stack.gateway.client() as client:
            return client.post(kind.path, body)

    answers = at_once(bodies, work)
    # More than fits into the workers at once may be told so, and sends again.
    with stack.gateway.client() as client:
        answers = [
            answer if answer.code != "overloaded" else client.post(kind.path, body)
            for answer, body in zip(answers, bodies, strict=True)
        ]
    assert {answer.status for answer in answers} == {202}
    messages = streams.stream_messages(kind.stream, after=before)
    wanted = {body[kind.key_type] for body in bodies}
    found = Counter(
        message.headers.get("usage_id") or payload_of(message)[kind.key_type]
        for message in messages
        if message.subject == kind.subject
    )
    assert {one: found[one] for one in wanted} == dict.fromkeys(wanted, 1)


def test_streams_are_declared_as_in_the_contract(streams: NatsSession) -> None:
    subjects = {
        "BEAMLINE_EXEC": {"caf.exec.assign.v1", "caf.exec.assign.v1.ack", "caf.exec.result.v1"},
        "BEAMLINE_USAGE": {"beamline.usage.v1.metered"},
    }
    windows = {"BEAMLINE_EXEC": 360.0, "BEAMLINE_USAGE": 24 * 3600.0}
    for name, expected in subjects.items():
        config = streams.stream_info(name).config
        assert set(config.subjects or []) == expected
        assert str(config.storage) == "file"
        assert str(config.retention) == "limits"
        assert str(config.discard) == "new"
        assert config.num_replicas == 1
        assert config.duplicate_window == windows[name]
        assert (config.max_age or 0) >= windows[name], "an id outlives its message"
        assert (config.max_bytes or 0) > 0
    dead = streams.stream_info("BEAMLINE_DLQ").config
    assert dead.subjects
    assert all(subject.endswith(".dlq") and "*" not in subject for subject in dead.subjects)


def payload_of(message: StoredMessage) -> dict[str, Any]:
    """The message's document."""
    document: dict[str, Any] = json.loads(message.payload)
    return document
