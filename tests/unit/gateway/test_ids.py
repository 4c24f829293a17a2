"""Ids of a request: given ones come back, missing ones are made, malformed ones are told."""

from __future__ import annotations

import pytest
from flask import Flask

from tests.unit.gateway.given import (
    ACK_BODY,
    ACKS,
    ASSIGNMENTS,
    CALLER,
    DECIDE,
    DECIDE_BODY,
    TENANT,
    TRACE,
    app_without_nats,
    expect,
    post,
)


@pytest.fixture(scope="module")
def gateway() -> Flask:
    return app_without_nats()


def test_ids_are_made_up_where_none_are_given(gateway: Flask) -> None:
    first, second = (post(gateway).get_json()["context"] for _ in range(2))
    assert first["request_id"] != second["request_id"]
    assert first["trace_id"] != second["trace_id"]


def test_given_ids_come_back_in_the_form_of_the_wire(gateway: Flask) -> None:
    given_ids = {"X-Request-ID": "r-1", "X-Trace-ID": "4BF92F35-77B3-4DA6-A3CE-929D0E0E4736"}
    context = post(gateway, headers={**CALLER, **given_ids}).get_json()["context"]
    assert context == {"request_id": "r-1", "trace_id": TRACE, "tenant_id": TENANT}


def test_an_incoming_traceparent_is_continued(gateway: Flask) -> None:
    parent = f"00-{TRACE}-00f067aa0ba902b7-01"
    context = post(gateway, headers={**CALLER, "traceparent": parent}).get_json()["context"]
    assert context["trace_id"] == TRACE


@pytest.mark.parametrize(
    "parent", ["", "x", f"00-{'0' * 32}-00f067aa0ba902b7-01", f"ff-{TRACE}-1-1"]
)
def test_an_invalid_traceparent_is_ignored(gateway: Flask, parent: str) -> None:
    answer = post(gateway, headers={**CALLER, "traceparent": parent})
    expect(answer, 503, "unavailable")
    assert answer.headers["X-Trace-ID"] not in (TRACE, "0" * 32)


def test_a_traces_id_in_the_body_beats_the_parents_and_loses_against_the_header(
    gateway: Flask,
) -> None:
    in_body, in_header = "b" * 32, "c" * 32
    body = {**DECIDE_BODY, "trace_id": in_body, "request_id": "r-body"}
    headers = {
        **CALLER,
        "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
        "X-Request-ID": "r-header",
    }
    assert post(gateway, body=body, headers=headers).get_json()["context"] == {
        "request_id": "r-body",
        "trace_id": in_body,
        "tenant_id": TENANT,
    }
    headers["X-Trace-ID"] = in_header
    assert post(gateway, body=body, headers=headers).headers["X-Trace-ID"] == in_header


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Request-ID", ""),
        ("X-Request-ID", "a b"),
        ("X-Request-ID", "r" * 129),
        ("X-Request-ID", "é"),
        ("X-Trace-ID", ""),
        ("X-Trace-ID", "0" * 32),
        ("X-Trace-ID", f"00-{TRACE}-00f067aa0ba902b7-01"),
        ("X-Request-Timeout-Ms", ""),
        ("X-Request-Timeout-Ms", "0"),
        ("X-Request-Timeout-Ms", "-5"),
        ("X-Request-Timeout-Ms", "5.0"),
        ("X-Request-Timeout-Ms", "5, 5"),
        ("X-Request-Timeout-Ms", "٥"),
        ("X-Request-Timeout-Ms", "1" * 10),
        ("Idempotency-Key", ""),
        ("Idempotency-Key", "a b"),
        ("Idempotency-Key", "k" * 129),
    ],
)
def test_a_malformed_header_is_400_and_named(gateway: Flask, name: str, value: str) -> None:
    body = expect(post(gateway, headers={**CALLER, name: value}), 400, "invalid_request")
    assert name in body["error"]["message"]
    assert body["context"]["request_id"] and body["context"]["trace_id"]


def test_probes_do_not_mind_malformed_headers(gateway: Flask) -> None:
    answer = gateway.test_client().get("/health", headers={"X-Trace-ID": "none"})
    assert answer.status_code == 200


# -- the other spelling of an id -----------------------------------------------------------------------


def test_the_idempotency_key_stands_for_the_id_of_each_operation(gateway: Flask) -> None:
    """With a body that has none; what is missing then is only NATS."""
    headers = {**CALLER, "Idempotency-Key": "i-1"}
    less = {name: value for name, value in ACK_BODY.items() if name != "ack_id"}
    expect(post(gateway, ACKS, less, headers), 503, "unavailable")
    assignment = {
        "executor": {"provider_id": "p", "channel": "nats"},
        "job": {"type": "chat", "payload": {}},
    }
    expect(post(gateway, ASSIGNMENTS, assignment, headers), 503, "unavailable")
    expect(post(gateway, DECIDE, DECIDE_BODY, headers), 503, "unavailable")


def test_an_id_must_be_given_in_one_of_both_places(gateway: Flask) -> None:
    less = {name: value for name, value in ACK_BODY.items() if name != "ack_id"}
    body = expect(post(gateway, ACKS, less), 400, "invalid_request")
    assert "ack_id" in body["error"]["message"]


def test_two_spellings_must_agree(gateway: Flask) -> None:
    same = post(gateway, ACKS, ACK_BODY, {**CALLER, "Idempotency-Key": "k-1"})
    expect(same, 503, "unavailable")
    other = post(gateway, ACKS, ACK_BODY, {**CALLER, "Idempotency-Key": "k-2"})
    assert "ack_id" in expect(other, 400, "invalid_request")["error"]["message"]
