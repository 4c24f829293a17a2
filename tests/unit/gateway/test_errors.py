"""The one table error → status and code, row by row as the wire contract has it."""

from __future__ import annotations

from typing import Any

import pytest

from bridge import BridgeError, Closed, NotSent, Refusal, Refused, Unknown
from gateway.errors import (
    ROUTER_CODES,
    STATUS,
    ErrorCode,
    ErrorType,
    GatewayError,
    from_bridge,
    from_router,
)

INTAKE, RUNTIME = ErrorType.ROUTER_INTAKE, ErrorType.ROUTER_RUNTIME

ROUTER_TABLE = [
    # code, intake_error_code, our status, our code, whose error it is in the access log
    ("invalid_request", "SCHEMA_VALIDATION_FAILED", 400, "invalid_request", INTAKE),
    ("invalid_request", "VERSION_UNSUPPORTED", 400, "invalid_request", INTAKE),
    ("invalid_request", "CORRELATION_FIELDS_INVALID", 400, "invalid_request", INTAKE),
    ("invalid_request", "IDEMPOTENCY_VIOLATION", 400, "invalid_request", INTAKE),
    ("invalid_request", "PAYLOAD_TOO_SMALL", 400, "invalid_request", INTAKE),
    ("unauthorized", "TENANT_FORBIDDEN", 401, "unauthorized", INTAKE),
    ("denied", None, 403, "denied", RUNTIME),
    ("validator_blocked", None, 403, "denied", RUNTIME),
    ("policy_not_found", None, 404, "policy_not_found", RUNTIME),
    ("extension_not_found", None, 404, "extension_not_found", RUNTIME),
    ("decision_failed", None, 500, "decision_failed", RUNTIME),
    ("post_processor_failed", None, 500, "post_processor_failed", RUNTIME),
    ("extension_error", None, 500, "extension_error", RUNTIME),
    ("internal", None, 500, "internal", RUNTIME),
    ("internal", "INTERNAL_VALIDATION_ERROR", 500, "internal", INTAKE),
    ("extension_unavailable", None, 503, "unavailable", RUNTIME),
    ("extension_timeout", None, 504, "timeout", RUNTIME),
]


@pytest.mark.parametrize(("code", "intake", "status", "own_code", "error_type"), ROUTER_TABLE)
def test_an_error_of_the_router_becomes_its_row(
    code: str, intake: str | None, status: int, own_code: str, error_type: ErrorType
) -> None:
    error = from_router(code, "why", intake, {"field": "task"})
    assert (error.status, error.code, error.error_type) == (status, own_code, error_type)
    assert error.intake_error_code == intake
    assert error.message == "why" and error.details == {"field": "task"}


def test_the_table_has_no_row_that_the_contract_has_not() -> None:
    assert set(ROUTER_CODES) == {row[0] for row in ROUTER_TABLE}


@pytest.mark.parametrize("code", ["", "Internal", "ok", "timeout", "x" * 100_000, "\0\n"])
def test_a_code_that_the_contract_does_not_know_is_a_bad_reply(code: str) -> None:
    error = from_router(code, "why", None, {})
    assert (error.status, error.code, error.error_type) == (502, "bad_reply", RUNTIME)
    assert len(error.message) < 500


OWN_TABLE = {
    400: {"invalid_request"},
    401: {"unauthorized"},
    403: {"denied"},
    404: {"not_found"},
    405: {"method_not_allowed"},
    409: {"idempotency_conflict", "in_progress"},
    413: {"payload_too_large"},
    415: {"unsupported_media_type"},
    429: {"rate_limit_exceeded"},
    500: {"internal"},
    502: {"bad_reply"},
    503: {"unavailable", "overloaded", "access_unavailable"},
    504: {"timeout", "outcome_unknown"},
}


def test_the_gateways_own_codes_have_the_contracts_statuses() -> None:
    table: dict[int, set[str]] = {}
    for code, (status, _) in STATUS.items():
        table.setdefault(status, set()).add(code.value)
    assert table == OWN_TABLE
    assert set(STATUS) == set(ErrorCode)


BRIDGE_TABLE = [
    # what the bridge raised, of a call (decide) → status, code; of a publish → status, code
    (NotSent("no responders"), (503, "unavailable"), (503, "unavailable")),
    (NotSent("too many", overloaded=True), (503, "overloaded"), (503, "overloaded")),
    (Closed("shutting down"), (503, "unavailable"), (503, "unavailable")),
    (Unknown("silence"), (504, "timeout"), (504, "outcome_unknown")),
    *(
        (Refused("no", reason=reason), (502, "bad_reply"), (502, "bad_reply"))
        for reason in Refusal
        if reason is not Refusal.TOO_LARGE
    ),
    (
        Refused("no", reason=Refusal.TOO_LARGE),
        (413, "payload_too_large"),
        (413, "payload_too_large"),
    ),
]


@pytest.mark.parametrize(("error", "call", "publish"), BRIDGE_TABLE, ids=lambda v: repr(v)[:40])
def test_what_the_bridge_raises_says_whether_it_happened(
    error: BridgeError, call: tuple[int, str], publish: tuple[int, str]
) -> None:
    for publishing, expected in ((False, call), (True, publish)):
        answer = from_bridge(error, publishing=publishing)
        assert (answer.status, answer.code) == expected


@pytest.mark.parametrize("code", list(ErrorCode))
def test_what_may_be_tried_again_says_when(code: ErrorCode) -> None:
    error = GatewayError(code, "why")
    assert ("Retry-After" in error.headers) == (error.status in (503, 504))


@pytest.mark.parametrize("intake", [None, "SCHEMA_VALIDATION_FAILED"])
def test_there_is_one_body_whatever_went_wrong(intake: str | None) -> None:
    given: dict[str, Any] = {"request_id": "r", "trace_id": "t", "tenant_id": None}
    error = GatewayError(ErrorCode.DENIED, "No.", intake_error_code=intake, details={"a": 1})
    assert error.body(given) == {
        "ok": False,
        "error": {
            "code": "denied",
            "message": "No.",
            "intake_error_code": intake,
            "details": {"a": 1},
        },
        "context": given,
    }


def test_the_precedence_of_whose_error_it_was_is_that_of_the_contract() -> None:
    assert [kind.value for kind in ErrorType] == [
        "rate_limit",
        "auth_gateway",
        "request_gateway",
        "router_intake",
        "router_runtime",
        "internal_gateway",
    ]
