"""The wire contract as checks: what every message of the gateway has, and what it never has.

Written from the contract, not from the gateway: where the two differ, these fail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tests.support.http_client import Answer
from tests.support.nats_tap import NatsTap
from tests.support.scripted_router import DECIDE_SUBJECT

TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
UUID4: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")
IDENTIFIER: Final = re.compile(r"[!-~]{1,128}")
CP_PHASES: Final = frozenset({*(f"cp{number}" for number in range(9)), "unknown"})

DECIDE_FIELDS: Final = frozenset(
    "version tenant_id request_id trace_id task policy_id constraints metadata push_assignment"
    " assignment_id context run_id flow_id step_id idempotency_key".split()
)
USAGE_FIELDS: Final = frozenset(
    "version tenant_id provider_id event_type latency_ms cost status trace_id timestamp"
    " assignment_id request_id".split()
)

_MESSAGE_HEADERS: Final = frozenset({"version", "tenant_id", "trace_id", "traceparent"})
# `claim_id` is the gateway's own: a random name of the operation, derived from nothing.
_OPTIONAL_HEADERS: Final = frozenset(
    "cp_phase tracestate baggage Nats-Msg-Id Nats-Expected-Stream usage_id claim_id".split()
)
_CREDENTIALS: Final = re.compile(r"authorization|api[-_]?key|cookie|bearer", re.IGNORECASE)


def check_headers(headers: Mapping[str, str], *, tenant: str, jetstream: bool = False) -> None:
    """The headers on every message: those of the contract, no other, and nothing like a credential."""
    assert headers.get("version") == "1", headers
    assert headers.get("tenant_id") == tenant, headers
    assert TRACE_ID.fullmatch(headers.get("trace_id", "")), headers
    assert TRACEPARENT.fullmatch(headers.get("traceparent", "")), headers
    if "cp_phase" in headers:
        assert headers["cp_phase"] in CP_PHASES, headers
    if jetstream:
        assert headers.get("Nats-Msg-Id"), headers
    unexpected = set(headers) - _MESSAGE_HEADERS - _OPTIONAL_HEADERS
    assert not unexpected, f"headers that the contract does not know: {unexpected}"
    for name, value in headers.items():
        assert not _CREDENTIALS.search(name), headers
        assert "bearer " not in value.lower(), headers


def check_no_nulls(document: object, where: str = "$") -> None:
    """Optional fields are omitted when absent, never null. Free objects are not looked into."""
    if isinstance(document, Mapping):
        for name, value in document.items():
            assert value is not None, f"{where}.{name} is null on the wire"
            if name not in ("metadata", "constraints", "context", "payload", "decision"):
                check_no_nulls(value, f"{where}.{name}")


def check_decide(document: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    """A DecideRequest on the wire agrees with the contract and with its own headers."""
    check_no_nulls(document)
    assert set(document) <= DECIDE_FIELDS, set(document) - DECIDE_FIELDS
    assert document["version"] == "1"
    assert document["tenant_id"] == headers["tenant_id"]
    assert IDENTIFIER.fullmatch(document["request_id"]), document["request_id"]
    if "trace_id" in document:
        assert document["trace_id"] == headers["trace_id"]
    task = document["task"]
    assert isinstance(task["type"], str)
    assert task["type"]
    assert ("payload" in task) != ("payload_ref" in task), task


def check_error_body(answer: Answer, *, tenant: str | None = "acme") -> None:
    """The one body of every error, whatever went wrong (design, section 4).

    ``tenant`` None: the caller is unknown, so the body names no tenant (or whatever was claimed).
    """
    assert (answer.header("Content-Type") or "").split(";")[0] == "application/json", answer
    document = answer.json()
    assert set(document) == {"ok", "error", "context"}, answer
    assert document["ok"] is False, answer
    error = document["error"]
    assert set(error) == {"code", "message", "intake_error_code", "details"}, answer
    assert isinstance(error["code"], str), answer
    assert isinstance(error["message"], str), answer
    assert error["message"], answer
    assert error["intake_error_code"] is None or isinstance(error["intake_error_code"], str), answer
    assert isinstance(error["details"], dict), answer
    context = document["context"]
    assert set(context) == {"request_id", "trace_id", "tenant_id"}, answer
    check_correlation(answer, context)
    if tenant is not None:
        assert context["tenant_id"] == tenant, answer


def check_correlation(answer: Answer, context: Mapping[str, Any]) -> None:
    """The ids in a body are well formed and those of the answer's headers."""
    assert IDENTIFIER.fullmatch(context["request_id"]), answer
    assert TRACE_ID.fullmatch(context["trace_id"]), answer
    assert answer.header("X-Request-ID") == context["request_id"], answer
    assert answer.header("X-Trace-ID") == context["trace_id"], answer


def expect_error(answer: Answer, status: int, code: str, *, tenant: str | None = "acme") -> None:
    """The answer is this error, in the contract's body."""
    assert (answer.status, answer.code) == (status, code), answer
    check_error_body(answer, tenant=tenant)


def decide_on_the_wire(tap: NatsTap, request_id: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The one DecideRequest with this id, and its headers, after the contract's checks."""
    found = tap.wait_for(
        1, DECIDE_SUBJECT, where=lambda message: message.json()["request_id"] == request_id
    )
    assert len(found) == 1
    document, headers = found[0].json(), dict(found[0].headers)
    check_headers(headers, tenant="acme")
    check_decide(document, headers)
    return document, headers
