"""The decide path, seen from both ends: what the client gets, and what stands on the wire."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from tests.support.documents import DECIDE, decide_body, envelope_body
from tests.support.http_client import Client
from tests.support.nats_tap import NatsTap
from tests.support.scripted_router import (
    DECIDE_SUBJECT,
    ScriptedRouter,
    decide_for,
    decision,
    own_provider,
)
from tests.support.stacks import Running
from tests.support.wire import check_correlation, decide_on_the_wire

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OTHER_TRACE = "0af7651916cd43dd8448eb211c80319c"
SECRET = "canary-9f3b1c"

EVERYTHING: dict[str, Any] = {
    "trace_id": TRACE,
    "constraints": {"max_cost": 0.5, "regions": ["eu"]},
    "metadata": {"source": "crm", "nested": {"deep": [1, 2.5, None, True]}},
    "push_assignment": False,
    "context": {"user_id": "u-1", "locale": "de"},
    "run_id": "0c1d2e3f-4a5b-4c6d-8e7f-901234567890",
    "flow_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "step_id": "9b2c6a52-0f4e-4f0a-9d6f-3f3f2c1b0a99",
}


def test_decision_comes_back_as_the_router_gave_it(routerless: Running) -> None:
    given = decision("mistral:large", metadata={"why": ["cheap", "near"], "n": 1.25}, note="née")
    given["decision"]["reason"] = None
    given["extension"] = {"passed": "on"}
    with (
        ScriptedRouter(routerless.nats.url, lambda request: given),
        routerless.gateway.client() as client,
    ):
        answer = client.post(DECIDE, decide_body(request_id="r-1"))
    assert answer.status == 200
    document = answer.json()
    assert {name: document[name] for name in given} == given
    assert set(document) == {*given, "context"}


def test_context_is_restored_when_the_router_lost_it(routerless: Running) -> None:
    request_id = str(uuid.uuid4())
    with (
        ScriptedRouter(routerless.nats.url, lambda request: decision()),
        routerless.gateway.client() as client,
    ):
        answer = client.post(DECIDE, decide_body(request_id=request_id, trace_id=TRACE))
    context = answer.json()["context"]
    assert (context["request_id"], context["trace_id"]) == (request_id, TRACE)
    check_correlation(answer, context)


def test_context_is_restored_when_the_router_mixed_it_up(routerless: Running) -> None:
    request_id = str(uuid.uuid4())
    wrong = decision() | {"context": {"request_id": "another", "trace_id": OTHER_TRACE}}
    with (
        ScriptedRouter(routerless.nats.url, lambda request: wrong),
        routerless.gateway.client() as client,
    ):
        answer = client.post(DECIDE, decide_body(request_id=request_id, trace_id=TRACE))
    context = answer.json()["context"]
    assert (context["request_id"], context["trace_id"]) == (request_id, TRACE)


def test_every_field_reaches_the_router_as_it_was_given(client: Client, tap: NatsTap) -> None:
    body = decide_body(**EVERYTHING, assignment_id=f"as-{uuid.uuid4().hex}")
    assert client.post(DECIDE, body).status == 200
    document, _ = decide_on_the_wire(tap, body["request_id"])
    assert document == body


def test_absent_optionals_are_omitted(client: Client, tap: NatsTap) -> None:
    body = decide_body()
    del body["policy_id"]
    assert client.post(DECIDE, body).status == 200
    document, _ = decide_on_the_wire(tap, body["request_id"])
    assert set(document) - set(body) <= {"trace_id"}
    assert document | body == document


@pytest.mark.parametrize(
    "field",
    "policy_id constraints metadata push_assignment assignment_id trace_id context run_id"
    " idempotency_key".split(),
)
def test_null_optional_is_refused_or_omitted_but_never_sent(
    client: Client, tap: NatsTap, field: str
) -> None:
    body = decide_body(**{field: None})
    answer = client.post(DECIDE, body)
    if answer.status == 200:
        document, _ = decide_on_the_wire(tap, body["request_id"])
        assert field == "trace_id" or field not in document
    else:
        assert (answer.status, answer.code) == (400, "invalid_request"), answer
        tap.settle()
        assert tap.messages() == []


def test_idempotency_key_is_sent_only_if_the_client_gave_one(client: Client, tap: NatsTap) -> None:
    with_key = decide_body(idempotency_key=f"key-{uuid.uuid4().hex}")
    without = decide_body()
    assert client.post(DECIDE, with_key).status == 200
    assert client.post(DECIDE, without).status == 200
    assert (
        decide_on_the_wire(tap, with_key["request_id"])[0]["idempotency_key"]
        == (with_key["idempotency_key"])
    )
    assert "idempotency_key" not in decide_on_the_wire(tap, without["request_id"])[0]


def test_older_envelope_reaches_the_router_in_the_present_form(
    client: Client, tap: NatsTap
) -> None:
    body = envelope_body(
        {"trace_id": TRACE, "metadata": {"source": "crm"}}, context={"user_id": "u-1"}
    )
    answer = client.post(DECIDE, body)
    assert answer.status == 200
    message_id = body["message"]["message_id"]
    check_correlation(answer, answer.json()["context"])
    assert answer.json()["context"]["request_id"] == message_id
    document, _ = decide_on_the_wire(tap, message_id)
    assert document == {
        "version": "1",
        "tenant_id": "acme",
        "request_id": message_id,
        "trace_id": TRACE,
        "task": {"type": "chat", "payload": json.loads(body["message"]["payload"])},
        "policy_id": "default",
        "metadata": {"source": "crm"},
        "context": {"user_id": "u-1"},
    }


def test_credentials_never_travel(stack: Running) -> None:
    """Neither in the message nor in whatever else it causes, internals of JetStream included."""
    body = decide_body()
    with NatsTap(stack.nats.url, internals=True) as tap, stack.gateway.client() as client:
        answer = client.post(
            DECIDE,
            body,
            {
                "Authorization": f"Bearer {SECRET}",
                "X-API-Key": SECRET,
                "Cookie": f"session={SECRET}",
                "Proxy-Authorization": f"Basic {SECRET}",
            },
        )
        assert answer.status == 200
        decide_on_the_wire(tap, body["request_id"])
        tap.settle()
        assert [message for message in tap.messages() if message.holds(SECRET)] == []
    assert SECRET.encode() not in answer.body


def test_one_request_is_one_message(client: Client, tap: NatsTap) -> None:
    """Repeating is the client's right, never the gateway's habit."""
    for _ in range(20):
        assert client.post(DECIDE, decide_body()).status == 200
    tap.settle()
    assert len(tap.messages(DECIDE_SUBJECT)) == 20


def test_answers_belong_to_their_requests(routerless: Running) -> None:
    with (
        ScriptedRouter(routerless.nats.url, decide_for),
        routerless.gateway.client() as client,
    ):
        for number in range(20):
            answer = client.post(DECIDE, decide_body(request_id=f"r-{number}"))
            assert answer.json()["decision"]["provider_id"] == own_provider(f"r-{number}")


def test_large_request_is_passed_on_or_refused_for_its_size(client: Client, tap: NatsTap) -> None:
    """A body within 1 MiB may still be too much for the NATS server once it has its envelope."""
    body = decide_body()
    room = 1024 * 1024 - len(json.dumps(body).encode())
    body["task"]["payload"]["text"] += "x" * room
    answer = client.post(DECIDE, body)
    assert (answer.status, answer.code) in {(200, None), (413, "payload_too_large")}, answer
    smaller = decide_body()
    smaller["task"]["payload"]["text"] += "x" * (room - 8192)
    assert client.post(DECIDE, smaller).status == 200
    decide_on_the_wire(tap, smaller["request_id"])
