"""The headers of every message, and the trace context in them."""

from __future__ import annotations

import pytest

from gateway.devstack.contract import Envelope, Intake, envelope_headers, read_headers
from gateway.devstack.contract.correlation import (
    child_traceparent,
    is_trace_header,
    is_traceparent,
    plain_trace_id,
)
from gateway.devstack.contract.violations import Violation
from tests.unit.devstack.messages import (
    REQUEST_HEADERS,
    STORED_HEADERS,
    TRACE,
    TRACE_AS_UUID,
    TRACEPARENT,
)

SCHEMA = Intake.SCHEMA_VALIDATION_FAILED
CORRELATION = Intake.CORRELATION_FIELDS_INVALID


def violations(headers: dict[str, str], *, stored: bool = True) -> list[tuple[str, Intake]]:
    notes: list[Violation] = []
    read_headers(headers, notes, stored=stored)
    return [(note.where, note.intake) for note in notes]


def test_the_contracts_headers_are_read() -> None:
    notes: list[Violation] = []
    envelope = read_headers(STORED_HEADERS, notes, stored=True)
    assert notes == []
    assert envelope == Envelope("acme", TRACE, TRACEPARENT, "cp2", "a-message-id")


@pytest.mark.parametrize(
    ("name", "intake"),
    [
        ("version", SCHEMA),
        ("tenant_id", SCHEMA),
        ("trace_id", CORRELATION),
        ("traceparent", CORRELATION),
        ("Nats-Msg-Id", SCHEMA),
    ],
)
def test_each_required_header_is_missed(name: str, intake: Intake) -> None:
    headers = {key: value for key, value in STORED_HEADERS.items() if key != name}
    assert violations(headers) == [(f"header {name}", intake)]


def test_the_phase_and_on_requests_the_message_id_may_be_absent() -> None:
    headers = {key: value for key, value in REQUEST_HEADERS.items() if key != "cp_phase"}
    assert violations(headers, stored=False) == []


@pytest.mark.parametrize(
    ("name", "value", "intake"),
    [
        ("version", "2", Intake.VERSION_UNSUPPORTED),
        ("version", "", Intake.VERSION_UNSUPPORTED),
        ("tenant_id", "", SCHEMA),
        ("tenant_id", "a b", SCHEMA),
        ("tenant_id", "a" * 65, SCHEMA),
        ("trace_id", TRACE.upper(), CORRELATION),
        ("trace_id", TRACE_AS_UUID, CORRELATION),
        ("trace_id", "0" * 32, CORRELATION),
        ("traceparent", TRACE, CORRELATION),
        ("cp_phase", "cp9", SCHEMA),
        ("cp_phase", "CP2", SCHEMA),
        ("cp_phase", "", SCHEMA),
        ("Nats-Msg-Id", "", SCHEMA),
        ("Nats-Msg-Id", "a b", SCHEMA),
    ],
)
def test_a_malformed_header_is_refused(name: str, value: str, intake: Intake) -> None:
    assert violations({**STORED_HEADERS, name: value}) == [(f"header {name}", intake)]


@pytest.mark.parametrize("phase", [*(f"cp{number}" for number in range(9)), "unknown"])
def test_the_phases_are_cp0_to_cp8_and_unknown(phase: str) -> None:
    assert violations({**STORED_HEADERS, "cp_phase": phase}) == []


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "authorization",
        "Proxy-Authorization",
        "X-API-Key",
        "x_api_key",
        "apikey",
        "Cookie",
        "Set-Cookie",
        "X-Role",
        "X-Auth-Token",
        "client_secret",
        "Password",
    ],
)
def test_no_credential_travels_whatever_it_is_called(name: str) -> None:
    assert violations({**STORED_HEADERS, name: "x"}) == [(f"header {name}", SCHEMA)]


@pytest.mark.parametrize("value", ["Bearer abc", "basic dXNlcjpw", "  Digest username=x"])
def test_no_credential_travels_under_another_name(value: str) -> None:
    assert violations({**STORED_HEADERS, "x-note": value}) == [("header x-note", SCHEMA)]


def test_header_names_are_case_sensitive_on_the_wire() -> None:
    headers = {**REQUEST_HEADERS, "Nats-Msg-Id": "a"}
    headers["Tenant_Id"] = headers.pop("tenant_id")
    assert violations(headers) == [("header tenant_id", SCHEMA)]


def test_what_is_sent_on_goes_under_the_same_trace_with_a_span_of_its_own() -> None:
    cause = Envelope("acme", TRACE, TRACEPARENT, "cp2", "the cause's id")
    headers = envelope_headers(cause, "an-id")
    assert violations(headers) == []
    assert headers["trace_id"] == TRACE
    assert headers["Nats-Msg-Id"] == "an-id"
    version, trace, span, flags = headers["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span != TRACEPARENT.split("-")[2]


def test_an_unknown_phase_is_not_made_up() -> None:
    assert "cp_phase" not in envelope_headers(Envelope("acme", TRACE, TRACEPARENT))


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        (TRACEPARENT, True),
        (TRACEPARENT[:-2] + "03", True),
        ("cc" + TRACEPARENT[2:] + "-what-the-future-will-be-like", True),
        ("cc" + TRACEPARENT[2:], True),
        (TRACEPARENT + "-extra", False),
        ("cc" + TRACEPARENT[2:] + ".extra", False),
        ("ff" + TRACEPARENT[2:], False),
        (TRACEPARENT.upper(), False),
        (TRACEPARENT + "\n", False),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE}-00f067aa0ba902b7", False),
        ("", False),
    ],
)
def test_traceparent_follows_w3c(value: str, valid: bool) -> None:
    assert is_traceparent(value) is valid


def test_a_child_of_a_future_version_is_of_the_version_we_know() -> None:
    child = child_traceparent("cc" + TRACEPARENT[2:] + "-rest")
    assert is_traceparent(child)
    assert child.startswith(f"00-{TRACE}-")


def test_a_payloads_trace_id_has_two_spellings_and_the_header_one() -> None:
    assert plain_trace_id(TRACE_AS_UUID.upper()) == TRACE
    assert plain_trace_id(TRACE.upper()) == TRACE
    assert plain_trace_id("0" * 32) is None
    assert not is_trace_header(TRACE.upper())
