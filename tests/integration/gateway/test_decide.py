"""``POST /api/v1/routes/decide``: a decision of the strict reference Router over a real NATS server."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask.testing import FlaskClient

from gateway.devstack.behaviour import BROKEN_REPLIES
from gateway.devstack.contract import read_decide_request
from tests.integration.gateway.wired import CALLER, Wired
from tests.support.canaries import TEXT
from tests.support.documents import DECIDE, decide_body, envelope_body
from tests.support.nats_tap import NatsTap, TappedMessage
from tests.support.scripted_router import DECIDE_SUBJECT
from tests.support.waiting import DEADLINE_SLACK_SECONDS
from tests.support.wire import check_decide, check_headers

SECRET = "sw0rdf1sh"


def decide(client: FlaskClient, body: object, **headers: str) -> Any:
    return client.post(DECIDE, json=body, headers={**CALLER, **headers})


def the_request(tap: NatsTap) -> TappedMessage:
    """The one message on the Router's subject."""
    tap.settle()
    [message] = tap.messages(DECIDE_SUBJECT)
    return message


@pytest.mark.parametrize("body", [decide_body(), envelope_body()], ids=["decide", "envelope"])
def test_a_decision_comes_back_with_the_requests_own_context(
    client: FlaskClient, tap: NatsTap, body: dict[str, Any]
) -> None:
    answer = decide(client, body)
    assert answer.status_code == 200
    decided = answer.get_json()
    assert decided["ok"] is True and decided["decision"]["provider_id"]
    own_id = body.get("request_id") or body["message"]["message_id"]
    assert decided["context"]["request_id"] == own_id == answer.headers["X-Request-ID"]
    assert decided["context"]["trace_id"] == answer.headers["X-Trace-ID"]
    message = the_request(tap)
    read = read_decide_request(message.payload, message.headers)
    assert read.request_id == own_id
    assert read.task.payload == {"text": f"hello there {TEXT}"}


def test_one_request_is_one_message_with_the_contracts_fields_and_headers(
    client: FlaskClient, tap: NatsTap
) -> None:
    assert decide(client, decide_body(), **{"X-CP-Phase": "cp4"}).status_code == 200
    message = the_request(tap)
    check_headers(message.headers, tenant="acme")
    check_decide(message.json(), message.headers)
    assert message.headers["cp_phase"] == "cp4"


def test_credentials_do_not_travel(client: FlaskClient, tap: NatsTap) -> None:
    credentials = {
        "Authorization": f"Bearer {SECRET}",
        "X-API-Key": SECRET,
        "Cookie": SECRET,
        "X-Role": f"admin,{SECRET}",
    }
    assert decide(client, decide_body(), **credentials).status_code == 200
    tap.settle()
    assert tap.messages()
    assert not [message for message in tap.messages() if message.holds(SECRET)]


@pytest.mark.parametrize(
    ("policy", "status", "code", "intake"),
    [
        ("error:invalid_request:PAYLOAD_TOO_SMALL", 400, "invalid_request", "PAYLOAD_TOO_SMALL"),
        ("error:unauthorized:TENANT_FORBIDDEN", 401, "unauthorized", "TENANT_FORBIDDEN"),
        ("error:denied", 403, "denied", None),
        ("error:validator_blocked", 403, "denied", None),
        ("error:policy_not_found", 404, "policy_not_found", None),
        ("error:decision_failed", 500, "decision_failed", None),
        ("error:extension_unavailable", 503, "unavailable", None),
        ("error:extension_timeout", 504, "timeout", None),
        ("unknown-code", 502, "bad_reply", None),
        *((policy, 502, "bad_reply", None) for policy in BROKEN_REPLIES),
    ],
)
def test_what_the_router_says_no_with_becomes_its_row_of_the_table(
    client: FlaskClient, policy: str, status: int, code: str, intake: str | None
) -> None:
    body = decide_body(policy_id=policy)
    answer = decide(client, body)
    error = answer.get_json()["error"]
    assert (answer.status_code, error["code"], error["intake_error_code"]) == (status, code, intake)
    # The Router loses the request's id in intake errors; its client gets it all the same.
    assert answer.get_json()["context"]["request_id"] == body["request_id"]


def test_a_silent_router_is_504_at_the_deadline_that_the_client_named(client: FlaskClient) -> None:
    began = time.monotonic()
    answer = decide(client, decide_body(policy_id="silence"), **{"X-Request-Timeout-Ms": "200"})
    took = time.monotonic() - began
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (504, "timeout")
    assert 0.2 <= took < 0.2 + DEADLINE_SLACK_SECONDS


def test_a_late_reply_answers_nobody(client: FlaskClient) -> None:
    late = decide(client, decide_body(policy_id="late:300"), **{"X-Request-Timeout-Ms": "100"})
    assert late.status_code == 504
    for _ in range(5):
        answer = decide(client, decide_body(policy_id="delay:80"))
        assert answer.get_json()["decision"]["provider_id"] != "reference:late"


# -- traces -------------------------------------------------------------------------------------------

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def spans_by_name(shared: Wired) -> dict[str, Any]:
    return {span.name: span for span in shared.spans()}


def hex_ids(span: Any) -> tuple[str, str]:
    return format(span.context.trace_id, "032x"), format(span.context.span_id, "016x")


@pytest.mark.parametrize(
    "headers",
    [{"traceparent": PARENT}, {"X-Trace-ID": TRACE}, {}],
    ids=["continued", "named", "new"],
)
def test_one_trace_goes_from_the_client_through_http_and_nats_to_the_router(
    client: FlaskClient, shared: Wired, tap: NatsTap, headers: dict[str, str]
) -> None:
    answer = decide(client, decide_body(), **headers)
    message = the_request(tap)
    server = spans_by_name(shared)
    http, sent = server[f"POST {DECIDE}"], server["nats.request"]
    trace_id = answer.headers["X-Trace-ID"]
    assert trace_id == TRACE or not headers
    assert message.headers["trace_id"] == trace_id
    assert hex_ids(http)[0] == hex_ids(sent)[0] == trace_id
    # HTTP's span hangs below the client's, the message's below HTTP's, the Router's below the message's.
    parent = format(http.parent.span_id, "016x") if http.parent else None
    assert parent == ("00f067aa0ba902b7" if "traceparent" in headers else None)
    assert format(sent.parent.span_id, "016x") == hex_ids(http)[1]
    assert message.headers["traceparent"].split("-")[1:3] == list(hex_ids(sent))
    assert sent.attributes["subject"] == DECIDE_SUBJECT
    assert sent.attributes["tenant_id"] == http.attributes["tenant_id"] == "acme"
    assert sent.attributes["cp_phase"] == http.attributes["cp_phase"] == "cp2"


def test_a_trace_id_in_the_body_is_the_messages_and_the_answers(
    client: FlaskClient, tap: NatsTap
) -> None:
    own = "a" * 32
    answer = decide(client, decide_body(trace_id=own.upper()), traceparent=PARENT)
    assert answer.get_json()["context"]["trace_id"] == own
    message = the_request(tap)
    assert message.headers["trace_id"] == message.json()["trace_id"] == own
