"""Request id, trace, phase: made, continued, returned, and the same on both sides."""

from __future__ import annotations

import uuid

import pytest

from tests.support.documents import DECIDE, decide_body
from tests.support.http_client import Client
from tests.support.nats_tap import NatsTap
from tests.support.wire import (
    TRACE_ID,
    TRACEPARENT,
    UUID4,
    check_correlation,
    decide_on_the_wire,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OTHER_TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACE_AS_UUID = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"
INCOMING = f"00-{OTHER_TRACE}-b7ad6b7169203331-01"


def test_request_id_is_made_when_absent(client: Client, tap: NatsTap) -> None:
    body = decide_body()
    del body["request_id"]
    answer = client.post(DECIDE, body)
    request_id = answer.json()["context"]["request_id"]
    assert UUID4.fullmatch(request_id)
    check_correlation(answer, answer.json()["context"])
    decide_on_the_wire(tap, request_id)


def test_request_id_of_the_header_is_used_when_the_body_has_none(
    client: Client, tap: NatsTap
) -> None:
    body = decide_body()
    del body["request_id"]
    given = f"from-header-{uuid.uuid4().hex}"
    answer = client.post(DECIDE, body, {"X-Request-ID": given})
    assert answer.json()["context"]["request_id"] == given
    decide_on_the_wire(tap, given)


def test_request_id_of_the_body_beats_that_of_the_header(client: Client, tap: NatsTap) -> None:
    body = decide_body()
    answer = client.post(DECIDE, body, {"X-Request-ID": "from-header"})
    assert answer.header("X-Request-ID") == body["request_id"]
    decide_on_the_wire(tap, body["request_id"])


@pytest.mark.parametrize(
    ("header", "in_body", "traceparent", "expected"),
    [
        pytest.param(TRACE, OTHER_TRACE, INCOMING, TRACE, id="header beats body"),
        pytest.param(None, TRACE, INCOMING, TRACE, id="body beats traceparent"),
        pytest.param(None, None, INCOMING, OTHER_TRACE, id="traceparent is the next"),
        pytest.param(TRACE_AS_UUID, None, None, TRACE, id="uuid in header"),
        pytest.param(None, TRACE_AS_UUID, None, TRACE, id="uuid in body"),
        pytest.param(None, None, None, None, id="made by the gateway"),
    ],
)
def test_trace_id_comes_from_header_then_body_then_traceparent(
    client: Client,
    tap: NatsTap,
    header: str | None,
    in_body: str | None,
    traceparent: str | None,
    expected: str | None,
) -> None:
    body = decide_body() | ({"trace_id": in_body} if in_body else {})
    headers = {"X-Trace-ID": header, "traceparent": traceparent}
    answer = client.post(DECIDE, body, {key: value for key, value in headers.items() if value})
    assert answer.status == 200
    trace_id = answer.header("X-Trace-ID") or ""
    assert TRACE_ID.fullmatch(trace_id)
    assert expected in (None, trace_id)
    check_correlation(answer, answer.json()["context"])
    document, sent = decide_on_the_wire(tap, body["request_id"])
    assert sent["trace_id"] == document["trace_id"] == trace_id
    continued = TRACEPARENT.fullmatch(sent["traceparent"])
    assert continued
    if traceparent:
        assert continued[1] == OTHER_TRACE, "an incoming traceparent is continued"


def test_trace_of_an_unreadable_traceparent_is_not_continued(client: Client, tap: NatsTap) -> None:
    body = decide_body()
    unreadable = f"00-{'0' * 32}-b7ad6b7169203331-01"
    assert client.post(DECIDE, body, {"traceparent": unreadable}).status == 200
    _, headers = decide_on_the_wire(tap, body["request_id"])
    assert headers["trace_id"] != "0" * 32


def test_cp_phase_travels_with_the_message(client: Client, tap: NatsTap) -> None:
    body = decide_body()
    assert client.post(DECIDE, body, {"X-CP-Phase": "cp3"}).status == 200
    assert decide_on_the_wire(tap, body["request_id"])[1]["cp_phase"] == "cp3"


@pytest.mark.parametrize("hostile", ["cp9", "CP2\u00e9", "cp2 or 1=1", "x" * 500])
def test_cp_phase_that_nobody_knows_does_not_travel(
    client: Client, tap: NatsTap, hostile: str
) -> None:
    body = decide_body()
    assert client.post(DECIDE, body, {"X-CP-Phase": hostile}).status == 200
    assert decide_on_the_wire(tap, body["request_id"])[1].get("cp_phase") in (None, "unknown")
